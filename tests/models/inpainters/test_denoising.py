"""Part of a batch of pictures between two denoising steps."""

import pytest
import torch

from maskless.data.errors import EditCancelled
from maskless.models.inpainters.denoising import Sampling, completed_step, predicted_picture, step_completed, watched
from maskless.models.inpainters.flowedit import flowedit
from tiny_families import BUILDERS, NATIVE_PX

PICTURES = torch.rand(2, 3, NATIVE_PX, NATIVE_PX, generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(2, 1, NATIVE_PX, NATIVE_PX)
MASKS[:, :, 8:24, 8:24] = 1


def half_way(model):
    """A run of two pictures after two of five steps."""
    sampling = Sampling(seed=1, steps=5, guidance_scale=3.0)
    return model.advance(model.begin(PICTURES, MASKS, model.encode_prompt("a blue house"), sampling), 2)


def test_some_pictures_of_a_run_go_on_alone(family_model):
    model = family_model("sd", scheduler="dpm++")
    half = half_way(model)
    whole, second = model.advance(half), model.advance(half[[1]])
    assert second.latents.shape[0] == 1
    assert torch.allclose(second.latents[0], whole.latents[1], atol=1e-4)
    assert not torch.allclose(second.latents[0], whole.latents[0], atol=1e-2)


def test_taking_some_pictures_leaves_the_run_as_it_was(family_model):
    """The multistep scheduler keeps earlier predictions of the batch; the part has its own copy of them."""
    model = family_model("sd", scheduler="dpm++")
    half = half_way(model)
    expected = model.advance(half).latents
    part = half[[1]]
    assert (part.step, part.finished) == (2, False) and part.mask.shape[0] == part.known.shape[0] == 1
    assert model.advance(part).finished
    assert half.latents.shape[0] == 2 and torch.equal(model.advance(half).latents, expected)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "qwen-image-edit"])
def test_every_family_reports_its_steps_and_can_be_cancelled(family_model, draw, name):
    model, steps = family_model(name), []
    expected = draw(model, steps=3)
    with watched(lambda step, total: steps.append((step, total))):
        assert torch.equal(draw(model, steps=3), expected)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    before = model.unet_forwards
    with (
        pytest.raises(EditCancelled, match="cancelled after denoising step 2 of 3"),
        watched(lambda step, _: step == 2),
    ):
        draw(model, steps=3)
    assert 0 < model.unet_forwards - before
    assert torch.equal(draw(model, steps=3), expected), "nothing is left of a cancelled drawing, and nobody watches"


def test_flowedit_can_be_cancelled(family_model):
    model, steps = family_model("sd"), []
    source, target = model.encode_prompt("a house"), model.encode_prompt("a tree")
    with pytest.raises(EditCancelled), watched(lambda *step: steps.append(step) or len(steps) == 2):
        flowedit(model, PICTURES, MASKS, source, target, Sampling(seed=1, steps=4, guidance_scale=3.0))
    assert steps == [(1, 4), (2, 4)]


def test_who_watches_can_read_the_timestep_and_the_latents_of_the_completed_step():
    timestep, latents, seen = torch.tensor(7), torch.zeros(1, 4, 2, 2), []
    with watched(lambda step, total: seen.append((step, total, *completed_step()))):
        step_completed(1, 3, timestep, latents)
        step_completed(2, 3)
    assert seen[0][2] is timestep and seen[0][3] is latents and seen[1] == (2, 3, None, None)
    step_completed(3, 3, timestep, latents)
    assert completed_step() == (None, None)


def test_who_watches_can_have_the_prediction_computed_and_nobody_else_does():
    picture, seen = torch.zeros(3, 8, 8, dtype=torch.uint8), []
    with watched(lambda *_: seen.append(predicted_picture())):
        step_completed(1, 2, predicted=lambda: picture)
        step_completed(2, 2)
    assert seen[0] is picture and seen[1] is None and predicted_picture() is None
    with watched(lambda *_: None):
        step_completed(1, 2, predicted=lambda: pytest.fail("nobody asked for it"))
    step_completed(1, 2, predicted=lambda: pytest.fail("nobody watches"))
