"""The inpainter: its examples, the noise that it learns to predict, its loss, and what it needs first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from maskless.data.errors import MasklessError
from maskless.storybook.train import ASSETS
from maskless.storybook.training import inpainting
from maskless.storybook.training.clip import WORDS
from maskless.storybook.training.inpainting import SIDE
from maskless.storybook.training.loop import Run


def _run(folder: Path) -> Run:
    return Run(name="inpainting", output=folder, minutes=1, device=torch.device("cpu"), workers=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """The bundled inpainter with a new head for words."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "models").symlink_to(ASSETS)
    built = inpainting.build(_run(folder))
    inpainting.restore(built, ASSETS)
    return built.eval()


def test_an_example_has_two_holes_and_depends_on_its_seed_alone(model: nn.Module) -> None:
    first, again = inpainting.example(inpainting.FIRST_SEED), inpainting.example(inpainting.FIRST_SEED)
    shapes = {key: tuple(value.shape) for key, value in first.items()}
    assert shapes == {"image": (2, 3, SIDE, SIDE), "mask": (2, 1, SIDE, SIDE), "ids": (2, 32), "words": (2, len(WORDS))}
    assert all(torch.equal(first[key], again[key]) for key in first)
    masks = torch.cat([inpainting.example(seed)["mask"] for seed in range(10)])
    assert set(masks.unique().tolist()) == {0.0, 1.0} and (masks.flatten(1).sum(dim=1) > 0).all()


def test_the_clean_latents_follow_from_the_noisy_ones_and_the_target() -> None:
    """z_0 = a z_t - s v, which is what v-prediction means."""
    clean = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    time, noisy, target = inpainting.add_noise(clean, torch.Generator().manual_seed(0))
    alphas = inpainting._alphas_cumprod()[time][:, None, None, None]
    assert time.dtype == torch.int64 and 0 <= time.min() and time.max() < 1000 and len(time.unique()) > 1
    assert torch.allclose(alphas.sqrt() * noisy - (1 - alphas).sqrt() * target, clean, atol=1e-4)


def test_the_errors_of_the_predicted_latents_grow_with_the_noise(model: nn.Module) -> None:
    found = list(inpainting.errors(model, scenes=2).values())
    assert len(found) == 5 and 0 < found[0] < found[2] < found[4] < 1


def test_a_text_has_32_tokens_however_long_it_is(model: nn.Module) -> None:
    assert inpainting.tokenize(["", "a red car", "a red car " * 50]).shape == (3, 32)


def test_the_loss_trains_unet_text_encoder_and_head_but_not_the_autoencoder(model: nn.Module) -> None:
    batch = {key: value[None] for key, value in inpainting.example(inpainting.FIRST_SEED + 1).items()}
    value = inpainting.loss(model, batch, torch.Generator().manual_seed(0))
    value.backward()
    assert 0 < value.item() < 5
    for part in (model["unet"].conv_in.weight, model["text"].embeddings.token_embedding.weight, model["words"].weight):
        assert part.grad is not None and part.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in inpainting._frozen["vae"].parameters())
    model.zero_grad(set_to_none=True)


def test_the_pipeline_fills_the_hole(model: nn.Module) -> None:
    example = inpainting.example(inpainting.FIRST_SEED + 2)
    pipe = inpainting.pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    out = pipe(
        ["a red car"] * 2,
        example["image"],
        example["mask"],
        height=SIDE,
        width=SIDE,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images
    assert out.shape == (2, 3, SIDE, SIDE) and out.isfinite().all()


def test_without_autoencoder_and_clip_the_error_names_what_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(MasklessError, match="train the autoencoder and clip first"):
        inpainting.build(_run(tmp_path))
