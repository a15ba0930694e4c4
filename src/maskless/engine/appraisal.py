"""What CLIP makes of one picture: where the captioned thing is, and the losses of edited versions, method step 8."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.regions import Box, box_iou, crop_window, inside_less_outside, resize
from maskless.data.types import Losses, PlaceSigns
from maskless.method import losses as method_losses
from maskless.models.clip import Clip, draw_views

VIEW_PX = 512
"""CLIP looks at composites of at most this longer side; its own input is smaller still."""
REGION_MARGIN = 0.15
"""What CLIP sees around a region or a thing, as a share of its longer side."""


class Appraiser:
    """Knows the source and the texts of one edit, and appraises pictures by them.

    prompt, caption: embeddings of the texts. source: of the source picture, every view.
    """

    def __init__(
        self, picture: Float[Tensor, "3 h w"], caption: str, prompt: str, clip: Clip, config: EditConfig, *, seed: int
    ) -> None:
        """picture: the source, in [0, 1], at most VIEW_PX wide or high. seed: of the augmented views."""
        self._clip, self._config = clip, config
        self._views = draw_views(config.views, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            self.source = clip.encode_views(picture[None], self._views)
            self.prompt = clip.encode_text(prompt)
            self.caption = clip.encode_text(caption)

    def losses(self, pictures: Float[Tensor, "N 3 h w"], boxes_xyxy: Int[Tensor, "N 4"]) -> Losses:
        """Method step 8 for composites in [0, 1], each edited in its box, in pixels; carries gradients."""
        config = self._config
        views = self._clip.encode_views(pictures, self._views)
        return method_losses.combine(
            method_losses.clip_loss(views.embedding, self.prompt),
            method_losses.directional_loss(views.embedding, self.source.embedding[0], self.prompt, self.caption),
            method_losses.structure_loss(views.tokens, self.source.tokens[0]),
            method_losses.local_loss(self.regions(pictures, boxes_xyxy), self.prompt),
            alpha=config.alpha,
            beta=config.beta,
            gamma=config.gamma,
            delta=config.delta,
        )

    def regions(self, pictures: Float[Tensor, "N 3 h w"], boxes_xyxy: Int[Tensor, "N 4"]) -> Float[Tensor, "N D"]:
        """Embedding of each picture's box, seen with a margin around it; carries gradients."""
        size, size_yx = self._clip.image_px, (pictures.shape[2], pictures.shape[3])
        windows = [with_margin(box, size_yx) for box in boxes_xyxy.tolist()]
        seen = [crop_window(each, window, size) for each, window in zip(pictures, windows, strict=True)]
        return self._clip.encode(torch.stack(seen)).embedding


@torch.no_grad()
def place_signs(
    picture: Float[Tensor, "3 h w"],
    boxes_xyxy: Int[Tensor, "N 4"],
    caption: str,
    relevance: Float[Tensor, "rows columns"] | None,
    clip: Clip,
    outline_xyxy: Box | None = None,
) -> PlaceSigns:
    """How much each box is the thing that a caption names; two CLIP images a box, and no inpainting.

    picture: in [0, 1], at most VIEW_PX wide or high; boxes in its pixels. relevance: CLIP's map of the caption; None
    where there is no caption, and then every sign is 0. outline_xyxy: the box of the thing's outline, if it is known.
    """
    nothing = torch.zeros(len(boxes_xyxy))
    if relevance is None:
        return PlaceSigns(shown=nothing, hidden=nothing, focus=nothing, fit=nothing)
    text = clip.encode_text(caption)
    return PlaceSigns(
        shown=clip.encode_crops(picture, boxes_xyxy) @ text,
        hidden=-(clip.encode_without(picture, boxes_xyxy) @ text),
        focus=inside_less_outside(relevance, boxes_xyxy, (picture.shape[1], picture.shape[2])),
        fit=nothing if outline_xyxy is None else box_iou(boxes_xyxy, outline_xyxy),
    )


def with_margin(box_xyxy: Sequence[int], size_yx: tuple[int, int]) -> Box:
    """The box with REGION_MARGIN more on every side, inside the picture."""
    x0, y0, x1, y1 = box_xyxy
    margin = round(REGION_MARGIN * max(x1 - x0, y1 - y0))
    return max(0, x0 - margin), max(0, y0 - margin), min(size_yx[1], x1 + margin), min(size_yx[0], y1 + margin)


def at_most(image: Float[Tensor, "3 H W"], longer_px: int) -> Float[Tensor, "3 h w"]:
    """The image at its own size, or smaller so that its longer side is longer_px."""
    height, width = image.shape[1:]
    scale = min(1.0, longer_px / max(height, width))
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))
