"""The UNet on latents: against diffusers' own pipelines, stopped in the middle, in batches, with long prompts."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.inpainters.loading import load_pipeline, make_inpainter
from tiny_families import NATIVE_PX

PICTURES = torch.rand(2, 3, NATIVE_PX, NATIVE_PX, generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(2, 1, NATIVE_PX, NATIVE_PX)
MASKS[:, :, 8:24, 8:24] = 1


def begin(model: StableDiffusionInpainter, **options):
    settings = {"seed": 1, "steps": 5, "guidance_scale": 3.0} | options
    return model.begin(PICTURES, MASKS, model.encode_prompt("a blue house"), Sampling(**settings))


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("name", ["sd-inpainting", "sd", "sdxl-inpainting", "sdxl"])
def test_it_follows_the_pipelines_of_diffusers(family_folder, name, strength):
    """The same noise through the stock pipeline gives nearly the same picture; it draws latents from the autoencoder's
    distribution, here nearly a point."""
    pipeline = load_pipeline(str(family_folder(name)))
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        pipeline.vae.quant_conv.weight[4:].zero_()
        pipeline.vae.quant_conv.bias[4:].fill_(-30)
    model = make_inpainter(pipeline, native_px=NATIVE_PX)
    noise = model.draw_noise(1)
    if strength < 1:
        # The stock pipeline draws this noise itself, after its autoencoder has drawn from the same generator.
        from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_inpaint as plain
        from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_inpaint as large

        with pytest.MonkeyPatch.context() as patch:
            for module in (plain, large):
                patch.setattr(module, "randn_tensor", lambda *_given, **_named: noise)
            stock = _stock(pipeline, strength, None)
    else:
        stock = _stock(pipeline, strength, noise)
    own = model.inpaint(
        PICTURES[:1], MASKS[:1], model.encode_prompt("a blue house", "a tree"),
        Sampling(seed=1, steps=5, guidance_scale=3.0, strength=strength),
    )[0]  # fmt: skip
    assert float((own / 255 - stock).abs().max()) < 0.02


def test_one_that_sees_the_picture_follows_the_pipeline_of_diffusers(family_folder):
    pipeline = load_pipeline(str(family_folder("instruct-pix2pix")))
    pipeline.set_progress_bar_config(disable=True)
    model, text = make_inpainter(pipeline, native_px=NATIVE_PX), {"seed": 1, "steps": 5, "guidance_scale": 3.0}
    prompt, everything = model.encode_prompt("a blue house", "a tree"), torch.ones_like(MASKS[:1])
    own, other = (model.inpaint(picture[None], everything, prompt, Sampling(**text))[0] for picture in PICTURES)
    stock = pipeline(
        "a blue house", image=PICTURES[:1], negative_prompt="a tree", num_inference_steps=5, guidance_scale=3.0,
        image_guidance_scale=1.0, latents=model.draw_noise(1), output_type="pt",
    ).images[0]  # fmt: skip
    assert model.takes_picture and float((own / 255 - stock).abs().max()) < 0.02
    assert not torch.equal(own, other), "from the same noise, by the same text, of another picture"
    larger = model.draw_noise(1, 2 * NATIVE_PX)
    assert larger.shape[-1] == 2 * model.draw_noise(1).shape[-1]
    given = {name: model.draw_noise(seed) for name, seed in (("same", 1), ("another", 2))}
    same, another = (
        model.inpaint(PICTURES[:1], everything, prompt, Sampling(noise=n, **text))[0] for n in given.values()
    )
    assert torch.equal(same, own) and not torch.equal(another, own)


def _stock(pipeline, strength: float, latents) -> torch.Tensor:
    return pipeline(
        "a blue house", negative_prompt="a tree", image=PICTURES[:1], mask_image=MASKS[:1], height=NATIVE_PX,
        width=NATIVE_PX, strength=strength, num_inference_steps=5, guidance_scale=3.0, latents=latents,
        output_type="pt",
    ).images[0]  # fmt: skip


@pytest.mark.parametrize("scheduler", [None, "dpm++", "unipc", "euler", "lcm"])
@pytest.mark.parametrize("name", ["sd-inpainting", "sdxl"])
def test_a_run_that_was_stopped_ends_with_the_same_bits(family_model, name, scheduler):
    model = family_model(name, scheduler=scheduler)
    whole = model.advance(begin(model))
    half = model.advance(begin(model), 2)
    assert (half.step, half.finished, whole.finished) == (2, False, True)
    preview = model.picture(half)
    assert torch.equal(model.advance(model.advance(half, 1)).latents, whole.latents)
    assert torch.equal(model.advance(half).latents, whole.latents), "it can be continued twice"
    assert not torch.equal(preview, model.picture(whole))


def test_predicted_clean_latents_approach_the_result(family_model):
    model = family_model("sd-inpainting")
    run = begin(model, steps=10)
    end = model.advance(run).latents
    apart = [float((model.advance(run, steps).clean_latents - end).abs().mean()) for steps in (1, 5, 9)]
    assert apart[0] > apart[1] > apart[2]


def test_the_same_pictures_are_not_encoded_twice(family_model, draw, monkeypatch):
    model = family_model("sd-inpainting")
    calls, encode = [], model.vae.encode
    monkeypatch.setattr(model.vae, "encode", lambda pictures: calls.append(len(pictures)) or encode(pictures))
    draws = [draw(model, 2, seed=seed) for seed in (1, 2, 1)]
    assert calls == [2]
    assert torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[1])
    draw(model, 2, strength=0.5)
    assert calls == [2, 2], "the picture itself, where it is started from"


@pytest.mark.parametrize("name", ["sd", "instruct-pix2pix"])
def test_outside_the_mask_a_model_without_one_keeps_the_picture(family_model, name):
    """What a UNet that is told no mask has around it, at the end, is the picture's own latents."""
    model = family_model(name)
    end = model.advance(begin(model))
    outside = (1 - end.mask).bool().expand_as(end.latents)
    assert torch.equal(end.latents[outside], end.known[outside])
    assert not torch.equal(end.latents[~outside], end.known[~outside])


