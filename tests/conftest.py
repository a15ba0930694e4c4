"""What the tests share: small models through the real loading path, an editor with them, and a drawn picture."""

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jaxtyping
import pytest
import torch

from maskless.data.types import Anchors
from maskless.engine.editor import Editor
from tiny_models import build_tiny_models, build_tiny_preview

# A busy machine makes any example slow now and then; that is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inpainting/, dino/ and clip/, of random weights. Read only: tests that damage it copy it first."""
    return build_tiny_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def editor(tiny_models: Path) -> Editor:
    """An editor in float32 that takes two denoising steps."""
    return Editor.from_pretrained(str(tiny_models), steps=2, device="cpu", dtype="float32", views=2)


@pytest.fixture(scope="session")
def preview_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small autoencoder that fits the tiny models. Read only."""
    return build_tiny_preview(tmp_path_factory.mktemp("preview") / "taesd")


@pytest.fixture(scope="session")
def previewing(tiny_models: Path, preview_vae: Path) -> Editor:
    """The same editor with a preview autoencoder."""
    return Editor.from_pretrained(
        str(tiny_models), preview_vae=str(preview_vae), steps=2, device="cpu", dtype="float32", views=2
    )


@pytest.fixture
def picture() -> torch.Tensor:
    """[3, 72, 120] in [0, 1]: a gradient with a bright square near the right edge. Wider than high on purpose."""
    rows = torch.linspace(0, 0.6, 72)[:, None].expand(72, 120)
    columns = torch.linspace(0, 0.6, 120)[None, :].expand(72, 120)
    image = torch.stack([rows, columns, 0.5 * (rows + columns)])
    image[:, 20:44, 84:108] = torch.tensor([1.0, 0.2, 0.1])[:, None, None]
    return image


@pytest.fixture
def nine_anchors() -> Anchors:
    """Anchors on a 32 x 32 grid, corners included."""
    points = torch.tensor([[y, x] for y in (0, 16, 31) for x in (0, 12, 31)])
    return Anchors(points_yx=points, weight=torch.ones(9), grid_yx=(32, 32))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it: without the type checks that pytest adds, which would refuse a wrong type before our own do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
