"""The figures of one edited picture: how well it shows its prompt, how much of the rest it left alone.

Names and conventions are PIE-Bench's where it has them (see metrics.py). CLIP and DINO are the models of the edit
itself: figures of different models cannot be compared.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.evaluation.measures.metrics import background_mse, background_psnr, background_ssim, structure_distance
from maskless.models.pretrained import EditModels

PERFECT_DB = 100.0
"""PSNR of a background that is the very same; infinity has no mean. One value of 8 bits off by one, in a picture of
128 x 128, is 95 dB."""


@torch.no_grad()
def clip_figures(
    models: EditModels,
    before: Float[Tensor, "3 H W"],
    after: Float[Tensor, "3 H W"],
    edited: Bool[Tensor, "H W"],
    *,
    caption: str,
    prompt: str,
) -> dict[str, float]:
    """Cosines: of the edited picture and the prompt (whole), with all but the edited part black (edited), of the change
    of the picture and the change of the text (directional: 0 where either does not change)."""
    clip = models.clip
    source, whole, part = clip.encode(torch.stack([before, after, after * edited])).embedding
    asked, there = clip.encode_text(prompt), clip.encode_text(caption)
    return {
        "CLIP whole": float(whole @ asked),
        "CLIP edited": float(part @ asked),
        "CLIP directional": float(F.cosine_similarity(whole - source, asked - there, dim=0)),
    }


def background_figures(
    before: Float[Tensor, "3 H W"], after: Float[Tensor, "3 H W"], edited: Bool[Tensor, "H W"]
) -> dict[str, float]:
    """PSNR in dB (at most PERFECT_DB), SSIM and MSE by PIE-Bench's protocol; NaN where all is edited."""
    psnr = background_psnr(before, after, edited)
    return {
        "background PSNR dB": psnr if math.isnan(psnr) else min(psnr, PERFECT_DB),
        "background SSIM": background_ssim(before, after, edited),
        "background MSE": background_mse(before, after, edited),
    }


def structure_figure(models: EditModels, before: Float[Tensor, "3 H W"], after: Float[Tensor, "3 H W"]) -> float:
    """Structure distance by DINO's keys: 0 where the picture is laid out as before."""
    return structure_distance(models.dino.keys(before), models.dino.keys(after))
