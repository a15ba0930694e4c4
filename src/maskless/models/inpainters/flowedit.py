"""FlowEdit (arXiv 2412.08629) with a diffusion UNet: redraws the content of a picture and keeps its layout."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.models.inpainters.denoising import PromptEmbedding, Sampling, step_completed
from maskless.models.inpainters.protocol import Denoiser
from maskless.models.inpainters.schedulers import data_std, share_of_noise


@torch.no_grad()
def flowedit(
    model: Denoiser,
    images: Float[Tensor, "N 3 S S"],
    masks: Float[Tensor, "N 1 S S"],
    source_text: PromptEmbedding,
    target_text: PromptEmbedding,
    sampling: Sampling,
) -> UInt8[Tensor, "N 3 S S"]:
    """Redraw pictures that `source_text` describes so that `target_text` describes them.

    The same noise is added to the picture and to its edit, the model predicts clean latents for both, each with its own
    text, and the edit changes by the difference of the two predictions (algorithm 1). Content for which both
    predictions agree does not change. Guidance goes from `source_text` to `target_text`, whereas in the paper it goes
    from an empty text to each of them, which would draw the objects that both texts name once more, in every tile.

    The input of a diffusion model is z = sqrt(a) x + sqrt(1 - a) e. Divided by the sum of the two factors, it is the
    (1 - t) x + t e of a flow. A timestep that a second-order scheduler evaluates twice counts once.

    Args:
        images: RGB in [0, 1], S = native_px.
        masks: 1 where the picture may change, 0 elsewhere.
        source_text: description of the pictures as they are.
        target_text: description of the pictures as they should be, with the text of the source as negative prompt.
        sampling: the guidance scale is that of `target_text` against `source_text`; the strength determines the noise
            level of the first step.
    Returns:
        RGB 0..255 on the CPU.
    """
    run = model.begin(images, masks, target_text, sampling)
    source = model.latents_of(images * 2 - 1)
    change = torch.zeros_like(source)
    generator = torch.Generator().manual_seed(sampling.seed)
    timesteps, deviation = run.timesteps.unique_consecutive(), data_std(run.scheduler)
    shares = [share_of_noise(run.scheduler, timestep) for timestep in timesteps] + [0.0]
    for number, (timestep, now, after) in enumerate(zip(timesteps, shares[:-1], shares[1:], strict=True), start=1):
        noise = torch.randn(source[:1].shape, generator=generator).to(source.device)
        noisy = (1 - now) * source + now * noise
        of_source = model.predict_clean(run, noisy * _scale(now, deviation), timestep, source_text, 1.0)
        of_target = model.predict_clean(
            run, (noisy + change) * _scale(now, deviation), timestep, target_text, sampling.guidance_scale
        )
        change = change + (now - after) / now * (of_target - of_source - change)
        step_completed(number, len(timesteps), timestep, predicted=partial(model.preview, source + change))
    return model.decode(source + change)


def _scale(share: float, deviation: float) -> float:
    """The factor from a flow's noisy latents to those of a diffusion, whose clean latents have this standard deviation:
    1 / sqrt((1 - t)^2 deviation^2 + t^2)."""
    return 1 / ((deviation * (1 - share)) ** 2 + share**2) ** 0.5
