"""The four styles that a whole picture can be drawn in: each a function from an RGB picture and a seed to another.

Their grain is a fraction of the picture's side, so that the same scene looks alike at any size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

BLOCKS = 32  # blocks of pixel art along a side


def flat(image: Image.Image, seed: int) -> Image.Image:
    """The drawing, unchanged."""
    return image


def pencil(image: Image.Image, seed: int) -> Image.Image:
    """Coloured pencil on white paper: pale fills, diagonal hatching, dark outlines."""
    side = image.width
    colour = np.asarray(image, dtype=np.float32)
    grey = colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    step = max(1, round(side / 128))
    edge = np.zeros_like(grey)
    edge[step:] = np.abs(grey[step:] - grey[:-step])
    edge[:, step:] += np.abs(grey[:, step:] - grey[:, :-step])
    period = side * 5 / 128
    rows, columns = np.ogrid[:side, :side]
    hatch = 0.5 + 0.5 * np.cos((rows + columns) * (2 * np.pi / period))
    strength = 0.38 + 0.24 * hatch
    paper = 255 - (255 - colour) * strength[..., None]
    ink = np.clip(edge * 2.2 - 12, 0, 170)
    return Image.fromarray(np.clip(paper - ink[..., None], 0, 255).astype(np.uint8))


def watercolour(image: Image.Image, seed: int) -> Image.Image:
    """Watercolour: soft edges, and pigment that is denser in some blotches than in others."""
    side = image.width
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(0, 256, (9, 9), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pigment = 0.72 + 0.28 * np.asarray(blotches, dtype=np.float32) / 255
    soft = np.asarray(image.filter(ImageFilter.BoxBlur(side * 0.005)), dtype=np.float32)
    return Image.fromarray((255 - (255 - soft) * pigment[..., None]).astype(np.uint8))


def pixel(image: Image.Image, seed: int) -> Image.Image:
    """Pixel art: blocks of 1/BLOCKS of the side, each channel rounded to six levels."""
    small = np.asarray(image.resize((BLOCKS, BLOCKS), Image.Resampling.BOX), dtype=np.float32)
    levels = np.round(small / 51) * 51
    return Image.fromarray(levels.astype(np.uint8)).resize(image.size, Image.Resampling.NEAREST)


STYLES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "flat": flat,
    "pencil": pencil,
    "watercolour": watercolour,
    "pixel": pixel,
}
