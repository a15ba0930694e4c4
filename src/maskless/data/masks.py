"""Masks: of boxes, their parts and holes, their margin, and how an edit fades in at their seam."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import Box, box_in_window

SEAM_PX = 512
"""The fall towards a mask's outline is worked out on at most this longer side."""


def crop_mask(mask: Bool[Tensor, "H W"], window_xyxy: Box, size_px: int) -> Bool[Tensor, "1 S S"]:
    """A mask in the resized window: True in every pixel that it touches, and outside of the picture."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = mask.shape
    whole = torch.ones(1, y1 - y0, x1 - x0)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    whole[:, top - y0 : bottom - y0, left - x0 : right - x0] = mask[top:bottom, left:right].to(whole)
    return F.interpolate(whole[None], size=(size_px, size_px), mode="area")[0] > 1e-4


def window_mask(box_xyxy: Box, window_xyxy: Box, size_px: int) -> Float[Tensor, "1 S S"]:
    """1 inside the box, 0 outside, in the resized window."""
    x0, y0, x1, y1 = box_in_window(box_xyxy, window_xyxy, size_px)
    mask = torch.zeros(1, size_px, size_px)
    mask[:, y0:y1, x0:x1] = 1
    return mask


def seam_weight(box_xyxy: Box, size_yx: tuple[int, int], feather: float) -> Float[Tensor, "h w"]:
    """How much of the edit shows at each pixel of the box, above 0 and up to 1: 1 in the middle, falling towards the
    edges over `feather` of the side. Along the picture's own border there is nothing to blend with, so no fall."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    down = _ramp(y1 - y0, feather, at_start=y0 > 0, at_end=y1 < size_yx[0])
    across = _ramp(x1 - x0, feather, at_start=x0 > 0, at_end=x1 < size_yx[1])
    return down[:, None] * across[None, :]


def mask_weight(mask: Bool[Tensor, "H W"], box_xyxy: Box, feather: float) -> Float[Tensor, "h w"]:
    """`seam_weight` for a mask of any shape: 0 outside, rising from its outline over `feather` of the root of its area.

    box_xyxy: the part of the picture to give it for; the mask is False outside of it.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    inside = mask[y0:y1, x0:x1].to(torch.float32)
    # With one pixel more on each side where there is one: an outline along the picture's own border has no seam.
    left, top = int(x0 > 0), int(y0 > 0)
    around = mask[y0 - top : y1 + 1, x0 - left : x1 + 1].to(torch.float32)[None, None]
    scale = min(1.0, SEAM_PX / max(around.shape[2:]))
    small_yx = tuple(max(1, round(side * scale)) for side in around.shape[2:])
    small = (F.interpolate(around, size=small_yx, mode="area") >= 0.5).to(torch.float32)
    rounds = round(feather * math.sqrt(float(small.sum())))
    if rounds < 1:
        return inside
    depth, eroded = torch.zeros_like(small), small
    for _ in range(rounds):
        depth = depth + eroded
        eroded = -F.max_pool2d(-eroded, 3, stride=1, padding=1)
    rise = F.interpolate(((depth - 0.5) / (rounds - 0.5)).clamp(min=0), size=around.shape[2:], mode="bilinear")
    rise = rise[0, 0, top : top + y1 - y0, left : left + x1 - x0]
    return inside * (rise * rise * (3 - 2 * rise))


def components(mask: Bool[Tensor, "h w"]) -> list[Bool[Tensor, "h w"]]:
    """Its connected parts (neighbours share a side or a corner), the largest first."""
    labels = torch.arange(1, mask.numel() + 1, dtype=torch.float64).reshape(mask.shape) * mask
    while True:
        spread = F.max_pool2d(labels[None, None], 3, stride=1, padding=1)[0, 0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    parts = [labels == label for label in labels[mask].unique()]
    return sorted(parts, key=lambda part: -int(part.sum()))


def without_holes(mask: Bool[Tensor, "h w"], most_share: float) -> Bool[Tensor, "h w"]:
    """The mask with what it encloses, where that is at most this share of the picture."""
    if bool(mask.all()):
        return mask
    inner = torch.zeros_like(mask)
    inner[1:-1, 1:-1] = True
    gaps = [gap for gap in components(~mask) if not bool((gap & ~inner).any())]
    return torch.stack([mask, *(gap for gap in gaps if int(gap.sum()) <= most_share * mask.numel())]).any(dim=0)


def seam_step(image: Float[Tensor, "3 H W"], mask: Bool[Tensor, "H W"]) -> float:
    """Mean difference of neighbouring pixels across a mask's outline, 0 to 1; 0 where it has none."""
    steps = []
    for axis in (1, 2):
        length = mask.shape[axis - 1]
        across = mask.narrow(axis - 1, 1, length - 1) != mask.narrow(axis - 1, 0, length - 1)
        difference = image.narrow(axis, 1, length - 1) - image.narrow(axis, 0, length - 1)
        steps.append(difference.abs().mean(dim=0)[across])
    joined = torch.cat(steps)
    return float(joined.mean()) if joined.numel() else 0.0


def mask_box(mask: Bool[Tensor, "H W"]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the smallest box that holds a mask, which must not be empty."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def soft_box_mask(
    boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, int], sharpness_px: float
) -> Float[Tensor, "N H W"]:
    """Boxes as products of sigmoids, for the straight-through estimator: about 1 inside, 0 outside, 1/2 on the edge.

    sharpness_px: distance from the edge, in pixels, at which the mask is sigmoid(1) or sigmoid(-1).
    """
    x0, y0, x1, y1 = (edge[:, None].to(torch.float32) for edge in boxes_xyxy.unbind(1))
    ys = torch.arange(size_yx[0]) + 0.5
    xs = torch.arange(size_yx[1]) + 0.5
    down = torch.sigmoid((ys - y0) / sharpness_px) * torch.sigmoid((y1 - ys) / sharpness_px)
    across = torch.sigmoid((xs - x0) / sharpness_px) * torch.sigmoid((x1 - xs) / sharpness_px)
    return down[:, :, None] * across[:, None, :]


def _ramp(length: int, feather: float, *, at_start: bool, at_end: bool) -> Tensor:
    """A smooth rise over feather * length pixels at each end that is asked for; 1 elsewhere."""
    width = feather * length
    distance = torch.arange(length, dtype=torch.float32) + 0.5
    ramp = torch.ones(length)
    if width > 0:
        rise = (distance / width).clamp(max=1)
        rise = rise * rise * (3 - 2 * rise)
        ramp = ramp * rise if at_start else ramp
        ramp = ramp * rise.flip(0) if at_end else ramp
    return ramp


def grown(mask: Bool[Tensor, "H W"], share: float) -> Bool[Tensor, "H W"]:
    """A mask and all that is within `share` of the picture's shorter side of it, at least one pixel."""
    reach = max(1, round(share * min(mask.shape)))
    wide = mask.to(torch.float32)[None, None]
    wide = F.max_pool2d(wide, (2 * reach + 1, 1), stride=1, padding=(reach, 0))
    return F.max_pool2d(wide, (1, 2 * reach + 1), stride=1, padding=(0, reach))[0, 0] > 0
