"""Masks: of boxes and of any shape, their connected parts, holes and margins, and the blending weights at seams."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import Box, box_in_window

SEAM_PX = 512
"""`mask_weight` computes the fall towards a mask's outline on a copy whose longer side is at most this long."""
THICKNESS_PX, THICKNESS_FACTOR, COMPACTNESS = 128, 0.8, 1.5
"""`_local_rounds` measures the thickness of a mask on a copy whose longer side is at most THICKNESS_PX, by squares each
of which is THICKNESS_FACTOR of the one before. COMPACTNESS: a part has the seam of the whole mask if the root of the
mask's area is at most this many times the part's thickness."""


def crop_mask(mask: Bool[Tensor, "H W"], window_xyxy: Box, size_px: int) -> Bool[Tensor, "1 S S"]:
    """A mask in the resized window: True in every pixel that the mask touches, and outside of the picture."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = mask.shape
    whole = torch.ones(1, y1 - y0, x1 - x0)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    whole[:, top - y0 : bottom - y0, left - x0 : right - x0] = mask[top:bottom, left:right].to(whole)
    return F.interpolate(whole[None], size=(size_px, size_px), mode="area")[0] > 1e-4


def enlarge_mask(mask: Bool[Tensor, "S S"], window_xyxy: Box, box_xyxy: Box) -> Bool[Tensor, "h w"]:
    """The part of a resized window's mask that lies in a box, at the picture's resolution [box height, box width].

    window_xyxy, box_xyxy: in pixels of the picture; the box lies in the window.
    """
    (left, top, right, bottom), (x0, y0, x1, y1) = (tuple(int(v) for v in each) for each in (window_xyxy, box_xyxy))
    grey = mask[None, None].to(torch.uint8) * 255  # a quarter of the memory of floats
    whole = F.interpolate(grey, size=(bottom - top, right - left), mode="bilinear")[0, 0]
    return whole[y0 - top : y1 - top, x0 - left : x1 - left] > 127


def crop_amount(amount: Float[Tensor, "H W"], window_xyxy: Box, size_px: int) -> Float[Tensor, "1 S S"]:
    """The values of a soft mask, 0 to 1, in the resized window; 1 outside of the picture."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = amount.shape
    whole = torch.ones(1, y1 - y0, x1 - x0)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    whole[:, top - y0 : bottom - y0, left - x0 : right - x0] = amount[top:bottom, left:right]
    return F.interpolate(whole[None], size=(size_px, size_px), mode="area")[0]


def box_mask(box_xyxy: Box, size_yx: Sequence[int]) -> Bool[Tensor, "H W"]:
    """True inside the box."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    mask = torch.zeros(*size_yx, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def window_mask(box_xyxy: Box, window_xyxy: Box, size_px: int) -> Float[Tensor, "1 S S"]:
    """1 inside the box, 0 outside, in the resized window."""
    x0, y0, x1, y1 = box_in_window(box_xyxy, window_xyxy, size_px)
    mask = torch.zeros(1, size_px, size_px)
    mask[:, y0:y1, x0:x1] = 1
    return mask


def seam_weight(box_xyxy: Box, size_yx: tuple[int, int], feather: float) -> Float[Tensor, "h w"]:
    """Weight of the edit at each pixel of the box, above 0 and up to 1.

    The weight is 1 in the middle and falls towards the edges, over `feather` times the side. It does not fall along the
    picture's own border, because there is nothing to blend with.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    down = _ramp(y1 - y0, feather, at_start=y0 > 0, at_end=y1 < size_yx[0])
    across = _ramp(x1 - x0, feather, at_start=x0 > 0, at_end=x1 < size_yx[1])
    return down[:, None] * across[None, :]


