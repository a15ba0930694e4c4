"""Cropping a picture and pasting an edited crop back, so that all pixels outside stay as they were, bit for bit."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.boxes import Box
from maskless.data.errors import MasklessError
from maskless.data.masks import mask_box, mask_weight, seam_weight
from maskless.data.picture import BAND_ROWS, SourceImage, as_floats

Region: TypeAlias = Bool[Tensor, "H W"] | Float[Tensor, "H W"]
"""The pixels that may change, or for a soft mask how much each may, 0 to 1."""
SOFT_EDGE = 0.25
"""Where a soft mask has a smaller value, what was drawn is blended with the picture, so that no outline is visible."""
LARGE_PX = 1536
"""A picture or window whose shorter side is at least twice this is first averaged over squares of pixels, down to this
shorter side or a little more, before it is resized to the input of a model."""
RING_PX = 2
"""Width of the ring around a mask in which `match_surroundings` compares the edit with the source."""


def crop_window(image: Float[Tensor, "3 H W"], window_xyxy: Box, size_px: int) -> Float[Tensor, "3 S S"]:
    """The window of an image, resized to size_px; all values in [0, 1]. Where the window extends beyond the picture,
    the pixels of the picture's border are repeated."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = image.shape[1:]
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        ys, xs = torch.arange(y0, y1).clamp(0, height - 1), torch.arange(x0, x1).clamp(0, width - 1)
        return resize(image[:, ys][:, :, xs], (size_px, size_px))
    return resize(averaged(image[:, y0:y1, x0:x1], max(LARGE_PX, 2 * size_px)), (size_px, size_px))


def crop_source(source: SourceImage, window_xyxy: Box, size_px: int) -> Float[Tensor, "3 S S"]:
    """`crop_window` of a loaded picture, of which at most the window becomes floats."""
    x0, y0, x1, y1 = (int(v) for v in window_xyxy)
    height, width = source.size_yx
    inside = (max(0, x0), max(0, y0), min(width, x1), min(height, y1))
    if inside == (x0, y0, x1, y1):
        return resize(averaged_source(source, inside, max(LARGE_PX, 2 * size_px)), (size_px, size_px))
    left, top = inside[:2]
    return crop_window(source.crop(inside), (x0 - left, y0 - top, x1 - left, y1 - top), size_px)


def resize(image: Float[Tensor, "C H W"], size_yx: tuple[int, int]) -> Float[Tensor, "C h w"]:
    """Bicubic resizing with antialiasing, clamped to [0, 1]; the same tensor if it already has this size."""
    if tuple(image.shape[1:]) == tuple(size_yx):
        return image
    resized = F.interpolate(image[None], size=size_yx, mode="bicubic", antialias=True, align_corners=False)[0]
    return resized.clamp(0, 1) if resized.requires_grad else resized.clamp_(0, 1)


def averaged(image: Float[Tensor, "3 H W"], shorter_px: int = LARGE_PX) -> Float[Tensor, "3 h w"]:
    """The image averaged over squares of as many whole pixels as leave a shorter side of at least `shorter_px`.

    It is the same tensor if its shorter side is less than twice that, or if gradients flow through it. To average a
    large picture takes a quarter of the time of bicubic resizing.
    """
    height, width = image.shape[1:]
    factor = min(height, width) // shorter_px
    if factor < 2 or image.requires_grad:
        return image
    import cv2  # only large pictures need it

    size_xy = width // factor, height // factor
    planes = [cv2.resize(plane.numpy(), size_xy, interpolation=cv2.INTER_AREA) for plane in image]
    return torch.from_numpy(np.stack(planes))


def averaged_source(
    source: SourceImage, box_xyxy: Box | None = None, shorter_px: int = LARGE_PX
) -> Float[Tensor, "3 h w"]:
    """`averaged` of a loaded picture, or of a box of it. The averages of integer pixels are rounded to their depth, so
    that no copy of a large picture as floats is needed."""
    height, width = source.size_yx
    x0, y0, x1, y1 = box_xyxy or (0, 0, width, height)
    factor = min(x1 - x0, y1 - y0) // shorter_px
    if factor < 2 or source.floats is not None:
        return averaged(source.rgb if box_xyxy is None else source.crop((x0, y0, x1, y1)), shorter_px)
    import cv2  # only large pictures need it

    size_xy = (x1 - x0) // factor, (y1 - y0) // factor
    return as_floats(cv2.resize(source.pixels[y0:y1, x0:x1], size_xy, interpolation=cv2.INTER_AREA))


