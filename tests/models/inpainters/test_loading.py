"""The inpainting model behind its small class."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.inpainters.loading import load_pipeline


def inpaint(editor, count: int, **options) -> torch.Tensor:
    model = editor.models.inpainter
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))[:count]
    masks = torch.zeros(count, 1, 64, 64)
    masks[:, :, 16:48, 16:48] = 1
    settings = {"seed": 1, "steps": 2, "guidance_scale": 5.0} | options
    return model.inpaint(images, masks, model.encode_prompt("a blue house"), **settings)


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


def test_it_follows_the_pipeline_of_diffusers(tiny_models, editor):
    """The same noise, guidance and steps through the stock pipeline give nearly the same picture; it draws the masked
    picture's latents from the autoencoder's distribution, here nearly a point."""
    from diffusers import StableDiffusionInpaintPipeline

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tiny_models / "inpainting", safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    logs = pipeline.vae.quant_conv
    with torch.no_grad():
        logs.weight[4:].zero_()
        logs.bias[4:].fill_(-30)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 64, 64)
    mask[:, :, 16:48, 16:48] = 1
    stock = pipeline(
        "a blue house", image=image, mask_image=mask, height=64, width=64, strength=1.0, num_inference_steps=2,
        guidance_scale=5.0, latents=editor.models.inpainter.draw_noise(1), output_type="pt",
    ).images[0]  # fmt: skip
    model = editor.models.inpainter
    own = model.inpaint(image, mask, model.encode_prompt("a blue house"), seed=1, steps=2, guidance_scale=5.0)[0]
    assert float((own / 255 - stock).abs().max()) < 0.02


def test_a_scheduler_that_draws_noise_is_replaced(tiny_models):
    from diffusers import DDPMScheduler

    pipeline = load_pipeline(str(tiny_models / "inpainting"))
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    assert type(StableDiffusionInpainter(pipeline)._scheduler).__name__ == "DDIMScheduler"


def test_a_model_that_does_not_inpaint_is_refused(tiny_models):
    pipeline = load_pipeline(str(tiny_models / "inpainting"))
    pipeline.unet.register_to_config(in_channels=7)
    with pytest.raises(MasklessError, match="9 input channels.*got 7"):
        StableDiffusionInpainter(pipeline)


def test_a_lower_strength_takes_fewer_steps_and_stays_nearer(editor):
    model = editor.models.inpainter
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        known = (model.vae.decode(model.encode(image * 2 - 1)).sample[0] / 2 + 0.5).clamp(0, 1)
    apart, forwards = [], []
    for strength in (0.1, 0.5, 1.0):
        before = model.unet_forwards
        drawn = model.inpaint(
            image, torch.ones(1, 1, 64, 64), model.encode_prompt("a house"), seed=1, steps=10,
            guidance_scale=1.0, strength=strength,
        )  # fmt: skip
        forwards.append(model.unet_forwards - before)
        apart.append(float((drawn[0].float() / 255 - known).abs().mean()))
    assert forwards == [1, 5, 10]
    assert apart[0] < apart[2]
