"""The region of a fill, once it is known: what is drawn on, in which window, and which pixels may change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from maskless.data.masks import crop_amount, crop_mask, enlarge_mask
from maskless.data.paste import crop_window
from maskless.data.types import EditRequest
from maskless.engine.painters import Paint
from maskless.engine.scoring import ClipScorer
from maskless.locating.view import PictureView
from maskless.method.changes import changed


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedRegion:
    """A request with its mask and the prompt that the model gets, and the maps that the mask was found with, if any."""

    request: EditRequest
    attention: Float[Tensor, "h w"] | None = None
    relevance: Float[Tensor, "rows columns"] | None = None


Locate = Callable[[PictureView, EditRequest], NamedRegion]


@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """Everything that drawing a candidate needs, once the region is known.

    mask: the pixels that may change. box_xyxy: the bounding box of the mask. window_xyxy: the square that the model
    gets, which may extend beyond the picture; both half-open, in pixels. picture: the picture to draw on, in [0, 1]; if
    the plan erases, the surroundings are already continued under the mask. direction: the embedding of the prompt, or
    for a redrawing its difference from that of the caption; candidates are ranked by their product with it. replaced:
    the object that the drawing replaces; None if there is none, or nobody asks for it.
    """

    region: NamedRegion
    mask: Bool[Tensor, "H W"]
    box_xyxy: tuple[int, int, int, int]
    window_xyxy: tuple[int, int, int, int]
    picture: Float[Tensor, "3 H W"]
    scorer: ClipScorer
    direction: Float[Tensor, " D"]
    paint: Paint
    replaced: Bool[Tensor, "H W"] | None = None

    def crop(self, side: int, cell_px: int) -> tuple[Float[Tensor, "3 S S"], Float[Tensor, "1 S S"]]:
        """The window resized to this side, in [0, 1], and the mask in it, of 0 and 1, or with values between them if
        the mask is soft. The model draws whole cells of the latents, so the mask includes every cell that it touches.
        """
        mask = crop_mask(self.mask, self.window_xyxy, side).to(torch.float32)
        amount = self.region.request.amount
        if amount is not None:
            mask = mask * crop_amount(amount, self.window_xyxy, side).clamp(min=1e-3)
        cells = F.max_pool2d(mask[None], cell_px, ceil_mode=True)
        whole = F.interpolate(cells, scale_factor=cell_px)[0, :, :side, :side]
        return crop_window(self.picture, self.window_xyxy, side), whole

    def changed_by(self, crop: UInt8[Tensor, "3 S S"]) -> Bool[Tensor, "H W"]:
        """The pixels of the mask in which a drawn window shows something else than the picture."""
        side, (x0, y0, x1, y1) = crop.shape[-1], self.box_xyxy
        region, replaced = (
            None if mask is None else crop_mask(mask, self.window_xyxy, side)[0] for mask in (self.mask, self.replaced)
        )
        assert region is not None
        picture = crop_window(self.picture, self.window_xyxy, side)
        small = changed(picture, crop.to(torch.float32) / 255, region, replaced)
        mask = torch.zeros_like(self.mask)
        mask[y0:y1, x0:x1] = enlarge_mask(small, self.window_xyxy, self.box_xyxy)
        mask &= self.mask
        return mask if bool(mask.any()) else self.mask