def shrunk_to(image: Float[Tensor, "3 H W"], longer_px: int) -> Float[Tensor, "3 h w"]:
    """The image with its longer side reduced to `longer_px`, or the same tensor if it is not longer than that."""
    image = averaged(image, max(LARGE_PX, 2 * longer_px))
    height, width = image.shape[1:]
    scale = min(1.0, longer_px / max(height, width))
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def continue_outwards(values: Float[Tensor, "C H W"], known: Bool[Tensor, "H W"]) -> Float[Tensor, "C H W"]:
    """The known values, and elsewhere a smooth continuation of the nearest known ones (the pull-push algorithm)."""
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


def with_surroundings_continued(
    image: Float[Tensor, "3 H W"], mask: Bool[Tensor, "H W"], window_xyxy: Box
) -> Float[Tensor, "3 H W"]:
    """The picture with the surroundings continued under the mask, from the pixels in the window.

    It is unchanged if the mask covers the whole window.
    """
    x0, y0, x1, y1 = (max(0, edge) for edge in window_xyxy)
    known = ~mask[y0:y1, x0:x1]
    if not bool(known.any()):
        return image
    result = image.clone()
    result[:, y0:y1, x0:x1] = continue_outwards(image[:, y0:y1, x0:x1], known)
    return result


def match_surroundings(
    drawn: Float[Tensor, "3 S S"], source: Float[Tensor, "3 S S"], mask: Bool[Tensor, "1 S S"]
) -> Float[Tensor, "3 S S"]:
    """The drawn window with its colours shifted smoothly, so that just outside the mask they equal those of the source.

    An inpainting model changes the brightness of the whole window slightly, inside and outside of the mask. Without
    this correction the pasted region is visible as a patch. drawn, source: the same window, in [0, 1].
    """
    near = F.max_pool2d(mask.to(torch.float32)[None], 2 * RING_PX + 1, stride=1, padding=RING_PX)[0, 0] > 0
    ring = near & ~mask[0]
    if not bool(ring.any()):
        return drawn
    return (drawn + continue_outwards(source - drawn, ring)).clamp(0, 1)


