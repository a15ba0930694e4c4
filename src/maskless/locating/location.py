"""Finds the anchors and the proposed regions of an edit, before anything is inpainted. Method steps 1 to 3."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import Box, box_iou, corners, propose_regions, scale_boxes
from maskless.data.config import ResolvedConfig
from maskless.data.masks import mask_box
from maskless.data.types import Anchors, Regions
from maskless.locating.objects import named_objects
from maskless.locating.view import PictureView
from maskless.method.anchors import find_anchors
from maskless.method.box_fitting import MIN_SIDE_SHARE, extend_fitted_box, fit_edges
from maskless.method.ranking import behind, location_score

AGREEMENT, LARGE = 0.5, 0.3
"""A region is clearly the right one if it has this intersection over union with the outline's box, and covers at most
this share of the picture."""

LIKELY, SAMPLED = 12, 10
"""How many regions CLIP encodes for a placed search: the likeliest, and a sample of the others (docs/search.md)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Location:
    """Where the object that the caption names is, if it is known, and where to edit.

    relevance: relevance of each part of the picture to the caption, from 0 to 1. outline: mask of the object that the
    caption names, at the size of `view.reduced`. Both are None if the caption is empty or is not used. anchors: the
    cells of DINO's grid around which the regions lie. size_yx: height and width of the picture.
    """

    relevance: Float[Tensor, "rows columns"] | None
    outline: Bool[Tensor, "h w"] | None
    anchors: Anchors
    size_yx: tuple[int, int]

    @cached_property
    def outline_xyxy(self) -> Box | None:
        """The box of the outline, in pixels of the picture, half-open; None if the outline is empty or unknown."""
        if self.outline is None or not bool(self.outline.any()):
            return None
        height, width = self.outline.shape
        return corners(scale_boxes(torch.tensor([mask_box(self.outline)]), (height, width), self.size_yx)[0])


def locate(view: PictureView, caption: str, config: ResolvedConfig) -> Location:
    """The anchors of an edit (method step 2).

    They are peaks of DINO's attention. If the caption is used (`config.anchor_source`), they are also peaks of its
    relevance, and the first anchor is the middle of the object that the caption names: of what a grounder found, else
    of the outline.
    """
    attention, count, source = view.features.attention, config.anchors, config.anchor_source
    if source == "attention" or not caption.strip():
        anchors = find_anchors(attention, None, count=count, source=source)
        return Location(relevance=None, outline=None, anchors=anchors, size_yx=view.size_yx)
    relevance, outline = view.relevance(caption), named_objects(view, caption)
    detected = detected_boxes(view, caption)
    middle = None
    if len(detected):
        middle = _middle(corners(detected[0]), view.size_yx, view.features.grid_yx)
    elif bool(outline.any()):
        middle = _middle(mask_box(outline), view.reduced_yx, view.features.grid_yx)
    anchors = find_anchors(attention, relevance, count=count, source=source, first_yx=middle)
    return Location(relevance=relevance, outline=outline, anchors=anchors, size_yx=view.size_yx)


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposals:
    """The K * M regions of a search, anchor-major, and how well each fits the object that the caption names.

    score: `ranking.location_score`, in standard deviations over the squares; for the fitted region, the score before
    its margin was added. It is 0 for all regions if the caption is empty.
    """

    regions: Regions
    score: Float[Tensor, " R"]


def propose(view: PictureView, caption: str, location: Location, config: ResolvedConfig) -> Proposals:
    """Squares around the anchors (method step 3).

    With the option `fit_edges` and a caption, the edges of the square with the highest location score, or of a box that
    a grounder found and that has a higher one, are then moved to fit the object.

    The placed search edits only a few regions, so CLIP only encodes those that the other signs put first, and some of
    the rest, from which the units of the score follow. All others rank behind them, in the order of the other signs.
    """
    regions = propose_regions(location.anchors, config.sizes, view.size_yx)
    boxes, outline = regions.boxes_xyxy, location.outline_xyxy
    if not caption.strip():
        return Proposals(regions=regions, score=torch.zeros(len(boxes)))
    cheap = view.location_signs(boxes, caption, outline_xyxy=outline, encode=False)
    score = location_score(cheap)
    encoded = _worth_encoding(score, boxes) if config.search == "placed" else torch.arange(len(boxes))
    signs = view.location_signs(boxes[encoded], caption, outline_xyxy=outline)
    score = behind(score, location_score(signs), encoded)
    if not config.fit_edges or float(score.max()) == float(score.min()):
        return Proposals(regions=regions, score=score)

    def score_among(boxes: Int[Tensor, "N 4"]) -> Float[Tensor, " N"]:
        return location_score(view.location_signs(boxes, caption, outline_xyxy=outline), among=signs)

    def cheap_score(boxes: Int[Tensor, "N 4"]) -> Float[Tensor, " N"]:
        return location_score(view.location_signs(boxes, caption, outline_xyxy=outline, encode=False), among=cheap)

    best = int(score.argmax())
    start, start_score = corners(boxes[best]), float(score[best])
    detected = detected_boxes(view, caption)
    if len(detected):
        scores = score_among(detected)
        if float(scores.max()) > start_score:
            start, start_score = corners(detected[int(scores.argmax())]), float(scores.max())
    fitted, score[best] = fit_edges(start, start_score, score_among, view.size_yx, cheap_score=cheap_score)
    boxes = boxes.clone()
    boxes[best] = torch.tensor(extend_fitted_box(fitted, outline, view.size_yx))
    return Proposals(regions=replace(regions, boxes_xyxy=boxes), score=score)


