"""The redrawer's training to refine: holes that the bundled inpainter fills, and the true windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.storybook.train import ASSETS
from maskless.storybook.training import redraw, refine
from maskless.storybook.training.loop import Run
from maskless.storybook.training.refine import SIDE, example, fill_holes, loss, noised_at, stratified_times


def _run(output: Path) -> Run:
    return Run(name="refine", output=output, minutes=1, device=torch.device("cpu"), workers=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.ModuleDict:
    folder = tmp_path_factory.mktemp("training")
    (folder / "models").symlink_to(ASSETS)
    return refine.build(_run(folder))


def _batch(count: int) -> dict[str, torch.Tensor]:
    rows = [example(refine.FIRST_SEED + number) for number in range(count)]
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def test_some_examples_are_the_redrawers_own_pairs(model: torch.nn.ModuleDict) -> None:
    batch = _batch(40)
    own = ~batch["hole"].flatten(2).any(dim=2)
    assert 0 < own.float().mean() < 0.4
    assert torch.equal(batch["before"][~own], batch["after"][~own]), "the loss lets the inpainter fill the holes"
    assert batch["before"].shape == (40, 2, 3, SIDE, SIDE) and batch["before"].dtype == torch.uint8


def test_a_filled_hole_changes_nothing_around_it_and_keeps_the_layout(model: torch.nn.ModuleDict) -> None:
    scene = next(row for row in (example(seed) for seed in range(40)) if row["hole"].any())
    image, hole = scene["after"].float() / 255, torch.zeros(2, 1, SIDE, SIDE)
    hole[:, :, 32:96, 32:96] = 1
    text = redraw._frozen["text"](scene["ids"]).last_hidden_state
    drawn = [fill_holes(image, hole, text, 0, strength) for strength in (0.4, 1.0)]
    for each in drawn:
        assert torch.equal(each[:, :, :32], image[:, :, :32]) and not torch.equal(each, image)
        assert 0 <= each.min() and each.max() <= 1
    assert torch.equal(drawn[0], fill_holes(image, hole, text, 0, 0.4)), "the same seed gives the same picture"
    near, far = (float((each - image).square().mean()) for each in drawn)
    assert near <= far * 1.2


def test_each_time_is_from_its_own_part_of_the_distribution() -> None:
    times = stratified_times(64, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert 0 <= times.min() and times.max() <= 999
    assert 25 <= int((times < 500).sum()) <= 39 and times.tolist() != sorted(times.tolist())


def test_noise_and_target_give_the_latents_back() -> None:
    generator = torch.Generator().manual_seed(1)
    clean, time = torch.randn(3, 4, 8, 8, generator=generator), torch.tensor([5, 400, 990])
    noisy, v = noised_at(clean, time, generator)
    signal = refine._alphas_cumprod()[time][:, None, None, None]
    assert torch.allclose(signal.sqrt() * noisy - (1 - signal).sqrt() * v, clean, atol=1e-4)


def test_the_loss_is_finite_and_moves_the_unet_alone(model: torch.nn.ModuleDict) -> None:
    value = loss(model, _batch(1), torch.Generator().manual_seed(0))
    value.backward()
    assert 0 < value.item() < 5
    assert all(parameter.grad is not None for parameter in model["unet"].parameters())
    frozen = (*redraw._frozen["text"].parameters(), *refine._inpainter[0].unet.parameters())
    assert not any(parameter.requires_grad for parameter in frozen)


def test_without_a_redrawer_the_error_names_what_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(MasklessError, match="train the redrawer first"):
        refine.build(_run(tmp_path))
