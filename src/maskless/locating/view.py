"""What is read from one picture, once: the picture at the size that is looked at, and the signs of a location."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.boxes import Box, box_iou, inside_less_outside
from maskless.data.paste import resize
from maskless.data.types import PlaceSigns
from maskless.models.clip import Clip

VIEW_PX = 512
"""CLIP looks at composites of at most this longer side; its own input is smaller still."""
REGION_MARGIN = 0.15
"""What CLIP sees around a region or a thing, as a share of its longer side."""


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