def paste_back(
    image: Float[Tensor, "3 H W"],
    crop: Float[Tensor, "3 S T"],
    window_xyxy: Box,
    box_xyxy: Box,
    *,
    feather: float,
    mask: Region | None = None,
) -> Float[Tensor, "3 H W"]:
    """The picture with the box replaced by that part of an edited window (method step 7); differentiable in `crop`.

    image, crop: in [0, 1]. mask: the pixels that may change, inside the box; None for the whole box. All other values
    are copied from the image and not recomputed.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    weight = _weight(mask, box_xyxy, (image.shape[1], image.shape[2]), feather).to(image)
    edited = _box_of_window(crop, window_xyxy, box_xyxy).to(image)
    result, old = image.clone(), image[:, y0:y1, x0:x1]
    result[:, y0:y1, x0:x1] = torch.where(weight > 0, weight * edited + (1 - weight) * old, old)
    return result


def paste_small(
    small: Float[Tensor, "3 h w"],
    crop: Float[Tensor, "3 S S"],
    window_xyxy: Box,
    mask: Bool[Tensor, "H W"],
    feather: float,
) -> Float[Tensor, "3 h w"]:
    """A small copy of a picture with the masked part of an edited window: roughly what `paste_back` gives at full size.

    small, crop: in [0, 1]. window_xyxy, mask: in pixels of the picture itself; the window may extend beyond
    it. A pixel of the copy may change if any pixel of the picture that it stands for may.
    """
    size = (small.shape[1], small.shape[2])
    reduced = F.adaptive_max_pool2d(mask[None].to(torch.float32), size)[0] > 0
    box, factors = mask_box(reduced), (size[1] / mask.shape[1], size[0] / mask.shape[0]) * 2
    x0, y0, x1, y1 = (edge * factor for edge, factor in zip(window_xyxy, factors, strict=True))
    window = (  # whole pixels, and never smaller than the box
        min(math.floor(x0), box[0]), min(math.floor(y0), box[1]), max(math.ceil(x1), box[2]), max(math.ceil(y1), box[3])
    )  # fmt: skip
    return paste_back(small, crop, window, box, feather=feather, mask=reduced)


def paste_pixels(
    original: np.ndarray,
    crop: Float[Tensor, "3 S T"],
    window_xyxy: Box,
    box_xyxy: Box,
    *,
    feather: float,
    mask: Region | None = None,
    alpha: np.ndarray | None = None,
) -> np.ndarray:
    """`paste_back` on integer pixels: outside the box or the mask they equal the original's, bit for bit.

    Args:
        original: [H, W, 3], uint8 or uint16.
        alpha: [H, W] of the same type: the opacity of the original, if the edit is to be opaque (`paste_alpha`). The
            less opaque the original is at a pixel of the seam, the less of its colour remains there.
    Returns:
        A new array of the same shape and depth.
    Raises:
        MasklessError: an array of another shape or type.
    """
    if original.ndim != 3 or original.shape[2] != 3 or original.dtype not in (np.uint8, np.uint16):
        raise MasklessError(f"pixels must be [H, W, 3] uint8 or uint16, got {original.shape} {original.dtype}")
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    white = np.iinfo(original.dtype).max
    weight = _weight(mask, box_xyxy, original.shape[:2], feather)
    if alpha is not None:
        opacity = _fractions(alpha[y0:y1, x0:x1])
        # The seam shows the edit over the original, each by its opacity (Porter and Duff's operator "over").
        share = weight / (weight + (1 - weight) * opacity).clamp(min=1e-12)
        weight = torch.where(opacity < 1, share, weight)
    result = original.copy()
    for channel in range(3):  # one at a time, because one channel of an 8000-pixel picture takes 250 MB as floats
        new = _box_of_window(crop[channel : channel + 1], window_xyxy, box_xyxy)[0]
        for top in range(0, y1 - y0, BAND_ROWS):
            rows = slice(top, top + BAND_ROWS)
            inside = (slice(y0 + top, min(y1, y0 + top + BAND_ROWS)), slice(x0, x1), channel)
            old = torch.from_numpy(original[inside].astype(np.float32)) / white
            blended = (old + weight[rows] * (new[rows] - old)) * white
            result[inside] = blended.round().clamp(0, white).numpy().astype(original.dtype)
    return result


def paste_alpha(alpha: np.ndarray, box_xyxy: Box, *, feather: float, mask: Region | None = None) -> np.ndarray:
    """The alpha channel of a picture whose box or mask was painted: opaque there, with the seam of `paste_pixels`.

    alpha: [H, W], uint8 or uint16. Outside the box or the mask it does not change.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    white = np.iinfo(alpha.dtype).max
    height, width = alpha.shape
    weight = _weight(mask, box_xyxy, (height, width), feather)
    opacity = _fractions(alpha[y0:y1, x0:x1])
    result = alpha.copy()
    painted = ((weight + (1 - weight) * opacity) * white).round().clamp(0, white)
    result[y0:y1, x0:x1] = np.maximum(alpha[y0:y1, x0:x1], painted.numpy().astype(alpha.dtype))
    return result


def _fractions(values: np.ndarray) -> Tensor:
    """Integer values as floats in [0, 1]."""
    return torch.from_numpy(values.astype(np.float32)) / np.iinfo(values.dtype).max


def _box_of_window(crop: Tensor, window_xyxy: Box, box_xyxy: Box) -> Tensor:
    """The part of an edited window that lies in the box, at the picture's resolution.

    [C, S, S] -> [C, box height, box width].
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    left, top, right, bottom = (int(v) for v in window_xyxy)
    size, rows, columns = (bottom - top, right - left), slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    if crop.requires_grad or right - left <= crop.shape[2]:
        return resize(crop, size)[:, rows, columns]
    # Resizing is separable, so the columns that are not needed can be left out before the rows are computed.
    wide = F.interpolate(crop[None], size=(crop.shape[1], size[1]), mode="bicubic", antialias=True)[..., columns]
    if size[0] != crop.shape[1]:
        wide = F.interpolate(wide, size=(size[0], x1 - x0), mode="bicubic", antialias=True)
    return wide[0, :, rows].clamp_(0, 1)


def _weight(mask: Tensor | None, box_xyxy: Box, size_yx: tuple[int, int], feather: float) -> Tensor:
    if mask is None:
        return seam_weight(box_xyxy, size_yx, feather)
    if not mask.is_floating_point():
        return mask_weight(mask, box_xyxy, feather)
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    return mask_weight(mask > 0, box_xyxy, feather) * (mask[y0:y1, x0:x1] / SOFT_EDGE).clamp(max=1)
