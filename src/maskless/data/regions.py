"""Boxes, masks, crops with context and the paste back: pure functions on tensors.

Boxes are (x0, y0, x1, y1), half-open, in pixels of the picture they are used on. Points and sizes are (row, column) and
(height, width); the one place where a (row, column) becomes an (x, y) is `propose_regions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.types import Anchors, Regions

GRID_CELLS = 32
"""Half-sizes of boxes count in cells of a grid this wide, whatever the backbone's grid: method step 3."""

Box = Sequence[int]
RING_PX = 2
"""How far around a mask a drawing is held against its surroundings."""
SEAM_PX = 512
"""The fall towards a mask's outline is worked out on at most this longer side."""


def propose_regions(anchors: Anchors, sizes: Sequence[int], size_yx: tuple[int, int]) -> Regions:
    """Squares of half-size r/32 of the shorter side around each anchor, method step 3.

    A box that would leave the picture is shifted inside, never shrunk and never dropped (mistake 6).

    Args:
        anchors: K points, (row, column) cells of their grid.
        sizes: M half-sizes r in 32nds of the shorter side, each from 1 to 16.
        size_yx: height and width of the picture in pixels.
    Returns:
        K * M regions, anchor-major: region k * M + m is size m around anchor k.
    """
    if not sizes or min(sizes) < 1 or 2 * max(sizes) > GRID_CELLS:
        raise MasklessError(f"sizes must be whole numbers from 1 to {GRID_CELLS // 2}, got {list(sizes)}")
    count, size_count = len(anchors), len(sizes)
    pixels_per_cell_yx = torch.tensor(size_yx, dtype=torch.float64) / torch.tensor(anchors.grid_yx)
    centres_yx = (anchors.points_yx.to(torch.float64) + 0.5) * pixels_per_cell_yx
    shorter = min(size_yx)
    sides = torch.tensor([max(1, round(2 * r * shorter / GRID_CELLS)) for r in sizes], dtype=torch.float64)
    limits_yx = torch.tensor(size_yx, dtype=torch.float64)
    top_left_yx = (centres_yx[:, None, :] - sides[None, :, None] / 2).round()
    top_left_yx = top_left_yx.clamp(min=0).minimum(limits_yx - sides[None, :, None])
    y0, x0 = top_left_yx.unbind(-1)
    boxes_xyxy = torch.stack([x0, y0, x0 + sides, y0 + sides], dim=-1).to(torch.long)
    index = torch.arange(count * size_count)
    return Regions(
        boxes_xyxy=boxes_xyxy.reshape(-1, 4), anchor_index=index // size_count, size_index=index % size_count
    )


