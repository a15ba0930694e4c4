"""Where an edit of a picture may go: what is read from it before any inpainting. Method steps 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import Box, propose_regions, scale_boxes
from maskless.data.config import EditConfig
from maskless.data.masks import mask_box
from maskless.data.types import Anchors, EditRequest, PatchFeatures, PlaceSigns, Regions
from maskless.locating.objects import named_things
from maskless.locating.view import VIEW_PX, at_most, place_signs
from maskless.method.anchors import find_anchors
from maskless.method.box_fitting import fit_edges, with_room
from maskless.method.ranking import place_score
from maskless.models.pretrained import EditModels


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """features: of the picture. relevance: of each place to the caption; outline: the thing that it names; both None
    where the caption is empty or has no say. anchors: the cells to edit around."""

    features: PatchFeatures
    relevance: Float[Tensor, "rows columns"] | None
    outline: Bool[Tensor, "H W"] | None
    anchors: Anchors

    @property
    def outline_xyxy(self) -> Box | None:
        """The box of the outline, in pixels; None where there is nothing in it."""
        return mask_box(self.outline) if self.outline is not None and bool(self.outline.any()) else None


def find_places(request: EditRequest, models: EditModels, config: EditConfig) -> Places:
    """Anchors by attention, and where the caption has a say by its relevance, the middle of the named thing first."""
    features = models.dino.features(request.image)
    if config.anchor_source == "attention" or not request.caption.strip():
        anchors = find_anchors(features.attention, None, count=config.anchors, source=config.anchor_source)
        return Places(features=features, relevance=None, outline=None, anchors=anchors)
    relevance = models.clip.relevance(request.image, request.caption)
    outline = named_things(request.image, features, request.caption, models.clip, relevance)
    middle = _middle(outline, features.grid_yx) if bool(outline.any()) else None
    anchors = find_anchors(
        features.attention, relevance, count=config.anchors, source=config.anchor_source, first_yx=middle
    )
    return Places(features=features, relevance=relevance, outline=outline, anchors=anchors)


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposals:
    """The K * M regions of a search, anchor-major, and how much each is the captioned thing.

    place: in spreads over the squares (`ranking.place_score`), of a fitted region before it was given room; 0 for all
    where the caption is empty.
    """

    regions: Regions
    place: Float[Tensor, " R"]


def propose(found: Places, request: EditRequest, models: EditModels, config: EditConfig) -> Proposals:
    """Squares around the anchors, method step 3; with the option `fit_edges` and a caption, the edges of the square
    that is most the captioned thing are then moved to where they fit it."""
    regions = propose_regions(found.anchors, config.sizes, request.size_yx)
    look = _look_for_caption(found, request, models)
    signs = look(regions.boxes_xyxy)
    place = place_score(signs)
    if config.fit_edges and float(place.max()) > float(place.min()):
        best = int(place.argmax())
        x0, y0, x1, y1 = regions.boxes_xyxy[best].tolist()

        def score(boxes: Int[Tensor, "N 4"]) -> Float[Tensor, " N"]:
            return place_score(look(boxes), among=signs)

        fitted, place[best] = fit_edges((x0, y0, x1, y1), float(place[best]), score, request.size_yx)
        boxes = regions.boxes_xyxy.clone()
        boxes[best] = torch.tensor(with_room(fitted, found.outline_xyxy, request.size_yx))
        regions = replace(regions, boxes_xyxy=boxes)
    return Proposals(regions=regions, place=place)


def place_of(
    boxes_xyxy: Int[Tensor, "N 4"], found: Places, request: EditRequest, models: EditModels
) -> Float[Tensor, " N"]:
    """How much each box is the captioned thing, in spreads over these boxes; 0 for all where the caption is empty."""
    return place_score(_look_for_caption(found, request, models)(boxes_xyxy))


def _look_for_caption(
    found: Places, request: EditRequest, models: EditModels
) -> Callable[[Int[Tensor, "N 4"]], PlaceSigns]:
    """What gives the signs of the captioned thing for any boxes of the picture, in its pixels."""
    small = at_most(request.image, VIEW_PX)
    small_yx = (small.shape[1], small.shape[2])
    relevance, outline_xyxy = found.relevance, found.outline_xyxy
    if relevance is None and request.caption.strip():
        relevance = models.clip.relevance(request.image, request.caption)
    if outline_xyxy is not None:
        outline_xyxy = scale_boxes(torch.tensor([list(outline_xyxy)]), request.size_yx, small_yx)[0].tolist()

    def look(boxes_xyxy: Int[Tensor, "N 4"]) -> PlaceSigns:
        seen = scale_boxes(boxes_xyxy, request.size_yx, small_yx)
        return place_signs(small, seen, request.caption, relevance, models.clip, outline_xyxy)

    return look


def _middle(mask: Bool[Tensor, "H W"], grid_yx: tuple[int, int]) -> tuple[int, int]:
    """The cell in the middle of a mask's box."""
    x0, y0, x1, y1 = mask_box(mask)
    return (y0 + y1) * grid_yx[0] // (2 * mask.shape[0]), (x0 + x1) * grid_yx[1] // (2 * mask.shape[1])
