"""The formulas that edited pictures are measured by: functions of pictures [3, H, W] in [0, 1] and of masks [H, W],
True where the picture was edited.

`background_*` follow PIE-Bench's protocol (github.com/cure-lab/PnPInversion, evaluation/), quirks included: both
pictures are multiplied by the background mask and scored over the whole frame, so pixels that are masked out count as
perfect. The `*_outside` functions beside them score only the pixels of the background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
PERFECT_DB = 100.0
"""PSNR of a background that has not changed; infinity has no mean. One 8-bit value that is off by one, in a picture of
128 x 128 pixels, gives 95 dB."""

Picture = Float[Tensor, "3 H W"]
Mask = Bool[Tensor, "H W"]
Pixels = UInt8[np.ndarray, "H W 3"]


def unit(pixels: Pixels) -> Float[Tensor, "3 H W"]:
    """Pixels of 8 bits as values in [0, 1], which every metric takes."""
    return torch.from_numpy(pixels.astype(np.float32) / 255).movedim(-1, 0)


def background_mse(before: Picture, after: Picture, edited: Mask) -> float:
    """Mean squared error of the two pictures with the edited part set to 0, over all pixels. NaN where all is
    edited."""
    if bool(edited.all()):
        return math.nan
    return float(((before - after) * ~edited).square().mean())


def background_psnr(before: Picture, after: Picture, edited: Mask) -> float:
    """Peak signal-to-noise ratio in dB of `background_mse`, range 1; infinite where nothing differs."""
    error = background_mse(before, after, edited)
    return error if math.isnan(error) else psnr_of(error)


def background_ssim(before: Picture, after: Picture, edited: Mask) -> float:
    """Structural similarity of the two pictures with the edited part set to 0, over the whole frame."""
    return math.nan if bool(edited.all()) else ssim(before * ~edited, after * ~edited)


def mse_outside(before: Picture, after: Picture, edited: Mask) -> float:
    """Mean squared error of only the pixels that are not edited. NaN where there are none."""
    return float((before - after)[:, ~edited].square().mean())


def psnr_outside(before: Picture, after: Picture, edited: Mask) -> float:
    """Peak signal-to-noise ratio in dB of the pixels that are not edited."""
    error = mse_outside(before, after, edited)
    return error if math.isnan(error) else psnr_of(error)


def exact_outside(before: Picture, after: Picture, edited: Mask) -> float:
    """Share of the pixels outside the edited part whose three values are unchanged. NaN where there are none."""
    return float((before == after).all(dim=0)[~edited].float().mean())


def psnr_of(mse: float) -> float:
    """-10 log10(mse) for pictures in [0, 1]."""
    return -10 * math.log10(mse) if mse > 0 else math.inf


def capped_psnr(psnr: float) -> float:
    """A PSNR in dB, at most PERFECT_DB; NaN stays NaN."""
    return psnr if math.isnan(psnr) else min(psnr, PERFECT_DB)


def ssim(a: Picture, b: Picture) -> float:
    """Structural similarity (Wang et al. 2004, equation 13): Gaussian window of 11 pixels, sigma 1.5, range 1.

    It is the mean over all pixels; the picture is mirrored at its border, as in torchmetrics.
    """
    return float(ssim_map(a, b).mean())


def ssim_map(a: Picture, b: Picture) -> Float[Tensor, "3 H W"]:
    """Structural similarity around each pixel, for each channel, in double precision."""
    steps = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    bell = torch.exp(-(steps**2) / (2 * SSIM_SIGMA**2))
    bell = bell / bell.sum()
    down, across = bell.view(1, 1, -1, 1).expand(3, -1, -1, -1), bell.view(1, 1, 1, -1).expand(3, -1, -1, -1)
    x, y = (F.pad(picture[None].double(), [SSIM_WINDOW // 2] * 4, mode="reflect") for picture in (a, b))

    def blurred(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, down, groups=3), across, groups=3)

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    bottom = (mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2)
    return (top / bottom)[0]


def ssim_outside(before: Picture, after: Picture, edited: Mask) -> float:
    """Mean structural similarity of the pixels that are not edited. NaN where there are none.

    The edited part is replaced by the source, so that no window sees the edit.
    """
    return float(ssim_map(before, torch.where(edited, before, after))[:, ~edited].mean())


def mask_of_box(box_xyxy: Sequence[int], size_yx: tuple[int, int]) -> Mask:
    """True inside a half-open box, in pixels."""
    x0, y0, x1, y1 = box_xyxy
    mask = torch.zeros(size_yx, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def centre_in(box_xyxy: Sequence[float], other_xyxy: Sequence[float]) -> bool:
    """Whether the centre of a box lies in another box, half-open."""
    x, y = (box_xyxy[0] + box_xyxy[2]) / 2, (box_xyxy[1] + box_xyxy[3]) / 2
    return other_xyxy[0] <= x < other_xyxy[2] and other_xyxy[1] <= y < other_xyxy[3]


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union; 0 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def precision_recall(found: Mask, truth: Mask) -> tuple[float, float]:
    """The share of found pixels that are true, and of true pixels that are found; 0 where there are none."""
    both = int((found & truth).sum())
    return both / max(int(found.sum()), 1), both / max(int(truth.sum()), 1)


def key_self_similarity(keys: Float[Tensor, "T D"]) -> Float[Tensor, "T T"]:
    """Cosine similarities of all pairs of tokens' keys (Splicing ViT Features, arXiv 2201.00424, equation 3)."""
    unit = F.normalize(keys, dim=1)
    return unit @ unit.T