def context_window(box_xyxy: Box, size_yx: tuple[int, int], *, context: float) -> tuple[int, ...]:
    """The square that the inpainting model sees: the box with surroundings, inside the picture.

    It is the box grown by `context` of its side on each side, at most the shorter side. A small box is magnified to the
    model's size, so that the model always has all of its pixels for what it draws.

    Returns:
        (x0, y0, x1, y1), a square that holds the box.
    """
    height, width = size_yx
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    side = max(x1 - x0, y1 - y0)
    side = min(math.ceil(side * (1 + 2 * context)), height, width)
    left = min(max((x0 + x1 - side) // 2, 0), width - side)
    top = min(max((y0 + y1 - side) // 2, 0), height - side)
    if not (left <= x0 and top <= y0 and x1 <= left + side and y1 <= top + side):
        raise MasklessError(f"a box must fit in a square of the shorter side, got {list(box_xyxy)} in {width}x{height}")
    return left, top, left + side, top + side


def square_window(box_xyxy: Box, size_yx: tuple[int, int], *, context: float) -> tuple[int, int, int, int]:
    """`context_window` for a box of any shape: where the square is larger than a side of the picture, it overhangs.

    Returns:
        (x0, y0, x1, y1), a square that holds the box and is at most the longer side of the picture.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    longest = max(x1 - x0, y1 - y0)
    side = min(math.ceil(longest * (1 + 2 * context)), max(longest, *size_yx))
    corner = []
    for start, end, length in ((x0, x1, size_yx[1]), (y0, y1, size_yx[0])):
        room = length - side
        corner.append(min(max((start + end - side) // 2, 0), room) if room >= 0 else room // 2)
    return corner[0], corner[1], corner[0] + side, corner[1] + side


def crop_mask(mask: Bool[Tensor, "H W"], window_xyxy: Box, size_px: int) -> Bool[Tensor, "1 S S"]:
    """A mask in the resized window: True in every pixel that it touches, and outside of the picture."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = mask.shape
    whole = torch.ones(1, y1 - y0, x1 - x0)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    whole[:, top - y0 : bottom - y0, left - x0 : right - x0] = mask[top:bottom, left:right].to(whole)
    return F.interpolate(whole[None], size=(size_px, size_px), mode="area")[0] > 1e-4


def crop_window(image: Float[Tensor, "3 H W"], window_xyxy: Box, size_px: int) -> Float[Tensor, "3 S S"]:
    """The window of an image in [0, 1], resized to size_px, in [0, 1]. Where it overhangs the picture, the picture's
    border is repeated."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = image.shape[1:]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        ys, xs = torch.arange(y0, y1).clamp(0, height - 1), torch.arange(x0, x1).clamp(0, width - 1)
        return resize(image[:, ys][:, :, xs], (size_px, size_px))
    return resize(image[:, y0:y1, x0:x1], (size_px, size_px))


def resize(image: Float[Tensor, "C H W"], size_yx: tuple[int, int]) -> Float[Tensor, "C h w"]:
    """Bicubic with antialiasing, in [0, 1] again afterwards; the very same tensor where nothing changes."""
    if tuple(image.shape[1:]) == tuple(size_yx):
        return image
    return F.interpolate(image[None], size=size_yx, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)


def box_in_window(box_xyxy: Box, window_xyxy: Box, size_px: int) -> tuple[int, int, int, int]:
    """The box in pixels of the resized window, rounded outwards so that all of it is repainted."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    left, top, right, bottom = (int(v) for v in window_xyxy)
    across, down = right - left, bottom - top
    return (
        (x0 - left) * size_px // across,
        (y0 - top) * size_px // down,
        -((left - x1) * size_px // across),
        -((top - y1) * size_px // down),
    )


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


def _weight(mask: Tensor | None, box_xyxy: Box, size_yx: tuple[int, int], feather: float) -> Tensor:
    if mask is None:
        return seam_weight(box_xyxy, size_yx, feather)
    return mask_weight(mask, box_xyxy, feather)


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


def spread(values: Float[Tensor, "C H W"], known: Bool[Tensor, "H W"]) -> Float[Tensor, "C H W"]:
    """Known values as they are, and a smooth continuation of the nearest of them everywhere else (pull-push)."""
    weight = known.to(values)[None, None]
    levels = [(values[None] * weight, weight)]
    while max(levels[-1][1].shape[2:]) > 1:
        levels.append(tuple(F.avg_pool2d(level, 2, ceil_mode=True) for level in levels[-1]))  # type: ignore[arg-type]
    total, weight = levels.pop()
    result = total / weight.clamp(min=1e-12)
    for total, weight in reversed(levels):
        coarse = F.interpolate(result, size=weight.shape[2:], mode="bilinear", align_corners=False)
        result = torch.where(weight > 0, total / weight.clamp(min=1e-12), coarse)
    return result[0]


def met(
    drawn: Float[Tensor, "3 S S"], source: Float[Tensor, "3 S S"], mask: Bool[Tensor, "1 S S"]
) -> Float[Tensor, "3 S S"]:
    """A drawing whose colours are shifted smoothly, so that around the mask they are the source's.

    An inpainting model gives the surroundings back a little lighter or darker, and what is inside with them: pasted as
    it is, a region shows as a patch. drawn, source: the same window, in [0, 1].
    """
    near = F.max_pool2d(mask.to(torch.float32)[None], 2 * RING_PX + 1, stride=1, padding=RING_PX)[0, 0] > 0
    ring = near & ~mask[0]
    if not bool(ring.any()):
        return drawn
    return (drawn + spread(source - drawn, ring)).clamp(0, 1)


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


def paste_back(
    image: Float[Tensor, "3 H W"],
    crop: Float[Tensor, "3 S T"],
    window_xyxy: Box,
    box_xyxy: Box,
    *,
    feather: float,
    mask: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """The picture with the box's part of an edited window put in, method step 7; differentiable in `crop`.

    mask: what may change, inside the box; None for all of the box. Elsewhere the values are the image's own, not
    recomputed. Image and crop in [0, 1].
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    weight = _weight(mask, box_xyxy, (image.shape[1], image.shape[2]), feather).to(image)
    edited = _box_of_window(crop, window_xyxy, box_xyxy).to(image)
    result, old = image.clone(), image[:, y0:y1, x0:x1]
    result[:, y0:y1, x0:x1] = torch.where(weight > 0, weight * edited + (1 - weight) * old, old)
    return result


def paste_pixels(
    original: np.ndarray,
    crop: Float[Tensor, "3 S T"],
    window_xyxy: Box,
    box_xyxy: Box,
    *,
    feather: float,
    mask: Bool[Tensor, "H W"] | None = None,
) -> np.ndarray:
    """`paste_back` in whole numbers: the original's pixels, bit for bit, outside the box or the mask.

    Args:
        original: [H, W, 3], uint8 or uint16.
    Returns:
        A new array of the same shape and depth.
    """
    if original.ndim != 3 or original.shape[2] != 3 or original.dtype not in (np.uint8, np.uint16):
        raise MasklessError(f"pixels must be [H, W, 3] uint8 or uint16, got {original.shape} {original.dtype}")
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    white = np.iinfo(original.dtype).max
    weight = _weight(mask, box_xyxy, original.shape[:2], feather)
    result = original.copy()
    for channel in range(3):  # one at a time: a window of an 8000-pixel picture is 250 MB of floats for each
        old = torch.from_numpy(original[y0:y1, x0:x1, channel].astype(np.float32)) / white
        new = _box_of_window(crop[channel : channel + 1], window_xyxy, box_xyxy)[0]
        blended = (old + weight * (new - old)) * white
        result[y0:y1, x0:x1, channel] = blended.round().clamp(0, white).numpy().astype(original.dtype)
    return result


def _box_of_window(crop: Tensor, window_xyxy: Box, box_xyxy: Box) -> Tensor:
    """The box's part of an edited window, at the picture's resolution: [C, S, S] -> [C, box height, box width]."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    left, top, right, bottom = (int(v) for v in window_xyxy)
    window = resize(crop, (bottom - top, right - left))
    return window[:, y0 - top : y1 - top, x0 - left : x1 - left]


def box_iou(boxes_xyxy: Int[Tensor, "N 4"], box_xyxy: Box) -> Float[Tensor, " N"]:
    """Intersection over union of each box with one."""
    one = torch.tensor([int(edge) for edge in box_xyxy])
    shared = (boxes_xyxy[:, 2:].minimum(one[2:]) - boxes_xyxy[:, :2].maximum(one[:2])).clamp(min=0).prod(dim=1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1) + (one[2:] - one[:2]).prod()
    return shared / (areas - shared)


def scale_boxes(boxes_xyxy: Int[Tensor, "N 4"], from_yx: tuple[int, int], to_yx: tuple[int, int]) -> Int[Tensor, "N 4"]:
    """The same boxes on the same picture at another resolution, rounded, at least one pixel wide, inside."""
    scale_y, scale_x = to_yx[0] / from_yx[0], to_yx[1] / from_yx[1]
    scaled = (boxes_xyxy.to(torch.float64) * torch.tensor([scale_x, scale_y, scale_x, scale_y])).round().to(torch.long)
    limit = torch.tensor([to_yx[1], to_yx[0]])
    start = scaled[:, :2].minimum(limit - 1)
    end = scaled[:, 2:].minimum(limit).maximum(start + 1)
    return torch.cat([start, end], dim=1)


def scale_to_grid(
    boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, int], grid_yx: tuple[int, int]
) -> Float[Tensor, "N 4"]:
    """Boxes in pixels as boxes in cells of a patch grid, (x, y) still, fractions kept (mistakes 3 and 4)."""
    scale_y, scale_x = grid_yx[0] / size_yx[0], grid_yx[1] / size_yx[1]
    return boxes_xyxy.to(torch.float32) * torch.tensor([scale_x, scale_y, scale_x, scale_y])


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


def inside_less_outside(
    scores: Float[Tensor, "rows columns"], boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, int]
) -> Float[Tensor, " N"]:
    """Mean of a map inside each box less its mean outside.

    scores: of a picture of size_yx, on any grid. boxes_xyxy: in pixels of that picture.
    """
    full = F.interpolate(scores[None, None], size=size_yx, mode="bilinear", align_corners=False)[0, 0]
    total, pixels = full.sum(), full.numel()
    values = []
    for x0, y0, x1, y1 in boxes_xyxy.tolist():
        inside, area = full[y0:y1, x0:x1].sum(), (y1 - y0) * (x1 - x0)
        values.append(inside / area - (total - inside) / max(pixels - area, 1))
    return torch.stack(values)
