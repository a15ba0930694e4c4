"""The autoencoder: its examples, its loss, and the bundled one's export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from maskless.storybook.train import ASSETS
from maskless.storybook.training import autoencoder
from maskless.storybook.training.loop import Run
from maskless.storybook.world.scenes import render, split_seed
from maskless.storybook.world.sheets import to_tensor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """The bundled autoencoder."""
    run = Run(
        name="autoencoder", output=tmp_path_factory.mktemp("training"), minutes=1, device=torch.device("cpu"), workers=0
    )
    built = autoencoder.build(run)
    autoencoder.restore(built, ASSETS)
    return built


def test_psnr_by_hand() -> None:
    a = torch.zeros(2, 3, 4, 4)
    b = torch.stack([torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 1.0)])
    assert autoencoder.psnr(a, b).tolist() == pytest.approx([20, 0])


def test_an_example_depends_on_its_seed_alone_and_sometimes_has_a_grey_hole() -> None:
    first, again = autoencoder.example(5)["image"], autoencoder.example(5)["image"]
    assert first.shape == (2, 3, autoencoder.CROP, autoencoder.CROP) and torch.equal(first, again)
    crops = torch.cat([autoencoder.example(seed)["image"] for seed in range(20)])
    assert crops.min() >= 0 and crops.max() <= 1
    with_hole = ((crops == 0.5).all(dim=1).flatten(1).sum(dim=1) > 0).sum()
    assert 2 <= with_hole < 20


def test_latents_are_four_times_smaller_and_decode_to_the_picture(model: nn.Module) -> None:
    images = torch.stack([to_tensor(render(split_seed("validation", i), 64).image) for i in range(4)])
    with torch.no_grad():
        latents = model["vae"].encode(images * 2 - 1).latents
        decoded = model["vae"].decode(latents).sample.clamp(-1, 1) / 2 + 0.5
    assert latents.shape == (4, 4, 16, 16)
    assert autoencoder.psnr(decoded, images).mean() > 25


def test_the_bundled_weights_have_a_smaller_loss_than_new_ones(model: nn.Module, tmp_path: Path) -> None:
    run = Run(name="autoencoder", output=tmp_path, minutes=1, device=torch.device("cpu"), workers=0)
    batch = {"image": autoencoder.example(1)["image"][None]}
    losses = [
        autoencoder.loss(each, batch, torch.Generator().manual_seed(0)) for each in (model, autoencoder.build(run))
    ]
    assert 0 < losses[0] < 0.5 * losses[1]


def test_it_is_loaded_frozen_and_in_float32() -> None:
    vae = autoencoder.load(ASSETS)
    assert not vae.training and all(p.dtype == torch.float32 and not p.requires_grad for p in vae.parameters())
