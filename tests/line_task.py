"""The smallest task of the training loop, for its tests and for those of the training command."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import torch
from PIL import Image
from torch import nn


def line_task(width: int = 1) -> ModuleType:
    """The smallest task that can be trained: the line y = 3 x."""

    def loss(model: nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        return (model["line"](batch["x"]).float() - 3 * batch["x"]).square().mean()

    def example(seed: int) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(1, generator=torch.Generator().manual_seed(seed))}

    def export(model: nn.Module, models: Path) -> None:
        (models / "line").mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), models / "line" / "line.pt")

    def restore(model: nn.Module, models: Path) -> None:
        model.load_state_dict(torch.load(models / "line" / "line.pt", weights_only=True))

    task = ModuleType("line")
    task.__dict__.update(BATCH=8, LEARNING_RATE=0.05, EMA_DECAY=0.9, example=example, loss=loss, export=export)
    task.__dict__.update(EXPORT="line", restore=restore)
    task.__dict__["build"] = lambda run: nn.ModuleDict({"line": nn.Linear(1, width)})
    task.__dict__["validate"] = lambda model: ({"weight": model["line"].weight.mean().item()}, Image.new("RGB", (4, 4)))
    return task
