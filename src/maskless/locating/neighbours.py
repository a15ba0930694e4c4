"""The objects of a region: the one that an edit replaces, and neighbours that reach into it, whose pixels are kept."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from maskless.data.boxes import Box
from maskless.data.masks import box_mask
from maskless.locating.objects import parts_in
from maskless.locating.view import PictureView
from maskless.method.object_masks import Part, separate_parts, whole_objects

OWN_SHARE = 0.5
"""An object of which at least this share lies in a region belongs to the region."""
MAX_SHARE = 0.4
"""If the neighbours cover more than this share of a region, they are not trusted, and none is kept."""
OUTLINES_PX = 128
"""Longer side, in pixels, of the copy of the picture on which outlines are drawn."""


def neighbours(view: PictureView, box_xyxy: Box, *, replaces: bool) -> Bool[Tensor, "h w"] | None:
    """The pixels of a region that show objects which are mostly outside of it; None if there are none.

    docs/search.md says how much of the neighbours this finds.

    Args:
        view: of the picture; the mask has the size of `view.small`.
        box_xyxy: the region, half-open, in pixels of `view.small`.
        replaces: whether the edit replaces an object. Then the one that covers most of the region is never a neighbour,
            because a region may be too small for its object.
    """
    parts, inside, order = _by_coverage(view, box_xyxy)
    region = box_mask(box_xyxy, view.small_yx)
    own, others = order[:replaces], order[replaces:]
    outlines = [_outline(view, index, parts) for index in others if 0 < inside[index] < OWN_SHARE]
    if not outlines:
        return None
    found = torch.stack(outlines).any(dim=0) & region
    for index in own:
        found &= ~_outline(view, index, parts)
    share = int(found.sum()) / int(region.sum())
    return found if 0 < share <= MAX_SHARE else None


def replaced_object(view: PictureView, box_xyxy: Box) -> Bool[Tensor, "h w"] | None:
    """The pixels of the object that covers most of a region, inside and outside of it; None if there is none.

    view, box_xyxy: as in `neighbours`.
    """
    parts, inside, order = _by_coverage(view, box_xyxy)
    return _outline(view, order[0], parts) if order and inside[order[0]] > 0 else None


def _by_coverage(view: PictureView, box_xyxy: Box) -> tuple[list[Part], list[float], list[int]]:
    """The separate salient parts, the share of each that lies in a region, and their positions in the order of how
    much of the region they cover."""
    parts = view.cached("separate parts", lambda: separate_parts(parts_in(view)))
    region = box_mask(box_xyxy, view.small_yx)
    inside = [_share_inside(part, region) for part in parts]
    return parts, inside, sorted(range(len(parts)), key=lambda index: -inside[index] * float(parts[index].sum()))


def _share_inside(part: Bool[Tensor, "rows columns"], region: Bool[Tensor, "h w"]) -> float:
    """The share of a salient part that lies in a region of the picture."""
    covered = F.interpolate(region.to(torch.float32)[None, None], size=part.shape, mode="area")[0, 0]
    return float(covered[part].mean())


def _outline(view: PictureView, index: int, parts: list[Part]) -> Bool[Tensor, "h w"]:
    """The whole object around a salient part, at the size of `view.small`."""

    def compute() -> Tensor:
        coarse = view.shrunk(OUTLINES_PX)
        whole = whole_objects([parts[index]], view.cells, coarse, (coarse.shape[1], coarse.shape[2]))
        return F.interpolate(whole.to(torch.float32)[None, None], size=view.small_yx, mode="bilinear")[0, 0] > 0.5

    return view.cached(f"outline of part {index}", compute)
