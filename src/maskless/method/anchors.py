"""Where to edit: peaks of attention, of relevance to the caption, or of both. Method step 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.data.types import Anchors

NEIGHBOURHOOD = 3 / 32
"""Anchors are at least this share of the grid's shorter side apart, while the grid has room for that. At 1/8 a small
thing has no room for nine anchors, and the rest fall on the background (docs/search.md)."""

ROOM = 1 / 3


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
        attention: CLS -> patch attention of DINO on the grid that the anchors count in.
        relevance: relevance of each place to the caption, >= 0, on any grid of the same picture; None or a constant
            map where the caption names nothing, then attention alone decides.
        count: K.
        source: "attention" (the paper), "text", or "both": the first half from the caption, the rest from attention.
        first_yx: (row, column) of the captioned thing's middle, where it is known; the caption's first anchor.
    Raises:
        MasklessError: an unknown source, or more anchors than cells.
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
    """Cells with the most room around them, for a newcomer.

    occupied: where things are, 0 to 1, on any grid. grid_yx: rows and columns that the anchors count in. The weight of
    an anchor is the free share of the square of ROOM of the shorter side around it; beyond the picture all is taken.
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
    """The `count` highest cells, each at least a neighbourhood away from those before it and from `taken`.

    Where the grid is too small for that the neighbourhood shrinks, so there are always `count` of them.

    Returns:
        (row, column) of each, highest first.
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
