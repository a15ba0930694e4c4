"""Scratches on a picture: thin, long marks that are nearly black or white, by classical morphology. Pure torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.masks import components
from maskless.data.picture import SourceImage

WIDEST_SHARE = 1 / 28
"""Of the shorter side, the widest that a mark may be to be a scratch."""
LONGEST_WORK_PX = 512
CONTRAST = 0.09
LEAST_LENGTH = 0.2
"""Of the shorter side: how far a scratch reaches."""
LEAST_SLENDERNESS = 8.0
"""Its reach in units of its mean width."""
DENSE = 0.35
"""Share of marks around a place, above which they may be a texture; by 150 validation scenes (docs/results.md)."""
BARE = 0.2
"""From black, or white, in every channel: a scratch shows what is under the colours."""
MARGIN_PX = 1


def find_scratches(image: Float[Tensor, "3 H W"]) -> Bool[Tensor, "H W"]:
    """Pixels of thin marks that are darker, or brighter, than what is on both sides of them.

    A black-hat and a white-hat of every channel with a square a little wider than the widest scratch leave what is
    thin; of what is nearly black or white in it, the connected parts stay that are long and slender, but for places
    that are full of such marks. Lines of a drawing can be all of that too: a mask of one's own is always better.

    image: RGB in [0, 1]. Returns: all False where there are none.
    """
    height, width = image.shape[1:]
    scale = min(1.0, LONGEST_WORK_PX / max(height, width))
    work_yx = (max(1, round(height * scale)), max(1, round(width * scale)))
    work = F.interpolate(image[None], size=work_yx, mode="area") if scale < 1 else image[None]
    reach = max(1, round(min(work_yx) * WIDEST_SHARE / 2))
    dark = _closed(work, reach) - work
    bright = work + _closed(-work, reach)
    found = torch.zeros(work_yx, dtype=torch.bool)
    for hat, bare in ((dark, work.amax(dim=1) < BARE), (bright, work.amin(dim=1) > 1 - BARE)):
        marks = (hat.amax(dim=1) > CONTRAST)[0] & bare[0]
        for part in components(marks & ~_textured(marks, reach)):
            if _is_long(part):
                found |= part
    wide = _grown(found, MARGIN_PX).to(torch.float32)[None, None]
    return F.interpolate(wide, size=(height, width), mode="nearest")[0, 0] > 0


def _textured(marks: Bool[Tensor, "H W"], reach: int) -> Bool[Tensor, "H W"]:
    """Where marks lie so dense, in so large a place, that they are no scratches and not their crossings: hatching.

    reach: half the widest scratch, in pixels.
    """
    around, least = 9 * reach // 2, 3 * reach  # half-sizes: of the place that is looked at, and of the least dense one
    share = F.avg_pool2d(marks.to(torch.float32)[None], 2 * around + 1, 1, around, count_include_pad=False)[0]
    sparse = _grown(share <= DENSE, least)
    return _grown(~sparse, least)


def _grown(mask: Bool[Tensor, "H W"], pixels: int) -> Bool[Tensor, "H W"]:
    return F.max_pool2d(mask.to(torch.float32)[None], 2 * pixels + 1, stride=1, padding=pixels)[0] > 0


def _closed(picture: Tensor, reach: int) -> Tensor:
    """Morphological closing with a square of side 2 reach + 1."""
    wide = F.max_pool2d(picture, 2 * reach + 1, stride=1, padding=reach)
    return -F.max_pool2d(-wide, 2 * reach + 1, stride=1, padding=reach)


def _is_long(stroke: Tensor) -> bool:
    """Whether a stroke reaches far and is slender."""
    places = stroke.nonzero().to(torch.float32)
    if not len(places):
        return False
    span = places.amax(dim=0) - places.amin(dim=0) + 1
    length = float(span.square().sum().sqrt())
    return length >= LEAST_LENGTH * min(stroke.shape) and length * length / len(places) >= LEAST_SLENDERNESS


def scratched(source: SourceImage, *, count: int = 4, seed: int = 0) -> SourceImage:
    """The picture with `count` straight white scratches from border to border, the same for the same seed."""
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
    rgb = torch.where(torch.from_numpy(marks), torch.tensor(0.97), source.rgb)
    return replace(source, pixels=pixels, rgb=rgb)
