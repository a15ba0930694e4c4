"""Drawing a picture over with its layout kept: what moves, and what does not."""

import pytest
import torch

from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.flowedit import flowedit
from maskless.models.inpainters.loading import load_pipeline, make_inpainter
from tiny_families import NATIVE_PX

PICTURES = torch.rand(2, 3, NATIVE_PX, NATIVE_PX, generator=torch.Generator().manual_seed(0))
EVERYWHERE = torch.ones_like(PICTURES[:, :1])
HOW = {"seed": 3, "steps": 4, "guidance_scale": 3.0, "strength": 1.0}


@pytest.fixture(scope="module", params=["sd-inpainting", "sd"])
def model(request, family_folder):
    return make_inpainter(load_pipeline(str(family_folder(request.param))), native_px=NATIVE_PX)


def test_the_same_text_changes_nothing(model):
    text = model.encode_prompt("a blue house", "a blue house")
    drawn = flowedit(model, PICTURES, EVERYWHERE, text, text, Sampling(**HOW))
    back = model.decode(model.latents_of(PICTURES * 2 - 1))
    # A batch of one and a batch of two round differently on some processors, which may tip a pixel.
    assert int((drawn.int() - back.int()).abs().max()) <= 1
    asked = model.encode_prompt("a red car", "a blue house")
    other = flowedit(model, PICTURES, EVERYWHERE, text, asked, Sampling(**HOW))
    assert other.shape == PICTURES.shape and int((other.int() - drawn.int()).abs().max()) > 1
    assert torch.equal(other, flowedit(model, PICTURES, EVERYWHERE, text, asked, Sampling(**HOW)))


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_edit_moves_by_what_the_two_answers_differ_in(model, strength, monkeypatch):
    """A model that predicts a constant for each text, whatever its input: the edit changes by their difference."""
    there, asked = model.encode_prompt("a blue house"), model.encode_prompt("a red car", "a blue house")
    source, shown = model.latents_of(PICTURES * 2 - 1), []

    def predict_clean(run, noisy, timestep, prompt, guidance_scale):
        shown.append((noisy, int(timestep)))
        return torch.full_like(noisy, 0.5 if prompt is asked else 0.2)

    monkeypatch.setattr(model, "predict_clean", predict_clean)
    drawn = flowedit(model, PICTURES, EVERYWHERE, there, asked, Sampling(**HOW | {"strength": strength}))
    assert torch.equal(drawn, model.decode(source + 0.3))
    assert len(shown) == 2 * round(4 * strength)
    (first, timestep), (beside, _) = shown[:2]
    assert torch.equal(first, beside), "nothing has changed yet"
    kept = model.begin(PICTURES, EVERYWHERE, asked, Sampling(**HOW)).scheduler.alphas_cumprod[timestep]
    noise = torch.randn(source[:1].shape, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(first, kept.sqrt() * source + (1 - kept).sqrt() * noise, atol=1e-4)