def mask_weight(mask: Bool[Tensor, "H W"], box_xyxy: Box, feather: float) -> Float[Tensor, "h w"]:
    """`seam_weight` for a mask of any shape: 0 outside, and rising inwards from the outline.

    In the middle of every part of the mask the weight is 1, however thin the part is, so that nothing of what was there
    shows through: there the rise is only as wide as the part allows.

    feather: the width of the rise, as a share of the square root of the mask's area. box_xyxy: the part of the picture
    that the weights are returned for; the mask must be False outside of it.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    inside = mask[y0:y1, x0:x1].to(torch.float32)
    # A margin of at least one pixel of the small copy is added on each side where the picture continues; along the
    # picture's own border there is no seam.
    margin = math.ceil((max(inside.shape) + 2) / SEAM_PX)
    left, top = margin * (x0 > 0), margin * (y0 > 0)
    right, bottom = margin * (x1 < mask.shape[1]), margin * (y1 < mask.shape[0])
    around = F.pad(inside, (left, right, top, bottom))[None, None]
    scale = min(1.0, SEAM_PX / max(around.shape[2:]))
    small_yx = tuple(max(1, round(side * scale)) for side in around.shape[2:])
    shares = F.interpolate(around, size=small_yx, mode="area")
    small = (shares >= 0.5).to(torch.float32)
    rounds = round(feather * math.sqrt(float(small.sum())))
    if rounds < 1:
        return inside
    depth, eroded = torch.zeros_like(small), small
    for _ in range(rounds):
        depth = depth + eroded
        eroded = -F.max_pool2d(-eroded, 3, stride=1, padding=1)
    rise = ((depth - 0.5) / (_local_rounds(small, rounds, feather) - 0.5)).clamp(min=0, max=1)
    rise = F.interpolate(rise, size=around.shape[2:], mode="bilinear")
    thin = (shares > 0).to(torch.float32) * (1 - grown(_opened(small, 2), 2))
    if bool(thin.any()):  # hair lines, which the small copy does not show as they are
        rise = torch.maximum(rise, F.interpolate(grown(thin, 1), size=around.shape[2:], mode="bilinear"))
    rise = rise[0, 0, top : top + y1 - y0, left : left + x1 - x0]
    return inside * (rise * rise * (3 - 2 * rise))


def _local_rounds(mask: Float[Tensor, "1 1 h w"], rounds: int, feather: float) -> Float[Tensor, "1 1 h w"]:
    """The width of the rise at each pixel of a mask of 0 and 1, in pixels, from 1 up to `rounds`.

    It is the same share of the local thickness as `rounds` is of the whole mask, with some allowance, so that a compact
    mask has one width everywhere. A pixel has thickness 2 k if a square of half-side k fits into the mask near it.
    """
    scale = min(1.0, THICKNESS_PX / max(mask.shape[2:]))
    coarse_yx = tuple(max(1, round(side * scale)) for side in mask.shape[2:])
    coarse = (F.interpolate(mask, size=coarse_yx, mode="area") >= 0.5).to(torch.float32)
    share = 2 * COMPACTNESS * feather / scale
    half = max(1, math.ceil(rounds / share))
    widths = torch.zeros_like(coarse)
    while half > 1 and bool((coarse > widths.clamp(max=1)).any()):
        width = min(rounds, max(1, round(share * half)))
        widths = torch.where((widths == 0) & (_opened(coarse, half) > 0), torch.full_like(widths, width), widths)
        half = min(half - 1, int(half * THICKNESS_FACTOR))
    found = F.interpolate(grown(widths, 1), size=mask.shape[2:], mode="nearest")
    return found.clamp(min=1)


def _opened(mask: Float[Tensor, "1 1 h w"], half: int) -> Float[Tensor, "1 1 h w"]:
    """The pixels of a mask near a square that fits into it and reaches half - 1 pixels from its centre to each side.

    "Near" is three quarters further than the square itself reaches, so that round outlines belong to it.
    """
    if half == 1:
        return mask
    return mask * grown(1 - grown(1 - mask, half - 1), half - 1 + 3 * half // 4)


def grown(values: Float[Tensor, "*n h w"], pixels: int) -> Float[Tensor, "*n h w"]:
    """The maximum in the square around each pixel that reaches this many pixels to each side, first of columns and then
    of rows, which takes less than half of the time of the square at once."""
    wide = F.max_pool2d(values, (2 * pixels + 1, 1), stride=1, padding=(pixels, 0))
    return F.max_pool2d(wide, (1, 2 * pixels + 1), stride=1, padding=(0, pixels))


def components(mask: Bool[Tensor, "h w"]) -> list[Bool[Tensor, "h w"]]:
    """The mask's connected parts, largest first. Pixels are connected if they share a side or a corner.

    Of two parts of the same size, the one whose last pixel comes first in the order of the rows is first.
    """
    import cv2  # many requests need no parts

    count, labels = cv2.connectedComponents(mask.to(torch.uint8).numpy(), connectivity=8)
    flat = labels.ravel()
    sizes, last_pixels = np.bincount(flat, minlength=count), np.zeros(count, dtype=np.int64)
    np.maximum.at(last_pixels, flat, np.arange(len(flat)))
    order = np.lexsort((last_pixels[1:], -sizes[1:])) + 1  # label 0 is what the mask leaves out
    parts = torch.from_numpy(labels)
    return [parts == label for label in order.tolist()]


def without_holes(mask: Bool[Tensor, "h w"], max_share: float) -> Bool[Tensor, "h w"]:
    """The mask with those holes filled that cover at most `max_share` of the picture each."""
    if bool(mask.all()):
        return mask
    inner = torch.zeros_like(mask)
    inner[1:-1, 1:-1] = True
    gaps = [gap for gap in components(~mask) if not bool((gap & ~inner).any())]
    return torch.stack([mask, *(gap for gap in gaps if int(gap.sum()) <= max_share * mask.numel())]).any(dim=0)


def seam_step(image: Float[Tensor, "3 H W"], mask: Bool[Tensor, "H W"]) -> float:
    """Mean absolute difference of neighbouring pixels across a mask's outline, 0 to 1; 0 if there is no outline."""
    steps = []
    for axis in (1, 2):
        length = mask.shape[axis - 1]
        across = mask.narrow(axis - 1, 1, length - 1) != mask.narrow(axis - 1, 0, length - 1)
        difference = image.narrow(axis, 1, length - 1) - image.narrow(axis, 0, length - 1)
        steps.append(difference.abs().mean(dim=0)[across])
    joined = torch.cat(steps)
    return float(joined.mean()) if joined.numel() else 0.0


