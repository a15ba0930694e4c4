"""Tiny pipelines of every inpainting family, built once for all tests that ask for them."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
import torch

from maskless.engine.editor import Editor
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.loading import InpaintingModel, load_pipeline, make_inpainter
from tiny_families import NATIVE_PX, build_family


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's pipeline. Read only."""
    root = tmp_path_factory.mktemp("families")

    def folder(name: str) -> Path:
        return root / name if (root / name).is_dir() else build_family(name, root / name)

    return folder


@pytest.fixture(scope="session")
def family_editor(family_folder: Callable[[str], Path]) -> Callable[..., Editor]:
    """An editor with that family's model, by the path that users take; DINO and CLIP are the bundled ones."""
    bundled = Path(str(resources.files("maskless"))) / "assets" / "storybook"

    def editor(name: str, **options) -> Editor:
        settings = {
            "iterations": 1,
            "anchors": 1,
            "min_window_size": 8,
            "max_window_size": 8,
            "views": 1,
            "device": "cpu",
        }
        return Editor.from_pretrained(
            str(family_folder(name)), dino=str(bundled / "dino"), clip=str(bundled / "clip"), dtype="float32",
            **(settings | options),
        )  # fmt: skip

    return editor


@pytest.fixture(scope="session")
def family_model(family_folder: Callable[[str], Path]) -> Callable[..., InpaintingModel]:
    """That family's model alone."""

    def model(name: str, **options) -> InpaintingModel:
        return make_inpainter(load_pipeline(str(family_folder(name))), **({"native_px": NATIVE_PX} | options))

    return model


@pytest.fixture(scope="session")
def draw() -> Callable[..., torch.Tensor]:
    """Inpaint the middle of the first `count` of three noisy pictures."""
    pictures = torch.rand(3, 3, NATIVE_PX, NATIVE_PX, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(3, 1, NATIVE_PX, NATIVE_PX)
    masks[:, :, 8:24, 8:24] = 1

    def drawn(model, count: int = 1, *, prompt: str = "a blue house", negative: str = "", **options) -> torch.Tensor:
        settings = {"seed": 1, "steps": 2, "guidance_scale": 3.0} | options
        return model.inpaint(
            pictures[:count], masks[:count], model.encode_prompt(prompt, negative), Sampling(**settings)
        )

    return drawn
