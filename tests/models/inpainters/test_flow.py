"""Every family that is named, from a folder on disk to an edited picture."""

import threading

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.inpainters.loading import load_pipeline, make_inpainter
from tiny_families import BUILDERS, NATIVE_PX

CHANNELS_LAST_ATOL = 1


@pytest.mark.parametrize("name", BUILDERS)
def test_a_family_edits_wide_and_tall_pictures_exactly_and_again_the_same(family_editor, name):
    editor = family_editor(name)
    tall = torch.rand(3, 96, 32, generator=torch.Generator().manual_seed(3))
    wide = tall.transpose(1, 2).contiguous()
    again = []
    for image in (wide, tall, tall):
        result = editor.edit(image, prompt="a blue house")
        edited, (x0, y0, x1, y1) = result.best.tensor(), result.best.box_xyxy
        assert edited.shape == image.shape
        outside = torch.ones(image.shape[1:], dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        assert torch.equal(edited[:, outside], result.request.image[:, outside])
        assert not torch.equal(edited, result.request.image)
        assert result.cost.unet_forwards > 0
        again.append(result.candidates.crops)
    assert torch.equal(again[1], again[2])


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_a_wide_region_is_drawn_in_tiles(family_editor, name):
    """A region three times as wide as it is high, and larger than what the model draws at a time."""
    image = torch.rand(3, 40, 120, generator=torch.Generator().manual_seed(4))
    editor = family_editor(name)
    result = editor.edit(image, prompt="a blue house", box=(8, 8, 110, 34))
    edited = result.best.tensor()
    assert edited.shape == image.shape
    outside = torch.ones(40, 120, dtype=torch.bool)
    outside[8:34, 8:110] = False
    assert torch.equal(edited[:, outside], result.request.image[:, outside])
    assert result.cost.inpaintings > 4 * 2, "each of the four tries takes a whole view and several tiles"


@pytest.mark.parametrize("name", BUILDERS)
def test_noise_prompt_and_batch(family_model, draw, name):
    """The noise is the seed's, whatever the batch; the prompt matters."""
    model = family_model(name)
    together = draw(model, 2)
    assert together.shape == (2, 3, NATIVE_PX, NATIVE_PX) and together.dtype == torch.uint8
    assert int((together[:1].int() - draw(model, 1).int()).abs().max()) <= CHANNELS_LAST_ATOL
    assert not torch.equal(draw(model, 1, seed=2), together[:1])
    assert not torch.equal(draw(model, 1, prompt="the red tree"), together[:1])


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "qwen-image-edit"])
def test_a_lower_strength_takes_fewer_steps(family_model, draw, name):
    model = family_model(name)
    forwards = []
    for strength in (1.0, 0.5):
        before = model.unet_forwards
        draw(model, 1, steps=4, strength=strength)
        forwards.append(model.unet_forwards - before)
    assert forwards[0] == 2 * forwards[1] > 0


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "flux2-klein", "qwen-image", "z-image"])
def test_a_negative_prompt_matters(family_model, draw, name):
    model = family_model(name)
    assert not torch.equal(draw(model, negative="the red tree"), draw(model))


def test_flux_fill_takes_no_negative_prompt(family_model):
    with pytest.raises(MasklessError, match="FluxFillPipeline has no negative prompt"):
        family_model("flux-fill").encode_prompt("a house", "a tree")


def test_only_unets_can_be_followed_step_by_step(family_model):
    unet, flow = family_model("sd"), family_model("flux")
    assert unet.denoiser is unet and flow.denoiser is None
    assert unet.draw_noise(1) is not None and flow.draw_noise(1) is None


@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "qwen-image-edit"])
def test_simultaneous_edits_can_share_a_model(family_model, draw, name):
    """Each has its own scheduler, which counts its steps: two texts at once give the pictures that they give alone."""
    model, prompts = family_model(name), ("a blue house", "the red tree")
    alone = {prompt: draw(model, steps=4, prompt=prompt) for prompt in prompts}
    found: dict[str, torch.Tensor] = {}
    threads = [
        threading.Thread(target=lambda prompt=prompt: found.update({prompt: draw(model, steps=4, prompt=prompt)}))
        for prompt in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.keys() == alone.keys() and all(torch.equal(found[prompt], alone[prompt]) for prompt in prompts)


def test_a_flow_keeps_its_scheduler(family_model, draw):
    with pytest.raises(MasklessError, match="scheduler lcm does not work with FluxInpaintPipeline"):
        family_model("flux", scheduler="lcm")
    assert torch.equal(draw(family_model("flux", scheduler="euler")), draw(family_model("flux")))


def test_a_flow_with_another_scheduler_is_refused(family_folder):
    from diffusers import FlowMatchHeunDiscreteScheduler

    pipeline = load_pipeline(str(family_folder("flux")))
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(MasklessError, match="must be FlowMatchEulerDiscreteScheduler, got FlowMatchHeunDiscrete"):
        make_inpainter(pipeline)


def test_a_flow_draws_nothing_from_the_global_seed(family_folder, draw):
    """A scheduler that would give each candidate noise of its own is settled."""
    pipeline = load_pipeline(str(family_folder("flux")))
    pipeline.scheduler.register_to_config(stochastic_sampling=True)
    model = make_inpainter(pipeline, native_px=NATIVE_PX)
    assert torch.equal(draw(model, steps=3), draw(model, steps=3))


def test_few_step_models_recommend_few_steps(family_folder):
    pipeline = load_pipeline(str(family_folder("flux2-klein")))
    assert make_inpainter(pipeline).recommended_steps == 50
    pipeline.register_to_config(is_distilled=True)
    model = make_inpainter(pipeline)
    assert (model.recommended_steps, model.recommended_guidance, model.native_px) == (4, 1.0, 1024)


def test_bfloat16_runs(family_folder, draw):
    for name, part in (("flux", "transformer"), ("sd3", "transformer"), ("z-image", "transformer"), ("sdxl", "unet")):
        pipeline = load_pipeline(str(family_folder(name)), dtype=torch.bfloat16)
        drawn = draw(make_inpainter(pipeline, dtype=torch.bfloat16, native_px=NATIVE_PX))
        assert drawn.shape == (1, 3, NATIVE_PX, NATIVE_PX)
        assert getattr(pipeline, part).dtype == torch.bfloat16


def test_a_size_that_the_model_cannot_draw_is_refused(family_model):
    for name in ("sd", "flux"):
        with pytest.raises(MasklessError, match="native_px must be a multiple of 4 for this model, got 30"):
            family_model(name, native_px=30)
