"""Each family fulfils the protocols, and says truly what it can do."""

import pytest

from maskless.models.inpainters.protocol import Denoiser, InpaintingModel


@pytest.mark.parametrize(
    ("name", "has_denoiser", "takes_picture"),
    [("sd", True, False), ("instruct-pix2pix", True, True), ("flux", False, False), ("qwen-image-edit", False, True)],
)
def test_a_family_fulfils_the_protocols(family_model, name, has_denoiser, takes_picture):
    model = family_model(name)
    assert isinstance(model, InpaintingModel) and model.takes_picture == takes_picture
    assert isinstance(model.denoiser, Denoiser) if has_denoiser else model.denoiser is None
    assert model.native_px % model.cell_px == 0 and model.unet_forwards == 0
    noise = model.draw_noise(1)
    assert (noise is not None) == has_denoiser, "a model that draws its own noise takes none"
