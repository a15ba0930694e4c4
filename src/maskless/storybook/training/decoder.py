"""The autoencoder's decoder alone, trained on while the inpainter works with the latents as they are."""

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


def build(run: Run) -> nn.Module:
    """The exported autoencoder, its encoder frozen: latents and their scale stay what they are."""
    vae = load(run.models)
    vae.decoder.requires_grad_(True)
    return nn.ModuleDict({"vae": vae})


def export(model: nn.Module, models: Path) -> None:
    """To the inpainter, and to the redrawer where there is one: its latents are the same."""
    autoencoder.export(model, models)
    if (models / "redraw").is_dir():
        shutil.copytree(models / EXPORT, models / "redraw" / "vae", dirs_exist_ok=True)
