"""Crops of a picture, and an edited crop pasted back: pixels outside stay the original's, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.boxes import Box
from maskless.data.errors import MasklessError
from maskless.data.masks import mask_weight, seam_weight

RING_PX = 2
"""How far around a mask a drawing is held against its surroundings."""


def crop_window(image: Float[Tensor, "3 H W"], window_xyxy: Box, size_px: int) -> Float[Tensor, "3 S S"]:
    """The window of an image in [0, 1], resized to size_px, in [0, 1]. Where it overhangs the picture, the picture's
    border is repeated."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = image.shape[1:]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        ys, xs = torch.arange(y0, y1).clamp(0, height - 1), torch.arange(x0, x1).clamp(0, width - 1)
        return resize(image[:, ys][:, :, xs], (size_px, size_px))
    return resize(image[:, y0:y1, x0:x1], (size_px, size_px))


def resize(image: Float[Tensor, "C H W"], size_yx: tuple[int, int]) -> Float[Tensor, "C h w"]:
    """Bicubic with antialiasing, in [0, 1] again afterwards; the very same tensor where nothing changes."""
    if tuple(image.shape[1:]) == tuple(size_yx):
        return image
    return F.interpolate(image[None], size=size_yx, mode="bicubic", antialias=True, align_corners=False)[0].clamp(0, 1)


def spread(values: Float[Tensor, "C H W"], known: Bool[Tensor, "H W"]) -> Float[Tensor, "C H W"]:
    """Known values as they are, and a smooth continuation of the nearest of them everywhere else (pull-push)."""
    weight = known.to(values)[None, None]
    levels = [(values[None] * weight, weight)]
    while max(levels[-1][1].shape[2:]) > 1:
        levels.append(tuple(F.avg_pool2d(level, 2, ceil_mode=True) for level in levels[-1]))  # type: ignore[arg-type]
    total, weight = levels.pop()
    result = total / weight.clamp(min=1e-12)
    for total, weight in reversed(levels):
        coarse = F.interpolate(result, size=weight.shape[2:], mode="bilinear", align_corners=False)
        result = torch.where(weight > 0, total / weight.clamp(min=1e-12), coarse)
    return result[0]


def met(
    drawn: Float[Tensor, "3 S S"], source: Float[Tensor, "3 S S"], mask: Bool[Tensor, "1 S S"]
) -> Float[Tensor, "3 S S"]:
    """A drawing whose colours are shifted smoothly, so that around the mask they are the source's.

    An inpainting model gives the surroundings back a little lighter or darker, and what is inside with them: pasted as
    it is, a region shows as a patch. drawn, source: the same window, in [0, 1].
    """
    near = F.max_pool2d(mask.to(torch.float32)[None], 2 * RING_PX + 1, stride=1, padding=RING_PX)[0, 0] > 0
    ring = near & ~mask[0]
    if not bool(ring.any()):
        return drawn
    return (drawn + spread(source - drawn, ring)).clamp(0, 1)


def paste_back(
    image: Float[Tensor, "3 H W"],
    crop: Float[Tensor, "3 S T"],
    window_xyxy: Box,
    box_xyxy: Box,
    *,
    feather: float,
    mask: Bool[Tensor, "H W"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """The picture with the box's part of an edited window put in, method step 7; differentiable in `crop`.

    mask: what may change, inside the box; None for all of the box. Elsewhere the values are the image's own, not
    recomputed. Image and crop in [0, 1].
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    weight = _weight(mask, box_xyxy, (image.shape[1], image.shape[2]), feather).to(image)
    edited = _box_of_window(crop, window_xyxy, box_xyxy).to(image)
    result, old = image.clone(), image[:, y0:y1, x0:x1]
    result[:, y0:y1, x0:x1] = torch.where(weight > 0, weight * edited + (1 - weight) * old, old)
    return result


def paste_pixels(
    original: np.ndarray,
    crop: Float[Tensor, "3 S T"],
    window_xyxy: Box,
    box_xyxy: Box,
    *,
    feather: float,
    mask: Bool[Tensor, "H W"] | None = None,
) -> np.ndarray:
    """`paste_back` in whole numbers: the original's pixels, bit for bit, outside the box or the mask.

    Args:
        original: [H, W, 3], uint8 or uint16.
    Returns:
        A new array of the same shape and depth.
    """
    if original.ndim != 3 or original.shape[2] != 3 or original.dtype not in (np.uint8, np.uint16):
        raise MasklessError(f"pixels must be [H, W, 3] uint8 or uint16, got {original.shape} {original.dtype}")
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    white = np.iinfo(original.dtype).max
    weight = _weight(mask, box_xyxy, original.shape[:2], feather)
    result = original.copy()
    for channel in range(3):  # one at a time: a window of an 8000-pixel picture is 250 MB of floats for each
        old = torch.from_numpy(original[y0:y1, x0:x1, channel].astype(np.float32)) / white
        new = _box_of_window(crop[channel : channel + 1], window_xyxy, box_xyxy)[0]
        blended = (old + weight * (new - old)) * white
        result[y0:y1, x0:x1, channel] = blended.round().clamp(0, white).numpy().astype(original.dtype)
    return result


def _box_of_window(crop: Tensor, window_xyxy: Box, box_xyxy: Box) -> Tensor:
    """The box's part of an edited window, at the picture's resolution: [C, S, S] -> [C, box height, box width]."""
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    left, top, right, bottom = (int(v) for v in window_xyxy)
    window = resize(crop, (bottom - top, right - left))
    return window[:, y0 - top : y1 - top, x0 - left : x1 - left]


def _weight(mask: Tensor | None, box_xyxy: Box, size_yx: tuple[int, int], feather: float) -> Tensor:
    if mask is None:
        return seam_weight(box_xyxy, size_yx, feather)
    return mask_weight(mask, box_xyxy, feather)