def structure_distance(before_keys: Float[Tensor, "T D"], after_keys: Float[Tensor, "T D"]) -> float:
    """Mean squared difference of the two key self-similarities, as in PIE-Bench."""
    return float((key_self_similarity(before_keys) - key_self_similarity(after_keys)).square().mean())


def spearman(a: Float[Tensor, " N"], b: Float[Tensor, " N"]) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, where ties share their mean rank. NaN where one is
    constant."""
    x, y = (_ranks(values) - (len(values) - 1) / 2 for values in (a, b))
    norms = float(x.norm() * y.norm())
    return float(x @ y) / norms if norms > 0 else math.nan


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 0 for the least value; equal values share their mean rank."""
    values = values.double()
    below = (values[None] < values[:, None]).sum(dim=1)
    same = (values[None] == values[:, None]).sum(dim=1)
    return below + (same - 1) / 2


def variance_shares(values: Float[Tensor, "S R"]) -> tuple[float, float, float]:
    """Shares of the variance that are due to the column, to the row, and to neither: random-effects components of a
    two-way analysis of variance with one value in each cell (Searle, Casella and McCulloch 1992, section 4.3).

    A component that comes out negative counts as 0. The last share holds the interaction and the noise, which cannot be
    separated with one value in each cell. All are NaN where nothing varies.

    Raises:
        ValueError: there are fewer than two rows or two columns.
    """
    rows, columns = values.shape
    if rows < 2 or columns < 2:
        raise ValueError(f"a two-way analysis needs two rows and two columns, got {rows} x {columns}")
    values = values.double()
    mean, of_columns, of_rows = values.mean(), values.mean(dim=0), values.mean(dim=1)
    rest = (values - of_columns[None] - of_rows[:, None] + mean).square().sum() / ((rows - 1) * (columns - 1))
    due_to_columns = (of_columns - mean).square().sum() * rows / (columns - 1)
    due_to_rows = (of_rows - mean).square().sum() * columns / (rows - 1)
    parts = torch.stack([(due_to_columns - rest) / rows, (due_to_rows - rest) / columns, rest]).clamp(min=0)
    column, row, neither = (parts / parts.sum()).tolist()
    return column, row, neither
