"""Anchors, the points to edit around: peaks of attention, of relevance to the caption, or of both. Method step 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.types import Anchors

NEIGHBOURHOOD = 3 / 32
"""Minimum distance of anchors, as a share of the grid's shorter side, while the grid has room for it. With 1/8, nine
anchors do not fit on a small object, and the others fall on the background (docs/search.md)."""

ROOM = 1 / 3
"""Side of the square in which `find_free_anchors` measures the free area, as a share of the grid's shorter side."""


def find_anchors(
    attention: Float[Tensor, "h w"],
    relevance: Float[Tensor, "rows cols"] | None,
    *,
    count: int,
    source: str,
    first_yx: tuple[int, int] | None = None,
) -> Anchors:
    """The cells to edit around.

    Args:
        attention: DINO's attention from the CLS token to each patch, on the grid of the anchors.
        relevance: relevance of each cell to the caption, >= 0, on any grid of the same picture. If it is None or
            constant, the caption names nothing, and attention alone decides.
        count: K.
        source: "attention" (the paper), "text", or "both": the first half from the caption, the rest from attention.
        first_yx: (row, column) of the middle of the captioned object, if it is known. It becomes the first anchor that
            the caption contributes.
    Raises:
        MasklessError: an unknown source, or a count that is not from 1 to the number of cells.
    """
    if source not in ("attention", "text", "both"):
        raise MasklessError(f"source must be attention, text or both, got {source!r}")
    rows, columns = attention.shape
    if not 1 <= count <= rows * columns:
        raise MasklessError(f"anchors must be from 1 to the {rows * columns} cells of the grid, got {count}")
    maps = [attention]
    quotas = [count]
    if source != "attention" and relevance is not None and float(relevance.max()) > float(relevance.min()):
        on_grid = F.interpolate(relevance[None, None], size=(rows, columns), mode="bilinear", align_corners=False)[0, 0]
        from_text = count if source == "text" else (count + 1) // 2
        maps, quotas = [on_grid, attention], [from_text, count - from_text]
    points: list[tuple[int, int]] = []
    weights: list[float] = []
    if len(maps) == 2 and first_yx is not None:
        points, quotas[0] = [first_yx], quotas[0] - 1
        weights = [float(maps[0][first_yx])]
    for scores, quota in zip(maps, quotas, strict=True):
        for row, column in suppressed_peaks(scores, quota, taken=points):
            points.append((row, column))
            weights.append(float(scores[row, column]))
    return Anchors(points_yx=torch.tensor(points), weight=torch.tensor(weights), grid_yx=(rows, columns))


def find_free_anchors(occupied: Float[Tensor, "H W"], grid_yx: tuple[int, int], *, count: int) -> Anchors:
    """The cells with the most free area around them, for a new object.

    occupied: where the picture shows objects, 0 to 1, on any grid. grid_yx: rows and columns of the anchors' grid. The
    weight of an anchor is the free share of the square around it (see ROOM). The area beyond the picture counts as
    occupied.
    """
    rows, columns = grid_yx
    free = 1 - F.interpolate(occupied[None, None].to(torch.float32), size=(rows, columns), mode="area")
    reach = max(1, round(min(rows, columns) * ROOM / 2))
    room = F.avg_pool2d(free, 2 * reach + 1, stride=1, padding=reach)[0, 0]
    points = suppressed_peaks(room, count)
    weights = torch.stack([room[row, column] for row, column in points])
    return Anchors(points_yx=torch.tensor(points), weight=weights, grid_yx=(rows, columns))


def suppressed_peaks(
    scores: Float[Tensor, "h w"], count: int, *, taken: list[tuple[int, int]] | None = None
) -> list[tuple[int, int]]:
    """The `count` highest cells that are at least NEIGHBOURHOOD apart from each other and from the cells in `taken`.

    Where the grid is too small for this distance, the distance is reduced until there are `count` cells.

    Returns:
        (row, column) of each, highest first.
    Raises:
        MasklessError: fewer than `count` cells are left.
    """
    rows, columns = scores.shape
    found: list[tuple[int, int]] = []
    radius = max(1, round(min(rows, columns) * NEIGHBOURHOOD))
    while len(found) < count:
        free = torch.ones_like(scores, dtype=torch.bool)
        for row, column in [*(taken or []), *found]:
            free[max(0, row - radius + 1) : row + radius, max(0, column - radius + 1) : column + radius] = False
        if not bool(free.any()):
            if radius == 1:
                raise MasklessError(f"a grid of {rows} x {columns} cells has no room for {count} more anchors")
            radius -= 1
            continue
        peak = int(torch.where(free, scores, torch.full_like(scores, -torch.inf)).argmax())
        found.append((peak // columns, peak % columns))
    return found
