"""What is there drawn over in place, its layout kept: FlowEdit (arXiv 2412.08629) on a UNet made for diffusion."""

from __future__ import annotations

from typing import TypeGuard

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.models.inpainters.latent_unet import PromptEmbedding, StableDiffusionInpainter


def can_redraw(inpainter: object) -> TypeGuard[StableDiffusionInpainter]:
    """Whether a model can say what it foresees for another text, which `redraw` asks, and does not see the picture."""
    return isinstance(inpainter, StableDiffusionInpainter) and not inpainter.sees_picture


@torch.no_grad()
def redraw(
    inpainter: StableDiffusionInpainter,
    images: Float[Tensor, "N 3 S S"],
    masks: Float[Tensor, "N 1 S S"],
    there: PromptEmbedding,
    asked: PromptEmbedding,
    *,
    seed: int,
    steps: int,
    guidance_scale: float,
    strength: float,
) -> UInt8[Tensor, "N 3 S S"]:
    """The pictures as `asked` describes them in place of `there`.

    Noised alike, the picture and its edit are shown to the model, each with its own text, and the edit moves by what
    the two answers differ in (algorithm 1). What both texts leave as it is does not move, so nothing has to be drowned
    in noise first. Guidance leads from `there` to `asked`, and not, as in the paper, each from no text at all: that
    would draw the things, which both texts name, once more, and in every tile. A model made for diffusion sees
    z = sqrt(a) x + sqrt(1 - a) e, which divided by the sum of the two factors is a flow's (1 - t) x + t e.

    Args:
        images: RGB in [0, 1], S = native_px. masks: 0 or 1, 1 = may change, as the model is told.
        there: the text of what they show. asked: of what they should, with the text of `there` in its negative prompt.
        seed: of the noise, the same for every picture. steps: as for `inpaint`.
        guidance_scale: how far each answer to `asked` leads away from `there`.
        strength: share of the steps that are taken, above 0 and up to 1: from how much noise on.
    Returns:
        RGB 0..255 on the CPU.
    """
    run = inpainter.begin(
        images, masks, asked, seed=seed, steps=steps, guidance_scale=guidance_scale, strength=strength
    )
    source = inpainter.latents_of(images * 2 - 1)
    change = torch.zeros_like(source)
    generator = torch.Generator().manual_seed(seed)
    shares = [_share_of_noise(run.scheduler, timestep) for timestep in run.timesteps] + [0.0]
    for timestep, now, after in zip(run.timesteps, shares[:-1], shares[1:], strict=True):
        noise = torch.randn(source[:1].shape, generator=generator).to(source.device)
        noisy = (1 - now) * source + now * noise
        as_it_was = inpainter.foresee(run, noisy * _scale(now), timestep, there, 1.0)
        as_asked = inpainter.foresee(run, (noisy + change) * _scale(now), timestep, asked, guidance_scale)
        change = change + (now - after) / now * (as_asked - as_it_was - change)
    return inpainter.decode(source + change)


def _share_of_noise(scheduler: object, timestep: Tensor) -> float:
    """t of the flow that is as noisy as this step of the diffusion."""
    kept = float(scheduler.alphas_cumprod[int(timestep)])  # type: ignore[attr-defined]
    signal, noise = kept**0.5, (1 - kept) ** 0.5
    return noise / (signal + noise)


def _scale(share: float) -> float:
    """What takes a flow's noisy latents to a diffusion's: 1 over the root of the sum of the squared factors."""
    return 1 / ((1 - share) ** 2 + share**2) ** 0.5
