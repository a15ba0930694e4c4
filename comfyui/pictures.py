"""Between ComfyUI's tensors and those of Maskless.

An IMAGE is [B, H, W, C] of floats, usually in [0, 1], with C = 3 or 4 (alpha); a MASK is [B, H, W] or [H, W], 1 where
to edit. Maskless takes one picture [3, H, W] in [0, 1] at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskless import MasklessError


def pictures_of(image: Tensor) -> list[Tensor]:
    """The pictures of an IMAGE, each [3, H, W] in [0, 1]; an alpha channel is left out."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise MasklessError(f"an IMAGE must be [B, H, W, 3] or [B, H, W, 4], got {list(image.shape)}")
    return list(image[..., :3].movedim(-1, 1).to("cpu", torch.float32).clamp(0, 1).contiguous())


def masks_of(mask: Tensor | None, image: Tensor) -> list[Tensor | None]:
    """For each picture of an IMAGE its mask, bool [H, W]; None where there is no mask, or an empty one.

    ComfyUI's Load Image gives an empty mask of 64 x 64 pixels for a picture without transparency, so an empty mask can
    have any size.
    """
    count, height, width = image.shape[:3]
    if mask is None:
        return [None] * count
    masks = (mask[None] if mask.ndim == 2 else mask).cpu() > 0.5
    if masks.ndim != 3 or len(masks) not in (1, count):
        raise MasklessError(f"a MASK must be [1, H, W] or [{count}, H, W] here, got {list(mask.shape)}")
    if bool(masks.any()) and tuple(masks.shape[1:]) != (height, width):
        raise MasklessError(
            f"the mask must have the picture's size, {width} x {height}, got {masks.shape[2]} x {masks.shape[1]}"
        )
    each = [one if bool(one.any()) else None for one in masks]
    return each * count if len(each) == 1 else each


def merged(original: Tensor, edited: Tensor, touched: Tensor) -> Tensor:
    """One picture of an IMAGE with the edit where it may differ; all other values are the original's, bit for bit.

    original: [H, W, 3 or 4], of any number format and range. edited: [3, H, W] in [0, 1]. touched: bool [H, W]. What
    was edited is opaque.
    """
    drawn = edited.movedim(0, -1).to(original)
    if original.shape[-1] == 4:
        drawn = torch.cat([drawn, torch.ones_like(drawn[..., :1])], dim=-1)
    return torch.where(touched.to(original.device)[..., None], drawn, original)
