"""Refines objects that the inpainter has drawn: the redrawer draws over them once more, usually at a larger size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.paste import resize
from maskless.engine.batching import Batches
from maskless.models.inpainters.denoising import Sampling
from maskless.models.pretrained import EditModels


def refine(
    models: EditModels,
    windows: Float[Tensor, "N 3 S S"],
    masks: Float[Tensor, "N 1 S S"],
    drawn: UInt8[Tensor, "N 3 s s"],
    prompt: str,
    negative_prompt: str = "",
    *,
    seed: int,
    batches: Batches,
) -> UInt8[Tensor, "N 3 S S"]:
    """The windows as the redrawer draws them over what the inpainter has drawn.

    Args:
        models: with a `refinement`, which has its own number of steps, guidance scale and strength.
        windows: the windows of the source, RGB in [0, 1], S = the redrawer's native_px.
        masks: 1 where the inpainter has drawn, 0 elsewhere.
        drawn: the same windows as the inpainter has drawn them, RGB 0..255, of any side s.
        prompt, negative_prompt: the texts that the inpainter got.
        seed: seed of the noise, which is the same for every window.
    Returns:
        RGB 0..255 on the CPU. Outside the mask it is only approximately the source, so paste the masked part back.
    """
    redrawer, refinement = models.redrawer, models.refinement
    assert redrawer is not None and refinement is not None
    size = (windows.shape[2], windows.shape[3])
    enlarged = torch.stack([resize(picture.to(torch.float32) / 255, size) for picture in drawn])
    pictures = torch.where(_whole_cells(masks, models) > 0, enlarged, windows)
    texts = redrawer.encode_prompt(prompt, negative_prompt)
    sampling = Sampling(
        seed=seed,
        steps=refinement.steps,
        guidance_scale=refinement.guidance_scale,
        strength=refinement.strength,
    )
    return batches.run(len(pictures), lambda batch: redrawer.inpaint(pictures[batch], masks[batch], texts, sampling))


def _whole_cells(masks: Float[Tensor, "N 1 S S"], models: EditModels) -> Float[Tensor, "N 1 S S"]:
    """The masks with every cell of the inpainter's latents that they touch, because it draws whole cells."""
    cells = F.adaptive_max_pool2d(masks, models.inpainter.native_px // models.inpainter.cell_px)
    return F.interpolate(cells, size=masks.shape[-2:], mode="nearest-exact")
