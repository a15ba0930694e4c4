"""The objects of a picture as masks, from its features and colours: salient parts, and the whole objects around them.

Pure torch. Which of the objects a caption names is decided in locating/objects.py, which scores the parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.masks import components, mask_box
from maskless.method.foreground import outline, salience, snap_to_edges, threshold

FINER = 4
"""Masks are computed on a grid this many times as fine as that of the features."""
DEPTHS = (0.0, 0.1, 0.2, 0.3)
"""Levels of salience above the threshold at which parts are separated. Two objects that touch each other are one part
at a low level, and two parts at a higher one."""
MIN_AREA_SHARE, MAX_PARTS = 0.002, 10
"""Minimum area of a part, as a share of the picture, and maximum number of parts at each level."""
REACH = 0.3
"""How far around a salient part its object may extend, as a share of the part's longer side."""
MAX_GROWTH = 2.0
"""Maximum area of the whole object, in areas of its salient part. A larger one includes background (docs/search.md)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The cells of DINO's grid. features: patch features. colours: mean RGB of each cell, in [0, 1]."""

    features: Float[Tensor, "D h w"]
    colours: Float[Tensor, "3 h w"]

    @property
    def grid_yx(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.features.shape[1], self.features.shape[2]


Part = Bool[Tensor, "rows columns"]
"""A salient part on a grid that is FINER times as fine as the cells'."""


def all_objects(cells: Cells, small: Float[Tensor, "3 h w"], size_yx: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask of everything that is not background.

    small: the picture at any size; outlines follow its edges. size_yx: height and width of the mask.
    """
    scores = salience(cells.features, cells.colours)
    salient = _above(scores, threshold(scores))
    parts = components(salient) if bool(salient.any()) else []
    return whole_objects(parts[:MAX_PARTS], cells, small, size_yx)


def salient_parts(cells: Cells) -> list[Part]:
    """The connected salient parts at each of DEPTHS; a part of a higher level lies inside one of a lower level."""
    scores = salience(cells.features, cells.colours)
    base, found = threshold(scores), []
    for depth in DEPTHS:
        mask = _above(scores, base + depth)
        parts = components(mask) if bool(mask.any()) else []
        found += [part for part in parts if int(part.sum()) >= MIN_AREA_SHARE * part.numel()][:MAX_PARTS]
    return found


def separate_parts(parts: Sequence[Part]) -> list[Part]:
    """Those of the salient parts that do not overlap: one for each object, as far as any level separates them.

    A part that falls into several ones at a higher level is replaced by them. parts: see `salient_parts`.
    """

    def separated(part: Part) -> list[Part]:
        smaller = [each for each in parts if int(each.sum()) < int(part.sum()) and not bool((each & ~part).any())]
        outermost = _outermost(smaller)
        if len(outermost) == 1:  # the same object at a higher level, where it may fall into several
            inner = separated(outermost[0])
            return inner if len(inner) > 1 else [part]
        return [leaf for each in outermost for leaf in separated(each)] or [part]

    return [leaf for part in _outermost(parts) for leaf in separated(part)]


def _outermost(parts: Sequence[Part]) -> list[Part]:
    """The parts that lie inside no larger one; of equal ones the first."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda each: -int(each.sum())):
        if not any(bool((part & each).any()) for each in kept):
            kept.append(part)
    return kept


def part_boxes(parts: Sequence[Part], size_yx: tuple[int, int], *, margin: float) -> Int[Tensor, "N 4"]:
    """The box of each part in a picture of this size, clipped to the picture.

    margin: width of a margin around each box, as a share of its longer side.
    """
    rows, columns = parts[0].shape
    scale = torch.tensor([size_yx[1] / columns, size_yx[0] / rows] * 2)
    limit = torch.tensor([size_yx[1], size_yx[0]] * 2)
    boxes = torch.tensor([mask_box(part) for part in parts]) * scale
    margin_px = margin * (boxes[:, 2:] - boxes[:, :2]).max(dim=1).values[:, None]
    boxes = (boxes + margin_px * torch.tensor([-1.0, -1.0, 1.0, 1.0])).round().long().clamp(min=0).minimum(limit)
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 1)
    return boxes


def one_part_each(scores: Sequence[Float[Tensor, " N"]], parts: Sequence[Part]) -> list[Part]:
    """The part that fits each phrase best, where no two phrases get the same part or overlapping ones.

    Pairs of a phrase and a part are assigned in the order of their scores. A phrase for which no part is left gets the
    one that fits it best. scores: for each phrase, how well each of N parts fits it.
    """
    assigned: dict[int, int] = {}
    pairs = sorted(((float(s), p, c) for p, row in enumerate(scores) for c, s in enumerate(row)), reverse=True)
    for _score, phrase, candidate in pairs:
        free = not any(bool((parts[candidate] & parts[other]).any()) for other in assigned.values())
        if phrase not in assigned and free:
            assigned[phrase] = candidate
    return [parts[assigned.get(phrase, int(row.argmax()))] for phrase, row in enumerate(scores)]


def whole_objects(
    parts: Sequence[Part], cells: Cells, small: Float[Tensor, "3 h w"], size_yx: tuple[int, int]
) -> Bool[Tensor, "H W"]:
    """One mask of the objects that these parts belong to. small, size_yx: see `all_objects`."""
    whole = torch.zeros(size_yx, dtype=torch.bool)
    for part in parts:
        whole |= _full_size(_whole_object(part, cells), small, size_yx)
    return whole


def square_around_peak(relevance: Float[Tensor, "rows columns"], size_yx: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A square mask around the highest value of a map of the picture; its side is a third of the shorter side."""
    height, width = size_yx
    rows, columns = relevance.shape
    peak = int(relevance.argmax())
    y, x = (peak // columns + 0.5) / rows * height, (peak % columns + 0.5) / columns * width
    half = min(height, width) / 6
    ys, xs = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None, :] + 0.5
    return ((ys - y).abs() <= half) & ((xs - x).abs() <= half)


def _whole_object(part: Tensor, cells: Cells) -> Tensor:
    """A salient part and the cells around it that belong to the same object, both on the finer grid.

    Salience alone misses the ends of a wide object: they are similar to each other and far apart, like scenery.
    """
    rows, columns = part.shape
    x0, y0, x1, y1 = mask_box(part)
    reach = round(REACH * max(x1 - x0, y1 - y0)) + FINER
    region = torch.zeros(1, 1, rows, columns)
    region[..., max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach] = 1
    on_cells = F.interpolate(region, size=cells.grid_yx, mode="area")[0, 0] > 0.5
    core = F.interpolate(part.to(torch.float32)[None, None], size=cells.grid_yx, mode="area")[0, 0] > 0.5
    similar = _above(outline(cells.features, cells.colours, on_cells, core), 0.0) & (region[0, 0] > 0)
    touching = [component for component in components(part | similar) if bool((component & part).any())]
    whole = torch.stack(touching).any(dim=0)
    return part if int(whole.sum()) > MAX_GROWTH * int(part.sum()) else whole


def _above(scores: Tensor, level: float) -> Tensor:
    """True where a map on the cells is above a level, on the finer grid."""
    size = (scores.shape[0] * FINER, scores.shape[1] * FINER)
    # Extreme values are clamped, so that they do not shift the interpolated outline.
    return F.interpolate((scores - level)[None, None].clamp(-0.2, 0.2), size=size, mode="bilinear")[0, 0] > 0


def _full_size(mask: Tensor, small: Tensor, size_yx: tuple[int, int]) -> Tensor:
    """A mask on the finer grid, resized to size_yx, with its outline moved to the edges of the picture.

    A faint or thin object can vanish when its outline is moved; then its mask is only resized.
    """
    coarse = F.interpolate(mask.to(torch.float32)[None, None], size=small.shape[1:], mode="bilinear")[0, 0]
    snapped = snap_to_edges(coarse, small)[None, None]
    at_edges = F.interpolate(snapped, size=size_yx, mode="bilinear")[0, 0] > 0.5
    if bool(at_edges.any()) or not bool(mask.any()):
        return at_edges
    return F.interpolate(mask.to(torch.float32)[None, None], size=size_yx, mode="nearest")[0, 0] > 0.5
