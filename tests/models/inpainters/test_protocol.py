"""Each family fulfils the protocols, and says truly what it can do."""

import pytest
import torch

from maskless.models.inpainters.denoising import Sampling, completed_step, watched
from maskless.models.inpainters.protocol import Denoiser, InpaintingModel


@pytest.mark.parametrize(
    ("name", "has_denoiser", "takes_picture"),
    [
        ("sd", True, False), ("instruct-pix2pix", True, True), ("flux", False, False), ("flux-kontext", False, True),
        ("flux2-klein", False, True), ("qwen-image-edit", False, True),
    ],
)  # fmt: skip
def test_a_family_fulfils_the_protocols(family_model, name, has_denoiser, takes_picture):
    model = family_model(name)
    assert isinstance(model, InpaintingModel) and model.takes_picture == takes_picture
    assert not model.redraws_window
    assert isinstance(model.denoiser, Denoiser) if has_denoiser else model.denoiser is None
    assert model.native_px % model.cell_px == 0 and model.unet_forwards == 0
    noise = model.draw_noise(1)
    assert (noise is not None) == has_denoiser, "a model that draws its own noise takes none"


@pytest.mark.parametrize("name", ["instruct-pix2pix", "flux-kontext", "flux2-klein"])
def test_an_editor_restores_the_latents_outside_the_mask(family_model, draw, name):
    """So `redraws_window` is False: another noise changes nothing there, and about everything in the mask. Qwen-Image's
    pipeline does the same, but draws the picture's latents from their distribution."""
    model, ends = family_model(name), []
    for seed in (1, 2):
        with watched(lambda *_: ends.append(completed_step()[1])):
            draw(model, seed=seed)
    first, second = ends[len(ends) // 2 - 1], ends[-1]
    # [1, C, h, w], or [1, patches, C] of two by two latents.
    same = (first == second).all(dim=1 if first.ndim == 4 else 2)
    assert 0.5 < float(same.float().mean()) < 0.9, "the mask is a quarter of the picture"


def test_an_editor_with_everything_masked_redraws_the_whole_window(family_model):
    """As `--whole-window` gives it: no latents are restored."""
    model, ends = family_model("flux-kontext"), []
    picture, everything = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, 32, 32)
    for seed in (1, 2):
        with watched(lambda *_: ends.append(completed_step()[1])):
            model.inpaint(
                picture, everything, model.encode_prompt("a house"), Sampling(seed=seed, steps=2, guidance_scale=2.0)
            )
    assert not bool((ends[1] == ends[-1]).all(dim=2).any())
