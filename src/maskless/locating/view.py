"""One picture and the features of it that DINO and CLIP compute, each computed once, when it is first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.boxes import Box, box_iou, corners, inside_less_outside, scale_boxes
from maskless.data.instructions import phrases
from maskless.data.paste import averaged_source, shrunk_to
from maskless.data.picture import ImageLike, load_image
from maskless.data.types import Detections, LocationSigns, PatchFeatures
from maskless.method.object_masks import Cells
from maskless.models.clip import Clip, RelevanceCrops
from maskless.models.encoders import Encoders

VIEW_PX = 512
"""Maximum longer side, in pixels, of the pictures that CLIP is given. CLIP's own input is smaller still."""
GROUNDED_PX = 1333
"""Maximum longer side, in pixels, of the picture that a grounder is given. No grounder's own input is larger."""
REGION_MARGIN = 0.15
"""Margin around a region or an object in the crops that CLIP encodes, as a share of its longer side."""

Value = TypeVar("Value")


class PictureView:
    """A picture, and what DINO and CLIP compute from it. Many edits of the same picture can share one view.

    Nothing is computed on construction. A view is valid only for the models that it was made with.

    source: the picture at its original resolution.
    """

    def __init__(self, image: ImageLike, models: Encoders, *, larger: PictureView | None = None) -> None:
        """larger: the view of which this one is the `small_view`; what a grounder found in it holds here too."""
        self.source, self._models, self._larger = load_image(image), models, larger
        self._cache: dict[str, object] = {}

    def made_with(self, models: Encoders) -> bool:
        """Whether the features are those of these models."""
        mine = self._models
        return mine.dino is models.dino and mine.clip is models.clip and mine.grounder is models.grounder

    @property
    def image(self) -> Float[Tensor, "3 H W"]:
        """The whole picture as floats in [0, 1]; see `SourceImage.rgb`."""
        return self.source.rgb

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.source.size_yx

    @property
    def clip(self) -> Clip:
        """The CLIP that encodes the picture."""
        return self._models.clip

    def cached(self, key: str, compute: Callable[[], Value]) -> Value:
        """The value that `compute` returns; it is computed at the first call with this key and then kept.

        It is computed outside `torch.inference_mode`, even if the caller runs under it, so that AnchorNet can learn
        from it.
        """
        if key not in self._cache:
            with torch.inference_mode(False), torch.no_grad():
                self._cache[key] = compute()
        return self._cache[key]  # type: ignore[return-value]

    def shrunk(self, longer_px: int) -> Float[Tensor, "3 h w"]:
        """The picture, resized to a longer side of `longer_px` if it is larger."""
        return self.cached(
            f"shrunk to {longer_px}", lambda: _outside_inference_mode(shrunk_to(self.reduced, longer_px))
        )

    @property
    def reduced(self) -> Float[Tensor, "3 h w"]:
        """The picture itself, or a large one averaged over squares of pixels (`averaged`), from which all that the
        models get is computed."""
        return self.cached("reduced", lambda: averaged_source(self.source))

    @property
    def reduced_yx(self) -> tuple[int, int]:
        """Height and width of `reduced`."""
        return self.reduced.shape[1], self.reduced.shape[2]

    @property
    def small(self) -> Float[Tensor, "3 h w"]:
        """The picture with a longer side of at most VIEW_PX, which CLIP encodes."""
        return self.shrunk(VIEW_PX)

    @property
    def small_yx(self) -> tuple[int, int]:
        """Height and width of `small`."""
        return self.small.shape[1], self.small.shape[2]

    @property
    def small_view(self) -> PictureView:
        """A view of `small`; this view itself if the picture is no larger."""
        if self.small_yx == self.size_yx:
            return self
        return self.cached("small view", lambda: PictureView(self.small, self._models, larger=self))

    def scaled(self, boxes_xyxy: Int[Tensor, "N 4"]) -> Int[Tensor, "N 4"]:
        """Boxes in pixels of the picture, converted to pixels of `small`."""
        return scale_boxes(boxes_xyxy, self.size_yx, self.small_yx)

    @property
    def features(self) -> PatchFeatures:
        """DINO's patch features and attention (method step 1)."""
        return self.cached("features", lambda: self._models.dino.features(self.reduced))

    @property
    def cells(self) -> Cells:
        """The features and the mean colour of each cell of DINO's grid."""
        return self.cached("cells", self._cells)

    def _cells(self) -> Cells:
        colours = F.interpolate(self.reduced[None], size=self.features.grid_yx, mode="area")[0]
        return Cells(features=self.features.features, colours=colours)

    @property
    def embedding(self) -> Float[Tensor, " D"]:
        """CLIP's embedding of the whole picture, of length 1."""
        return self.cached("embedding", lambda: self.clip.encode(self.small[None]).embedding[0])

    def text(self, text: str) -> Float[Tensor, " D"]:
        """CLIP's embedding of a text, of length 1."""
        return self.cached(f"text {text}", lambda: self.clip.encode_text(text))

    def relevance(self, caption: str) -> Float[Tensor, "rows columns"]:
        """The relevance of each part of the picture to a caption, from 0 to 1. The caption must not be empty."""
        crops = self.relevance_crops
        return self.cached(f"relevance {caption}", lambda: self.clip.relevance(crops, self.text(caption)))

    @property
    def relevance_crops(self) -> RelevanceCrops:
        """CLIP's embeddings of the crops that the relevance to any caption is computed from."""
        return self.cached("relevance crops", lambda: self.clip.relevance_crops(self.reduced))

    def location_signs(
        self, boxes_xyxy: Int[Tensor, "N 4"], caption: str, *, outline_xyxy: Box | None = None, encode: bool = True
    ) -> LocationSigns:
        """`signs` of boxes that are given in pixels of the picture, as is the outline's box."""
        if outline_xyxy is not None:
            outline_xyxy = self.scaled(torch.tensor([list(outline_xyxy)]))[0].tolist()
        return self.signs(self.scaled(boxes_xyxy), caption, outline_xyxy=outline_xyxy, encode=encode)

    def signs(
        self,
        boxes_xyxy: Int[Tensor, "N 4"],
        caption: str,
        *,
        relevance: Float[Tensor, "rows columns"] | None = None,
        outline_xyxy: Box | None = None,
        encode: bool = True,
    ) -> LocationSigns:
        """The signs of how well each box fits the object that a caption names.

        CLIP encodes each box, for the first sign; nothing is inpainted.

        Args:
            boxes_xyxy: half-open, in pixels of `small`.
            caption: if it is empty, every sign is 0.
            relevance: a map to use instead of the relevance of the caption.
            outline_xyxy: the box of the object's outline, half-open, in pixels of `small`; None if it is not known.
            encode: False leaves the first sign 0 for all boxes, so that CLIP encodes nothing.
        """
        zeros = torch.zeros(len(boxes_xyxy))
        if not caption.strip():
            return LocationSigns(shown=zeros, focus=zeros, fit=zeros, detected=zeros)
        relevance = self.relevance(caption) if relevance is None else relevance
        return LocationSigns(
            shown=self.crop_embeddings(boxes_xyxy) @ self.text(caption) if encode else zeros,
            focus=inside_less_outside(relevance, boxes_xyxy, self.small_yx),
            fit=zeros if outline_xyxy is None else box_iou(boxes_xyxy, outline_xyxy),
            detected=_detected(boxes_xyxy, self.detections(caption)),
        )

    def detections(self, caption: str) -> Detections:
        """What the grounder finds for the phrases of a caption, best first, in pixels of `small`; nothing without a
        grounder or a caption."""
        if self._larger is not None:
            return self._larger.detections(caption)
        grounder = self._models.grounder
        named = () if grounder is None else phrases(caption)
        found = [self._detections_of(phrase) for phrase in named]
        boxes = torch.cat([torch.zeros(0, 4, dtype=torch.long), *(each.boxes_xyxy for each in found)])
        score = torch.cat([torch.zeros(0), *(each.score for each in found)])
        order = score.argsort(descending=True, stable=True)
        return Detections(boxes_xyxy=boxes[order], score=score[order])

    def _detections_of(self, phrase: str) -> Detections:
        return self.cached(f"detections of {phrase}", lambda: self._ground(phrase))

    def _ground(self, phrase: str) -> Detections:
        assert self._models.grounder is not None
        image = self.shrunk(GROUNDED_PX)
        found = self._models.grounder.find(image, phrase)
        boxes = scale_boxes(found.boxes_xyxy, (image.shape[1], image.shape[2]), self.small_yx)
        return Detections(boxes_xyxy=boxes, score=found.score)

    def crop_embeddings(self, boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """CLIP's embedding of each box of `small`, each computed once. boxes_xyxy: half-open, in pixels of `small`."""
        known: dict[tuple[int, ...], Tensor] = self.cached("crops", dict)
        boxes = [corners(box) for box in boxes_xyxy]
        new = [number for number, box in enumerate(boxes) if box not in known]
        if new:
            with torch.inference_mode(False):
                found = self.clip.encode_crops(self.small, boxes_xyxy[new])
            known.update(zip((boxes[number] for number in new), found, strict=True))
        return torch.stack([known[box] for box in boxes])


def _detected(boxes_xyxy: Int[Tensor, "N 4"], detections: Detections) -> Float[Tensor, " N"]:
    """The sign `detected` of `LocationSigns`. Both kinds of boxes are in pixels of the same picture."""
    if not len(detections):
        return torch.zeros(len(boxes_xyxy))
    share = detections.score / detections.score.max().clamp(min=1e-12)
    overlaps = torch.stack([box_iou(boxes_xyxy, box) for box in detections.boxes_xyxy.tolist()])
    return (share[:, None] * overlaps).max(dim=0).values


def with_margin(box_xyxy: Sequence[int], size_yx: tuple[int, int]) -> Box:
    """The box extended on every side by REGION_MARGIN of its longer side, clipped to the picture."""
    x0, y0, x1, y1 = box_xyxy
    margin = round(REGION_MARGIN * max(x1 - x0, y1 - y0))
    return max(0, x0 - margin), max(0, y0 - margin), min(size_yx[1], x1 + margin), min(size_yx[0], y1 + margin)


def _outside_inference_mode(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it if it was created under `torch.inference_mode`, where it could carry no gradient."""
    return tensor.clone() if tensor.is_inference() else tensor
