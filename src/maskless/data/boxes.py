"""Boxes: proposals around anchors, crop windows, changes of resolution, overlap. Pure functions on tensors.

Boxes are (x0, y0, x1, y1), half-open, in pixels of the picture that they belong to. Points are (row, column) and sizes
(height, width). Only `propose_regions` converts (row, column) to (x, y).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.types import Anchors, Regions

GRID_CELLS = 32
"""Half-sizes of boxes are counted in cells of a grid of this width, whatever grid the backbone has (method step 3)."""
Box = Sequence[int]


def propose_regions(anchors: Anchors, sizes: Sequence[int], size_yx: tuple[int, int]) -> Regions:
    """Squares around each anchor whose half-size is r/32 of the shorter side (method step 3).

    A box that would reach beyond the picture is shifted inside. It is never shrunk or dropped (mistake 6).

    Args:
        anchors: K points, (row, column) cells of their grid.
        sizes: M half-sizes r in 32nds of the shorter side, each from 1 to 16.
        size_yx: height and width of the picture in pixels.
    Returns:
        K * M regions, anchor-major: region k * M + m has size m and lies around anchor k.
    Raises:
        MasklessError: no sizes, or a size out of range.
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
    """The square that the inpainting model sees: the box and its surroundings, inside the picture.

    The box is enlarged on each side by `context` times its side, up to the picture's shorter side. The window is
    resized to the model's own size, so a small box is magnified and the model draws it at full resolution.

    Returns:
        (x0, y0, x1, y1), a square that contains the box.
    Raises:
        MasklessError: the box does not fit in a square as wide as the shorter side.
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
    """`context_window` for a box of any shape: a square larger than a side of the picture extends beyond the picture.

    Returns:
        (x0, y0, x1, y1), a square that contains the box and is at most as wide as the picture's longer side.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    longest = max(x1 - x0, y1 - y0)
    side = min(math.ceil(longest * (1 + 2 * context)), max(longest, *size_yx))
    corner = []
    for start, end, length in ((x0, x1, size_yx[1]), (y0, y1, size_yx[0])):
        room = length - side
        corner.append(min(max((start + end - side) // 2, 0), room) if room >= 0 else room // 2)
    return corner[0], corner[1], corner[0] + side, corner[1] + side


def box_in_window(box_xyxy: Box, window_xyxy: Box, size_px: int) -> tuple[int, int, int, int]:
    """The box in pixels of the resized window, rounded outwards so that the whole box is repainted."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    left, top, right, bottom = (int(v) for v in window_xyxy)
    across, down = right - left, bottom - top
    return (
        (x0 - left) * size_px // across,
        (y0 - top) * size_px // down,
        -((left - x1) * size_px // across),
        -((top - y1) * size_px // down),
    )


def box_iou(boxes_xyxy: Int[Tensor, "N 4"], box_xyxy: Box) -> Float[Tensor, " N"]:
    """Intersection over union of each of N boxes with one other box, 0 to 1."""
    other = torch.tensor([int(edge) for edge in box_xyxy])
    shared = (boxes_xyxy[:, 2:].minimum(other[2:]) - boxes_xyxy[:, :2].maximum(other[:2])).clamp(min=0).prod(dim=1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(dim=1) + (other[2:] - other[:2]).prod()
    return shared / (areas - shared)


def without_overlaps(
    boxes_xyxy: Int[Tensor, "N 4"], score: Float[Tensor, " N"], *, max_iou: float, count: int
) -> list[int]:
    """The positions of the best `count` boxes by their score that overlap each other by at most max_iou, best first.

    This is greedy non-maximum suppression: a box that overlaps a better one by more is left out, so there may be fewer
    than `count`. max_iou: intersection over union, below 1.
    """
    kept: list[int] = []
    remaining = score.argsort(descending=True, stable=True)
    while len(remaining) and len(kept) < count:
        best = int(remaining[0])
        kept.append(best)
        remaining = remaining[box_iou(boxes_xyxy[remaining], corners(boxes_xyxy[best])) <= max_iou]
    return kept


def scale_boxes(boxes_xyxy: Int[Tensor, "N 4"], from_yx: tuple[int, int], to_yx: tuple[int, int]) -> Int[Tensor, "N 4"]:
    """Boxes of a picture for a copy of it at another resolution: rounded, inside, and at least one pixel wide and high.

    from_yx, to_yx: height and width of the picture and of the copy.
    """
    scale_y, scale_x = to_yx[0] / from_yx[0], to_yx[1] / from_yx[1]
    scaled = (boxes_xyxy.to(torch.float64) * torch.tensor([scale_x, scale_y, scale_x, scale_y])).round().to(torch.long)
    limit = torch.tensor([to_yx[1], to_yx[0]])
    start = scaled[:, :2].minimum(limit - 1)
    end = scaled[:, 2:].minimum(limit).maximum(start + 1)
    return torch.cat([start, end], dim=1)


def scale_to_grid(
    boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, int], grid_yx: tuple[int, int]
) -> Float[Tensor, "N 4"]:
    """Boxes in pixels converted to cells of a patch grid, still in the order (x, y), not rounded (mistakes 3 and 4)."""
    scale_y, scale_x = grid_yx[0] / size_yx[0], grid_yx[1] / size_yx[1]
    return boxes_xyxy.to(torch.float32) * torch.tensor([scale_x, scale_y, scale_x, scale_y])


def inside_less_outside(
    scores: Float[Tensor, "rows columns"], boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, int]
) -> Float[Tensor, " N"]:
    """Mean of a map inside each box minus its mean outside.

    scores: a map of a picture of size_yx, on any grid. boxes_xyxy: in pixels of that picture.
    """
    full = F.interpolate(scores[None, None], size=size_yx, mode="bilinear", align_corners=False)[0, 0]
    total, pixels = full.sum(), full.numel()
    values = []
    for x0, y0, x1, y1 in boxes_xyxy.tolist():
        inside, area = full[y0:y1, x0:x1].sum(), (y1 - y0) * (x1 - x0)
        values.append(inside / area - (total - inside) / max(pixels - area, 1))
    return torch.stack(values)


def corners(box_xyxy: Int[Tensor, " 4"]) -> tuple[int, int, int, int]:
    """One row of a tensor of boxes as Python integers, (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = box_xyxy.tolist()
    return x0, y0, x1, y1
