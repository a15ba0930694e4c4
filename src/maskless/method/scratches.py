"""Scratches on a picture: thin, long marks that are nearly black or white, by classical morphology. Pure torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.masks import components, grown
from maskless.data.picture import SourceImage

MAX_WIDTH_SHARE = 1 / 28
"""Maximum width of a scratch, as a share of the picture's shorter side."""
LONGEST_WORK_PX = 512
"""Larger pictures are searched on a copy whose longer side has this length."""
CONTRAST = 0.09
"""Minimum difference of a mark from both of its sides, in at least one channel."""
MIN_LENGTH_SHARE = 0.2
"""Minimum length of a scratch, as a share of the picture's shorter side."""
MIN_SLENDERNESS = 8.0
"""Minimum length of a scratch divided by its mean width."""
TEXTURE_DENSITY = 0.35
"""Where marks cover more than this share of their neighbourhood, they may be a texture (docs/results.md)."""
EXTREME_RANGE = 0.2
"""Maximum distance of a scratch from black, or from white, in every channel: a scratch shows the material under the
colours."""
MARGIN_PX = 1


def find_scratches(image: Float[Tensor, "3 H W"]) -> Bool[Tensor, "H W"]:
    """Pixels of thin marks that are darker, or brighter, than the picture on both sides of them.

    The black-hat and the white-hat transform of each channel, with a square a little wider than the widest scratch,
    leave only what is thin. The nearly black or nearly white pixels of it are kept, except in areas that are full of
    such marks (hatching). The connected parts of these that are long and slender are the scratches. A line of a drawing
    may meet all these conditions too, so a mask that the user draws is always better.

    image: RGB in [0, 1]. Returns: True in scratches; all False if there are none.
    """
    height, width = image.shape[1:]
    scale = min(1.0, LONGEST_WORK_PX / max(height, width))
    work_yx = (max(1, round(height * scale)), max(1, round(width * scale)))
    work = F.interpolate(image[None], size=work_yx, mode="area") if scale < 1 else image[None]
    reach = max(1, round(min(work_yx) * MAX_WIDTH_SHARE / 2))
    dark = _closed(work, reach) - work
    bright = work + _closed(-work, reach)
    found = torch.zeros(work_yx, dtype=torch.bool)
    nearly_black, nearly_white = work.amax(dim=1) < EXTREME_RANGE, work.amin(dim=1) > 1 - EXTREME_RANGE
    for hat, extreme in ((dark, nearly_black), (bright, nearly_white)):
        marks = (hat.amax(dim=1) > CONTRAST)[0] & extreme[0]
        for part in components(marks & ~_textured(marks, reach)):
            if _is_long(part):
                found |= part
    wide = _dilated(found, MARGIN_PX).to(torch.float32)[None, None]
    return F.interpolate(wide, size=(height, width), mode="nearest")[0, 0] > 0


def _textured(marks: Bool[Tensor, "H W"], reach: int) -> Bool[Tensor, "H W"]:
    """The areas that are dense with marks and too large to be a crossing of scratches: hatching.

    reach: half the width of the widest scratch, in pixels.
    """
    neighbourhood, smallest_area = 9 * reach // 2, 3 * reach  # half the sides of two squares, in pixels
    window = 2 * neighbourhood + 1
    density = F.avg_pool2d(marks.to(torch.float32)[None], window, 1, neighbourhood, count_include_pad=False)[0]
    # Dilating the sparse pixels erases dense areas that are too small; dilating the rest restores the larger ones.
    sparse = _dilated(density <= TEXTURE_DENSITY, smallest_area)
    return _dilated(~sparse, smallest_area)


def _dilated(mask: Bool[Tensor, "H W"], pixels: int) -> Bool[Tensor, "H W"]:
    return grown(mask.to(torch.float32)[None, None], pixels)[0, 0] > 0


def _closed(picture: Tensor, reach: int) -> Tensor:
    """Morphological closing with a square of side 2 reach + 1."""
    wide = grown(picture, reach)
    return -grown(-wide, reach)


def _is_long(stroke: Tensor) -> bool:
    """Whether a connected part is long and slender. Its length is the diagonal of its bounding box."""
    pixels_yx = stroke.nonzero().to(torch.float32)
    if not len(pixels_yx):
        return False
    span = pixels_yx.amax(dim=0) - pixels_yx.amin(dim=0) + 1
    length = float(span.square().sum().sqrt())
    # Mean width = number of pixels / length, so slenderness = length / mean width = length^2 / number of pixels.
    return length >= MIN_LENGTH_SHARE * min(stroke.shape) and length * length / len(pixels_yx) >= MIN_SLENDERNESS


def scratched(source: SourceImage, *, count: int = 4, seed: int = 0) -> SourceImage:
    """The picture with `count` straight white scratches from border to border; a seed always draws the same ones."""
    from PIL import Image, ImageDraw

    height, width = source.pixels.shape[:2]
    rng = np.random.default_rng(seed)
    level = Image.new("L", (width, height))
    pen = ImageDraw.Draw(level)
    for number in range(count):
        start, end = rng.uniform(0.1, 0.9, 2)
        ends = (
            [(0, start * height), (width, end * height)] if number % 2 else [(start * width, 0), (end * width, height)]
        )
        pen.line([float(value) for point in ends for value in point], fill=255, width=max(2, min(height, width) // 100))
    marks = np.asarray(level) > 0
    pixels = source.pixels.copy()
    pixels[marks] = np.iinfo(pixels.dtype).max * 0.97
    return replace(source, pixels=pixels, floats=None)
