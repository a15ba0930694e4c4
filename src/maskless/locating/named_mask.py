"""One mask of all objects that a caption names: their outlines, completed inside their fitted regions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import scale_boxes
from maskless.data.config import EditConfig
from maskless.data.instructions import phrases
from maskless.data.masks import components, mask_box, without_holes
from maskless.locating.location import Location, locate, propose
from maskless.locating.view import PictureView
from maskless.method.foreground import colour_outliers

MIN_FILL = 0.1
"""Minimum share of the fitted regions that the mask covers. With less, the outline is only a small part of the object,
or belongs to another one."""
COLOURS_PX = 128
"""Longer side, in pixels, of the shrunk picture whose colours are compared with those around a region."""
REACH_SHARE, MIN_REACH_PX = 0.25, 3
"""How far the surroundings of a region reach: a share of its longer side, and a minimum in pixels."""
KEPT_WHOLE = 0.7
"""A connected part of the outline of which at least this share lies inside the regions is kept whole."""
STANDING_OUT = 0.3
"""A connected part of what stands out in and near the regions, in a colour that does not occur around these, is kept
with the objects if the mask covers at least this share of it. "Near" is at most this share of a region's longer
side away."""
MAX_HOLE = 0.02
"""Maximum size of a hole that is filled as part of the object around it, as a share of the picture."""


def named_mask(
    view: PictureView, caption: str, location: Location, *, salient: Bool[Tensor, "H W"] | None = None
) -> Bool[Tensor, "H W"]:
    """The mask of the objects that a caption names: their outline, and the parts that the outline misses.

    A region is fitted to each phrase of the caption. Pixels inside a region whose colour does not occur around it are
    added to the mask. What lies outside of all regions is left out if it is most of a connected part of the outline,
    because it belongs to something that touches the objects. If hardly anything remains, the mask is the regions
    themselves. docs/search.md and docs/results.md have the measurements that this is based on.

    Args:
        location: of the caption, with an outline.
        salient: mask of everything that stands out. If it is given, its pixels do not count as surroundings, and its
            parts that belong to the objects are added, so the mask misses less of an object, but includes more of the
            background.
    """
    assert location.outline is not None
    small = view.shrunk(COLOURS_PX)
    small_yx = (small.shape[1], small.shape[2])
    named = phrases(caption) or (caption,)
    fitted = torch.stack([_fitted_region(view, caption, location, phrase) for phrase in named])
    in_regions = _box_masks(fitted, view.size_yx).any(dim=0)
    regions = _box_masks(scale_boxes(fitted, view.size_yx, small_yx), small_yx)
    surroundings = ~regions.any(dim=0)
    if salient is not None:
        surroundings &= _covered_share(~salient, small_yx) == 1
    outlined = _covered_share(location.outline, small_yx) > 0.5
    outline = outlined & regions.any(dim=0)
    whole = outline | _colour_outliers_in(small, regions, surroundings)
    if int(whole.sum()) < MIN_FILL * int(regions.any(dim=0).sum()):
        return in_regions
    missed = (without_holes(whole, MAX_HOLE) & ~outline).to(torch.float32)[None, None]
    # A threshold below a half dilates the added parts a little, so that they touch the outline at full resolution.
    completed = F.interpolate(missed, size=view.size_yx, mode="bilinear")[0, 0] > 0.25
    beyond = F.interpolate(_parts_inside(outlined, regions.any(dim=0))[None, None], size=view.size_yx)[0, 0] > 0
    mask = (_at_size(location.outline, view.size_yx) & (in_regions | beyond)) | completed
    return mask if salient is None else mask | _standing_out(mask, salient, small, fitted)


def _standing_out(
    mask: Bool[Tensor, "H W"], salient: Bool[Tensor, "H W"], small: Float[Tensor, "3 h w"], fitted: Int[Tensor, "N 4"]
) -> Bool[Tensor, "H W"]:
    """The parts of what stands out that belong to the objects of a mask; see STANDING_OUT.

    small: the shrunk picture whose colours are compared. fitted: the regions of the objects, in pixels of the picture.
    """
    size_yx, small_yx = (mask.shape[0], mask.shape[1]), (small.shape[1], small.shape[2])
    margin = STANDING_OUT * (fitted[:, 2:] - fitted[:, :2]).max(dim=1).values[:, None]
    near = fitted + (margin * torch.tensor([-1, -1, 1, 1])).round().long()
    regions = _box_masks(scale_boxes(near, size_yx, small_yx), small_yx)
    surroundings = ~regions.any(dim=0) & (_covered_share(~salient, small_yx) == 1)
    if not bool(surroundings.any()):
        return torch.zeros_like(mask)
    coloured = _colour_outliers_in(small, regions, surroundings)
    parts = (_covered_share(salient, small_yx) > 0.5) & regions.any(dim=0) & coloured
    belonging = _parts_inside(parts, _covered_share(mask, small_yx) > 0.5, STANDING_OUT)
    return salient & (F.interpolate(belonging[None, None], size=size_yx)[0, 0] > 0)


def _at_size(mask: Bool[Tensor, "h w"], size_yx: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """A mask resized to this size, with smooth outlines; the mask itself if it has this size."""
    if tuple(mask.shape) == size_yx:
        return mask
    return F.interpolate(mask.to(torch.float32)[None, None], size=size_yx, mode="bilinear")[0, 0] > 0.5


def _parts_inside(
    outline: Bool[Tensor, "h w"], inside: Bool[Tensor, "h w"], share: float = KEPT_WHOLE
) -> Float[Tensor, "h w"]:
    """1 on the connected parts of an outline of which at least a share lies inside, and on their edges; 0 elsewhere."""
    parts = components(outline) if bool(outline.any()) else []
    mostly = [part for part in parts if float(inside[part].float().mean()) >= share]
    whole = torch.stack([torch.zeros_like(outline), *mostly]).any(dim=0).to(torch.float32)
    return F.max_pool2d(whole[None, None], 3, stride=1, padding=1)[0, 0]


def _fitted_region(view: PictureView, caption: str, location: Location, phrase: str) -> Int[Tensor, " 4"]:
    """The region that fits a phrase best, with fitted edges; (x0, y0, x1, y1) in pixels of the picture."""
    defaults, size_yx = EditConfig().resolved(), view.size_yx
    if phrase != caption:
        view = view.small_view
        location = locate(view, phrase, defaults)
    proposed = propose(view, phrase, location, defaults)
    best = int(proposed.score.argmax())
    return scale_boxes(proposed.regions.boxes_xyxy[best : best + 1], view.size_yx, size_yx)[0]


def _colour_outliers_in(
    image: Float[Tensor, "3 h w"], regions: Bool[Tensor, "N h w"], surroundings: Bool[Tensor, "h w"]
) -> Bool[Tensor, "h w"]:
    """The pixels in each region whose colours do not occur in its surroundings; single pixels and thin lines are left
    out.

    If no surroundings are near a region, its colours are compared with all surroundings.
    """
    parts = []
    for region in regions:
        near = _neighbourhood(region) & surroundings
        parts.append(colour_outliers(image, region, near if bool(near.any()) else surroundings))
    found = torch.stack(parts).any(dim=0).to(torch.float32)
    return F.avg_pool2d(found[None], 3, stride=1, padding=1)[0] > 0.5


def _neighbourhood(region: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """The mask of a box extended by its reach on every side."""
    x0, y0, x1, y1 = mask_box(region)
    reach = max(MIN_REACH_PX, round(REACH_SHARE * max(x1 - x0, y1 - y0)))
    return _box_masks(torch.tensor([[x0 - reach, y0 - reach, x1 + reach, y1 + reach]]), region.shape)[0]


def _box_masks(boxes_xyxy: Int[Tensor, "N 4"], size_yx: tuple[int, ...]) -> Bool[Tensor, "N H W"]:
    """The masks of boxes, each clipped to the picture and at least one pixel large."""
    masks = torch.zeros(len(boxes_xyxy), *size_yx, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy.tolist(), strict=True):
        left, top = max(0, min(x0, size_yx[1] - 1)), max(0, min(y0, size_yx[0] - 1))
        mask[top : max(y1, top + 1), left : max(x1, left + 1)] = True
    return masks


def _covered_share(mask: Bool[Tensor, "H W"], size_yx: tuple[int, int]) -> Float[Tensor, "h w"]:
    """The share of each pixel of a smaller picture that the mask covers, from 0 to 1."""
    return F.interpolate(mask.to(torch.float32)[None, None], size=size_yx, mode="area")[0, 0]
