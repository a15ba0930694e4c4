"""The canvas of a picture: transparent holes in it, and margins that are added around it."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from maskless.data.errors import MasklessError, require
from maskless.data.picture import MAX_SIDE_PX, SourceImage

SIDES = ("left", "top", "right", "bottom")
EXTEND_FORMS = "0.25 (of each side), 64 (pixels), 25%, or by side: left=0.5,top=40"
Extend = str | float | int
Margins = tuple[int, int, int, int]
"""Widths in pixels at the left, top, right and bottom."""


def holes(source: SourceImage) -> Bool[Tensor, "H W"] | None:
    """True where the picture is not fully opaque; None if it has no alpha channel."""
    if source.alpha is None:
        return None
    return torch.from_numpy(source.alpha < np.iinfo(source.alpha.dtype).max)


def opaque(source: SourceImage, region: Bool[Tensor, "H W"]) -> SourceImage:
    """The same picture with the region made opaque, so that the pixels which an edit draws there are visible."""
    if source.alpha is None:
        return source
    alpha = source.alpha.copy()
    alpha[region.numpy()] = np.iinfo(alpha.dtype).max
    return replace(source, alpha=alpha)


def margins_of(extend: Extend, size_yx: tuple[int, int]) -> Margins:
    """The pixels to add at the left, top, right and bottom.

    extend: a float is a share of each side, an int a number of pixels, and a string either of them, also for single
    sides (EXTEND_FORMS). size_yx: height and width of the picture.

    Raises:
        MasklessError: another form, nothing to add, or a picture that would become too large.
    """
    amounts = dict.fromkeys(SIDES, 0)
    message = f"extend must be {EXTEND_FORMS}, got {extend!r}"
    text = f"{extend:f}" if isinstance(extend, float) else str(extend)
    for part in text.split(","):
        found = re.fullmatch(rf"\s*(?:({'|'.join(SIDES)})\s*=)?\s*(\d+|\d*\.\d+|\d+(?:\.\d+)?%)\s*", part)
        if found is None:
            raise MasklessError(message)
        for side in SIDES if found[1] is None else (found[1],):
            length = size_yx[1] if side in ("left", "right") else size_yx[0]
            amounts[side] = _pixels(found[2], length)
    require(any(amounts.values()), message)
    height, width = size_yx[0] + amounts["top"] + amounts["bottom"], size_yx[1] + amounts["left"] + amounts["right"]
    require(
        max(height, width) <= MAX_SIDE_PX,
        f"the sides of the extended picture must be at most {MAX_SIDE_PX} pixels, got {width} x {height}",
    )
    return amounts["left"], amounts["top"], amounts["right"], amounts["bottom"]


def _pixels(amount: str, length: int) -> int:
    """An amount such as 25%, 0.25 or 64 in pixels, for a side of this length."""
    if amount.endswith("%"):
        return round(float(amount[:-1]) / 100 * length)
    return round(float(amount) * length) if "." in amount else int(amount)


def on_canvas(source: SourceImage, margins: Margins) -> tuple[SourceImage, Bool[Tensor, "H W"]]:
    """The picture with margins, which repeat the pixels of its border for now, and a mask of the margins."""
    left, top, right, bottom = margins
    pad = ((top, bottom), (left, right))
    white = np.iinfo(source.pixels.dtype).max
    floats = source.floats
    if floats is not None:
        floats = F.pad(floats[None], (left, right, top, bottom), mode="replicate")[0]
    canvas = replace(
        source,
        floats=floats,
        pixels=np.pad(source.pixels, (*pad, (0, 0)), mode="edge"),
        alpha=None if source.alpha is None else np.pad(source.alpha, pad, constant_values=white),
    )
    added = torch.ones(canvas.size_yx, dtype=torch.bool)
    height, width = source.size_yx
    added[top : top + height, left : left + width] = False
    return canvas, added


def without_margins(pixels: np.ndarray, margins: Margins) -> np.ndarray:
    """The pixels [H, W, ...] of a picture without the margins that were added to it."""
    left, top, right, bottom = margins
    return pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right]
