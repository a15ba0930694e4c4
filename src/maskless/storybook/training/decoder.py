"""Further training of the autoencoder's decoder alone. The latents, which the inpainter works on, stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from maskless.storybook.training import autoencoder
from maskless.storybook.training.autoencoder import BATCH, EXPORT, example, load, loss, restore, validate
from maskless.storybook.training.loop import Run

LEARNING_RATE = 1e-3
FIRST_SEED = 50_000_000

__all__ = [
    "BATCH",
    "EXPORT",
    "FIRST_SEED",
    "LEARNING_RATE",
    "build",
    "example",
    "export",
    "loss",
    "restore",
    "validate",
]


def build(run: Run) -> nn.ModuleDict:
    """The exported autoencoder with its encoder frozen, so that the latents stay as they are."""
    vae = load(run.models)
    vae.decoder.requires_grad_(True)
    return nn.ModuleDict({"vae": vae})


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the autoencoder into the inpainter's folder and, if there is a redrawer, into the redrawer's too."""
    autoencoder.export(model, models)
    if (models / "redraw").is_dir():
        shutil.copytree(models / EXPORT, models / "redraw" / "vae", dirs_exist_ok=True)