def test_a_long_prompt_counts_to_its_end_with_two_text_encoders(family_model):
    model = family_model("sdxl")
    long = "a blue house with a red door and a green roof beside a tall tree "
    at_night, at_noon = model.encode_prompt(long + "at night"), model.encode_prompt(long + "at noon")
    assert at_night.prompt.shape[1] % 32 == 0 and at_night.prompt.shape[1] > 32
    assert at_night.prompt.shape == at_night.negative.shape and at_night.pooled.shape == (1, 32)
    assert not torch.equal(at_night.prompt, at_noon.prompt)


def test_a_unet_that_is_told_the_guidance_runs_once_a_step(family_folder, draw):
    """As those distilled to few steps are: the guidance scale is an input, and no negative prompt is run."""
    from diffusers import UNet2DConditionModel

    pipeline = load_pipeline(str(family_folder("sd")))
    told = UNet2DConditionModel.from_config(pipeline.unet.config, time_cond_proj_dim=8)
    model = make_inpainter(_with_unet(pipeline, told), native_px=NATIVE_PX)
    first = draw(model, guidance_scale=3.0)
    assert model.unet_forwards == 2
    assert not torch.equal(draw(model, guidance_scale=8.0), first)


def _with_unet(pipeline, unet):
    pipeline.register_modules(unet=unet)
    return pipeline


def test_a_refiner_is_refused(family_folder):
    pipeline = load_pipeline(str(family_folder("sdxl")))
    pipeline.register_modules(text_encoder=None, tokenizer=None)
    with pytest.raises(MasklessError, match="lacks a text encoder"):
        make_inpainter(pipeline)


def inpaint(editor, count: int, **options) -> torch.Tensor:
    model = editor.models.inpainter
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))[:count]
    masks = torch.zeros(count, 1, 64, 64)
    masks[:, :, 16:48, 16:48] = 1
    settings = {"seed": 1, "steps": 2, "guidance_scale": 5.0} | options
    return model.inpaint(images, masks, model.encode_prompt("a blue house"), Sampling(**settings))


