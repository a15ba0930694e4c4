"""Text-driven image editing without masks: the region to edit is learned.

from maskless import Editor
result = Editor.from_pretrained("storybook").edit("scene.png", caption="a red car", prompt="a blue house")
result.best.save("edited.png")

The docstrings of the package cite "method step N" and "mistake N": docs/method.md in the repository explains them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskless.data.config import EditConfig
    from maskless.data.errors import MasklessError
    from maskless.data.model_options import ModelOptions
    from maskless.data.picture import load_image
    from maskless.data.result import EditResult, StepRecord
    from maskless.data.types import EditRequest
    from maskless.engine.editor import Editor
    from maskless.engine.finder import Finder
    from maskless.engine.run import Run

__version__ = "0.1.0"

# Where each public name lives. They are imported when first asked for, so that `import maskless` takes no time. Those
# that are not in __all__ are for users of diffusers, which looks for a component's class in the package.
_HOMES = {
    "AnchorNetModel": "maskless.interfaces.diffusers.anchor_net",
    "EditConfig": "maskless.data.config",
    "EditRequest": "maskless.data.types",
    "EditResult": "maskless.data.result",
    "Editor": "maskless.engine.editor",
    "Finder": "maskless.engine.finder",
    "MasklessError": "maskless.data.errors",
    "MasklessInpaintPipeline": "maskless.interfaces.diffusers.pipeline",
    "ModelOptions": "maskless.data.model_options",
    "Run": "maskless.engine.run",
    "StepRecord": "maskless.data.result",
    "load_image": "maskless.data.picture",
}

__all__ = [
    "EditConfig",
    "EditRequest",
    "EditResult",
    "Editor",
    "Finder",
    "MasklessError",
    "ModelOptions",
    "Run",
    "StepRecord",
    "__version__",
    "load_image",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskless' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
