"""Where an edit of a picture may go: what is read from it before any inpainting. Method steps 1 and 2."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.regions import mask_box
from maskless.data.types import Anchors, EditRequest, PatchFeatures
from maskless.engine.things import named_things
from maskless.method.anchors import find_anchors
from maskless.models.pretrained import EditModels


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """features: of the picture. relevance: of each place to the caption; outline_xyxy: the box of the thing that it
    names, in pixels; both None where the caption is empty or has no say. anchors: the cells to edit around."""

    features: PatchFeatures
    relevance: Float[Tensor, "rows columns"] | None
    outline_xyxy: tuple[int, int, int, int] | None
    anchors: Anchors


def find_places(request: EditRequest, models: EditModels, config: EditConfig) -> Places:
    """Anchors by attention, and where the caption has a say by its relevance, the middle of the named thing first."""
    features = models.dino.features(request.image)
    relevance, outline, middle = None, None, None
    if config.anchor_source != "attention" and request.caption.strip():
        relevance = models.clip.relevance(request.image, request.caption)
        thing = named_things(request.image, features, request.caption, models.clip, relevance)
        if bool(thing.any()):
            outline = x0, y0, x1, y1 = mask_box(thing)
            rows, columns = features.grid_yx
            middle = (y0 + y1) * rows // (2 * request.size_yx[0]), (x0 + x1) * columns // (2 * request.size_yx[1])
    anchors = find_anchors(
        features.attention, relevance, count=config.anchors, source=config.anchor_source, first_yx=middle
    )
    return Places(features=features, relevance=relevance, outline_xyxy=outline, anchors=anchors)