def test_a_picture_does_not_depend_on_the_batch_it_came_in(editor):
    together, alone = inpaint(editor, 4), inpaint(editor, 1)
    assert together.shape == (4, 3, 64, 64) and together.dtype == torch.uint8
    assert int((together[0].int() - alone[0].int()).abs().max()) <= 1


def test_the_same_noise_gives_the_same_bytes_and_other_noise_others(editor):
    assert torch.equal(inpaint(editor, 2), inpaint(editor, 2))
    other = inpaint(editor, 2, seed=2)
    assert not torch.equal(inpaint(editor, 2), other)


def test_forwards_are_counted_per_picture_and_guidance_counts_twice(editor):
    model = editor.models.inpainter
    for guidance, expected in ((5.0, 2 * 3 * 2), (1.0, 2 * 3)):
        before = model.unet_forwards
        inpaint(editor, 3, guidance_scale=guidance)
        assert model.unet_forwards - before == expected


def test_the_prompt_and_the_end_of_a_long_prompt_matter(editor):
    model = editor.models.inpainter
    long = "a blue house with a red door and a green roof beside a tall tree "
    at_night, at_noon = model.encode_prompt(long + "at night"), model.encode_prompt(long + "at noon")
    assert at_night.prompt.shape[1] % 32 == 0 and at_night.prompt.shape[1] > 32
    assert at_night.prompt.shape == at_night.negative.shape
    assert not torch.equal(at_night.prompt, at_noon.prompt)


def test_a_lower_strength_takes_fewer_steps_and_stays_nearer(editor):
    model = editor.models.inpainter
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        known = (model.vae.decode(model.encode(image * 2 - 1)).sample[0] / 2 + 0.5).clamp(0, 1)
    apart, forwards = [], []
    for strength in (0.1, 0.5, 1.0):
        before = model.unet_forwards
        drawn = model.inpaint(
            image, torch.ones(1, 1, 64, 64), model.encode_prompt("a house"), Sampling(seed=1, steps=10,
            guidance_scale=1.0, strength=strength),
        )  # fmt: skip
        forwards.append(model.unet_forwards - before)
        apart.append(float((drawn[0].float() / 255 - known).abs().mean()))
    assert forwards == [1, 5, 10]
    assert apart[0] < apart[2]


def test_other_input_channels_are_refused(tiny_models):
    pipeline = load_pipeline(str(tiny_models / "inpainting"))
    pipeline.unet.register_to_config(in_channels=7)
    with pytest.raises(MasklessError, match="9 input channels.*got 7"):
        StableDiffusionInpainter(pipeline)


@pytest.mark.parametrize("name", ["sd-inpainting", "sd"])
def test_of_a_soft_mask_each_part_changes_by_its_value(family_model, name):
    """A part of value v is the noised picture until the share v of the steps is left."""
    model = family_model(name)
    masks = torch.zeros_like(MASKS)
    values = (0.25, 0.5, 1.0)
    for number, value in enumerate(values, start=1):
        masks[..., 8 * number : 8 * number + 8] = value
    settings = Sampling(seed=1, steps=8, guidance_scale=3.0)
    run = model.begin(PICTURES, masks, model.encode_prompt("a blue house"), settings)
    assert run.soft is not None and begin(model).soft is None, "a mask of 0 and 1 is as before"
    whole = model.advance(run)
    assert torch.equal(whole.latents, model.advance(model.advance(run, 3)).latents)
    source, columns = run.soft.source, run.mask.shape[-1] // 4
    apart = [(whole.latents - source)[..., columns * n : columns * (n + 1)].abs().mean() for n in range(4)]
    assert apart[0] == 0 and apart[1] < apart[2] < apart[3]
    for steps, free in ((2, 1), (3, 1), (5, 2), (7, 3)):
        assert [float(run.soft.free(steps, 8)[..., columns * n].mean()) for n in range(4)].count(1.0) == free
    assert torch.equal(whole[[1]].soft.amount, run.soft.amount[[1]])