def mask_box(mask: Bool[Tensor, "H W"]) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1) of the smallest box that contains a mask, which must not be empty."""
    rows = mask.any(dim=1).nonzero()[:, 0]
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = mask[top:bottom].any(dim=0).nonzero()[:, 0]
    return int(columns[0]), top, int(columns[-1]) + 1, bottom


def soft_box_mask(
    boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, int], sharpness_px: float
) -> Float[Tensor, "N H W"]:
    """Boxes as products of sigmoids for the straight-through estimator: about 1 inside, 0 outside, 1/2 on the edge.

    sharpness_px: distance from the edge, in pixels, at which the mask is sigmoid(1) or sigmoid(-1).
    """
    x0, y0, x1, y1 = (edge[:, None].to(torch.float32) for edge in boxes_xyxy.unbind(1))
    ys = torch.arange(size_yx[0]) + 0.5
    xs = torch.arange(size_yx[1]) + 0.5
    down = torch.sigmoid((ys - y0) / sharpness_px) * torch.sigmoid((y1 - ys) / sharpness_px)
    across = torch.sigmoid((xs - x0) / sharpness_px) * torch.sigmoid((x1 - xs) / sharpness_px)
    return down[:, :, None] * across[:, None, :]


def _ramp(length: int, feather: float, *, at_start: bool, at_end: bool) -> Tensor:
    """Weights that rise smoothly over feather * length pixels at the chosen ends and are 1 elsewhere."""
    width = feather * length
    distance = torch.arange(length, dtype=torch.float32) + 0.5
    ramp = torch.ones(length)
    if width > 0:
        rise = (distance / width).clamp(max=1)
        rise = rise * rise * (3 - 2 * rise)
        ramp = ramp * rise if at_start else ramp
        ramp = ramp * rise.flip(0) if at_end else ramp
    return ramp


def dilate(mask: Bool[Tensor, "H W"], share: float) -> Bool[Tensor, "H W"]:
    """The mask grown on all sides by `share` times the picture's shorter side, at least by one pixel."""
    reach = max(1, round(share * min(mask.shape)))
    return grown(mask.to(torch.float32)[None, None], reach)[0, 0] > 0
