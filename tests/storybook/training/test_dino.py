"""DINO: its crops, its targets, the teacher, and the measure of its attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from maskless.storybook.train import ASSETS
from maskless.storybook.training import dino
from maskless.storybook.training.loop import Run


@pytest.fixture
def model(tmp_path: Path) -> nn.Module:
    torch.manual_seed(0)
    return dino.build(Run(name="dino", output=tmp_path, minutes=1, device=torch.device("cpu"), workers=0))


def test_an_example_has_large_and_small_crops_and_depends_on_its_seed_alone() -> None:
    first, again = dino.example(dino.FIRST_SEED), dino.example(dino.FIRST_SEED)
    assert first["large"].shape == (2, 3, 48, 48) and first["small"].shape == (4, 3, 24, 24)
    assert all(torch.equal(first[key], again[key]) and first[key].abs().max() <= 1 for key in first)


def test_the_targets_use_every_prototype_equally() -> None:
    """Also where the outputs are nearly equal, as those of a new teacher are."""
    outputs = 1e-3 * torch.randn(32, 16, generator=torch.Generator().manual_seed(0)) + 0.7
    shares = dino.balanced_targets(outputs)
    assert torch.allclose(shares.sum(dim=1), torch.ones(32), atol=1e-4)
    plain = ((outputs - outputs.mean(dim=0)) / outputs.std() / dino.TEACHER_TEMPERATURE).softmax(dim=1)
    assert float(shares.sum(dim=0).std()) < 0.8 * float(plain.sum(dim=0).std())
    assert float(shares.max(dim=1).values.mean()) > 0.4, "they tell the pictures apart"


def test_the_loss_trains_the_student_alone(model: nn.Module) -> None:
    batch = {key: torch.stack([dino.example(seed)[key] for seed in (1, 2)]) for key in ("large", "small")}
    value = dino.loss(model, batch, torch.Generator())
    value.backward()
    assert 0 < value.item() < 2 * np.log(dino.OUTPUTS)
    assert model["student"].vit.embeddings.cls_token.grad.abs().sum() > 0
    assert all(p.grad is None for p in model["teacher"].parameters())


def test_the_teacher_follows_the_student(model: nn.Module) -> None:
    student, teacher = (model[name].head[0].weight for name in ("student", "teacher"))
    before = teacher.detach().clone()
    with torch.no_grad():
        student.add_(1)
    dino.after_step(model, 0)
    assert torch.allclose(teacher, before + 0.02, atol=1e-5)
    dino.after_step(model, 100_000)
    assert torch.allclose(teacher, before + 0.02 + 0.002 * 0.98, atol=1e-5)


def test_the_strongest_cells_are_not_adjacent() -> None:
    attention, truth = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) / 2, np.zeros((128, 128), bool)
    attention[4:6, 4:6] = torch.tensor([[1.0, 0.9], [0.9, 0.9]])  # adjacent cells, of which one counts
    attention[20, 20] = 0.95
    truth[16:24, 16:24] = True
    assert dino._top_cells_on(attention, truth, count=2) == 0.5
    assert dino._top_cells_on(attention, np.ones((128, 128), bool)) == 1


def test_restored_student_and_teacher_have_the_bundled_vit(model: nn.Module) -> None:
    dino.restore(model, ASSETS)
    for ours, theirs in zip(model["student"].vit.parameters(), model["teacher"].vit.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():
        token = model["teacher"].vit(dino.example(1)["large"], interpolate_pos_encoding=True).last_hidden_state[:, 0]
    assert token.shape == (2, 128) and token.isfinite().all()
