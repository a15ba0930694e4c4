"""Masks of the objects in a picture: of all objects, or of those that a caption names. Nothing is inpainted."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.instructions import phrases
from maskless.locating.view import REGION_MARGIN, PictureView
from maskless.method.object_masks import (
    Part,
    all_objects,
    one_part_each,
    part_boxes,
    salient_parts,
    square_around_peak,
    whole_objects,
)
from maskless.method.ranking import behind, location_score

LIKELY_PARTS = 8
"""How many salient parts CLIP compares with a phrase (docs/search.md)."""


def objects_in(view: PictureView) -> Bool[Tensor, "H W"]:
    """The mask of everything that is not background."""
    return view.cached("objects", lambda: all_objects(view.cells, view.small, view.size_yx))


def parts_in(view: PictureView) -> list[Part]:
    """The salient parts of the picture, computed once."""
    return view.cached("salient parts", lambda: salient_parts(view.cells))


def named_objects(view: PictureView, caption: str) -> Bool[Tensor, "h w"]:
    """The mask of the objects that a caption names: for each of its phrases, the salient part that fits it best.

    If nothing in the picture is salient, it is a square around the location that is most relevant to each phrase.
    The mask has the size of `view.reduced`.
    """
    return view.cached(f"objects named {caption}", lambda: _named_objects(view, caption))


def _named_objects(view: PictureView, caption: str) -> Tensor:
    named = phrases(caption)
    relevances = [view.relevance(phrase if len(named) > 1 else caption) for phrase in named]
    parts = parts_in(view)
    if not parts:
        squares = [square_around_peak(relevance, view.reduced_yx) for relevance in relevances]
        return torch.stack([torch.zeros(view.reduced_yx, dtype=torch.bool), *squares]).any(dim=0)
    boxes = part_boxes(parts, view.small_yx, margin=REGION_MARGIN)
    scores = [
        _fit_of_parts(view, boxes, phrase, relevance) for phrase, relevance in zip(named, relevances, strict=True)
    ]
    return whole_objects(one_part_each(scores, parts), view.cells, view.small, view.reduced_yx)


def _fit_of_parts(
    view: PictureView, boxes_xyxy: Int[Tensor, "N 4"], phrase: str, relevance: Float[Tensor, "rows columns"]
) -> Float[Tensor, " N"]:
    """How well salient parts fit a phrase. CLIP encodes the LIKELY_PARTS most relevant ones; the others rank behind."""
    cheap = location_score(view.signs(boxes_xyxy, phrase, relevance=relevance, encode=False))
    likely = cheap.argsort(descending=True, stable=True)[:LIKELY_PARTS].sort().values
    return behind(cheap, location_score(view.signs(boxes_xyxy[likely], phrase, relevance=relevance)), likely)
