"""Text-driven image editing without masks: the region to edit is learned.

from maskless import Editor
result = Editor.from_pretrained("storybook").edit("scene.png", caption="a red car", prompt="a blue house")
result.best.save("edited.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskless.data.config import EditConfig
    from maskless.data.errors import MasklessError
    from maskless.data.picture import load_image
    from maskless.data.result import EditResult, StepRecord
    from maskless.data.types import EditRequest
    from maskless.engine.editor import Editor
    from maskless.engine.search_run import EditRun

__version__ = "0.1.0"

# Where each public name lives. They are imported when first asked for, so that `import maskless` takes no time.
_HOMES = {
    "EditConfig": "maskless.data.config",
    "EditRequest": "maskless.data.types",
    "EditResult": "maskless.data.types",
    "EditRun": "maskless.engine.search_run",
    "Editor": "maskless.engine.editor",
    "MasklessError": "maskless.data.errors",
    "StepRecord": "maskless.data.types",
    "load_image": "maskless.data.picture",
}

__all__ = [
    "EditConfig",
    "EditRequest",
    "EditResult",
    "EditRun",
    "Editor",
    "MasklessError",
    "StepRecord",
    "__version__",
    "load_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskless' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