def _worth_encoding(cheap_score: Float[Tensor, " N"], boxes_xyxy: Int[Tensor, "N 4"]) -> Int[Tensor, " n"]:
    """The positions of the LIKELY different boxes with the highest score, and of SAMPLED others over the whole range of
    scores."""
    first_of: dict[tuple[int, ...], int] = {}
    for position in cheap_score.argsort(descending=True, stable=True).tolist():
        first_of.setdefault(corners(boxes_xyxy[position]), position)
    order = list(first_of.values())
    rest = order[LIKELY:]
    return torch.tensor(order[:LIKELY] + rest[:: max(1, len(rest) // SAMPLED)][:SAMPLED])


def looks_like(view: PictureView, caption: str, proposals: Proposals) -> bool:
    """Whether the region that fits a caption best is more similar to it than to `clip.GENERIC_TEXTS`, on average; True
    for an empty caption, and if a grounder found something. If not, nothing in the picture looks like the caption
    (docs/search.md)."""
    if not caption.strip() or len(view.detections(caption)):
        return True
    best = proposals.regions.boxes_xyxy[int(proposals.score.argmax())][None]
    return float(view.clip.contrast(view.crop_embeddings(view.scaled(best)), view.text(caption))) > 0


def is_clear(view: PictureView, location: Location, proposals: Proposals) -> bool:
    """Whether the region that fits the caption best is clearly the right one: its box, which CLIP's signs choose, and
    the box of the outline, which DINO's features give, have an intersection over union of AGREEMENT, and it is no
    larger than LARGE of the picture. A larger region more often covers a neighbour of the object (docs/search.md).

    The outline, too, follows what a grounder found, if there is one."""
    if location.outline_xyxy is None:
        return False
    best = proposals.regions.boxes_xyxy[int(proposals.score.argmax())]
    x0, y0, x1, y1 = best.tolist()
    share = (x1 - x0) * (y1 - y0) / (view.size_yx[0] * view.size_yx[1])
    return float(box_iou(best[None], location.outline_xyxy)[0]) >= AGREEMENT and share <= LARGE


def location_scores(
    view: PictureView, caption: str, boxes_xyxy: Int[Tensor, "N 4"], location: Location
) -> Float[Tensor, " N"]:
    """How well each box fits the object that the caption names, in standard deviations over these boxes.

    boxes_xyxy: half-open, in pixels of the picture. The scores are 0 if the caption is empty.
    """
    return location_score(view.location_signs(boxes_xyxy, caption, outline_xyxy=location.outline_xyxy))


def detected_boxes(view: PictureView, caption: str) -> Int[Tensor, "N 4"]:
    """The boxes that a grounder found for a caption, best first, in pixels of the picture, half-open.

    A side that is longer than the picture's shorter side, or shorter than a fitted box may be, is changed to that
    length, around the middle of the box and inside the picture.
    """
    boxes = scale_boxes(view.detections(caption).boxes_xyxy, view.small_yx, view.size_yx)
    starts, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    shorter = min(view.size_yx)
    allowed = sides.clamp(min=max(1, round(MIN_SIDE_SHARE * shorter)), max=shorter)
    room = torch.tensor([view.size_yx[1], view.size_yx[0]]) - allowed
    starts = (starts + (sides - allowed) // 2).clamp(min=0).minimum(room)
    return torch.cat([starts, starts + allowed], dim=1)


def _middle(box_xyxy: Box, size_yx: tuple[int, int], grid_yx: tuple[int, int]) -> tuple[int, int]:
    """The cell of a grid over a picture of this size that contains the middle of a box, (row, column)."""
    (x0, y0, x1, y1), (height, width), (rows, columns) = box_xyxy, size_yx, grid_yx
    return (y0 + y1) * rows // (2 * height), (x0 + x1) * columns // (2 * width)
