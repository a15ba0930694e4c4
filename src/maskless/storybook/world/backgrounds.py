"""The nine backgrounds, each painted by one function. To add one, write it and name it in `BACKGROUNDS` and `SKIES`.

A painter gets an `ImageDraw` over a square canvas of `side` pixels, the horizon as a fraction of the side, and a NumPy
generator for its details. The sky is already there, as a vertical gradient between the two colours of `SKIES`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Painter = Callable[[ImageDraw.ImageDraw, int, float, np.random.Generator], None]

SKIES: dict[str, tuple[Colour, Colour]] = {
    "meadow": ((126, 190, 236), (214, 236, 250)),
    "beach": ((112, 190, 240), (206, 234, 248)),
    "snow": ((176, 192, 214), (222, 230, 240)),
    "desert": ((246, 196, 128), (252, 228, 182)),
    "night": ((26, 28, 78), (66, 62, 122)),
    "sea": ((150, 206, 240), (226, 240, 248)),
    "forest": ((176, 214, 186), (222, 238, 212)),
    "city": ((196, 188, 226), (240, 222, 230)),
    "room": ((236, 214, 190), (244, 228, 208)),
}


def gradient(top: Colour, bottom: Colour, side: int) -> Image.Image:
    """A vertical gradient [side, side] RGB."""
    rows = np.linspace(top, bottom, 32).round().astype(np.uint8)
    return Image.fromarray(rows[:, None, :]).resize((side, side), Image.Resampling.BILINEAR)


def _wave(side: int, y: float, height: float, waves: float, phase: float) -> list[float]:
    """A polygon from a wavy top edge at `y` (fraction) down to the bottom, flattened to x, y, x, y, …"""
    x = np.linspace(0, side, 33)
    top = side * (y + height * np.sin(2 * np.pi * waves * x / side + phase))
    return np.stack([x, top], axis=1).ravel().tolist() + [side, side + 1, 0, side + 1]


def _clouds(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator, colour: Colour) -> None:
    """Up to two clouds in the sky."""
    for _ in range(int(rng.integers(0, 3))):
        x, y, w = rng.uniform(0.1, 0.9), rng.uniform(0.08, max(0.12, horizon - 0.25)), rng.uniform(0.05, 0.09)
        for dx, dy, scale in ((-1.0, 0.15, 0.7), (0, 0, 1.0), (1.0, 0.15, 0.75)):
            cx, cy, r = x + dx * w * 1.1, y + dy * w, w * scale
            draw.ellipse([(cx - r) * side, (cy - r * 0.6) * side, (cx + r) * side, (cy + r * 0.6) * side], fill=colour)


def meadow(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    _clouds(draw, side, horizon, rng, (248, 251, 255))
    draw.polygon(_wave(side, horizon, 0.035, 0.8, rng.uniform(0, 6.3)), fill=(158, 206, 122))
    draw.polygon(_wave(side, horizon + 0.1, 0.03, 1.0, rng.uniform(0, 6.3)), fill=(128, 190, 98))
    for x, y in zip(rng.uniform(0, 1, 9), rng.uniform(horizon + 0.16, 1, 9), strict=True):
        draw.line([x * side, y * side, x * side, (y - 0.02) * side], fill=(92, 158, 74), width=max(1, side // 100))


def beach(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    _clouds(draw, side, horizon, rng, (250, 252, 255))
    draw.rectangle([0, horizon * side, side, side], fill=(70, 158, 204))
    draw.rectangle([0, (horizon + 0.06) * side, side, side], fill=(96, 182, 216))
    shore = rng.uniform(0, 6.3)
    draw.polygon(_wave(side, horizon + 0.13, 0.02, 1.2, shore), fill=(236, 246, 248))
    draw.polygon(_wave(side, horizon + 0.155, 0.02, 1.2, shore), fill=(240, 218, 166))


def snow(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    draw.polygon(_wave(side, horizon, 0.04, 0.7, rng.uniform(0, 6.3)), fill=(214, 224, 240))
    draw.polygon(_wave(side, horizon + 0.12, 0.03, 0.9, rng.uniform(0, 6.3)), fill=(228, 236, 247))
    r = side * 0.008
    for x, y in zip(rng.uniform(0, 1, 14) * side, rng.uniform(0, 1, 14) * side, strict=True):
        draw.ellipse([x - r, y - r, x + r, y + r], fill=(252, 253, 255))


def desert(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    draw.polygon(_wave(side, horizon, 0.05, 0.7, rng.uniform(0, 6.3)), fill=(230, 176, 106))
    draw.polygon(_wave(side, horizon + 0.11, 0.04, 0.9, rng.uniform(0, 6.3)), fill=(218, 158, 90))
    draw.polygon(_wave(side, horizon + 0.26, 0.03, 0.6, rng.uniform(0, 6.3)), fill=(206, 144, 80))


def night(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for x, y, r in zip(rng.uniform(0, 1, 16), rng.uniform(0, horizon, 16), rng.uniform(0.004, 0.008, 16), strict=True):
        draw.ellipse([(x - r) * side, (y - r) * side, (x + r) * side, (y + r) * side], fill=(250, 244, 214))
    draw.polygon(_wave(side, horizon, 0.03, 0.8, rng.uniform(0, 6.3)), fill=(46, 72, 92))
    draw.polygon(_wave(side, horizon + 0.12, 0.03, 0.9, rng.uniform(0, 6.3)), fill=(36, 58, 76))


def sea(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    _clouds(draw, side, horizon, rng, (252, 253, 255))
    colours = [(92, 166, 212), (70, 146, 198), (52, 124, 182), (40, 104, 164)]
    for i, colour in enumerate(colours):
        draw.polygon(_wave(side, horizon + 0.12 * i, 0.012, 4, rng.uniform(0, 6.3)), fill=colour)


def forest(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    draw.polygon(_wave(side, horizon - 0.36, 0.03, 3, rng.uniform(0, 6.3)), fill=(142, 188, 142))
    for x in (np.arange(9) + rng.uniform(0.2, 0.8, 9)) / 9:
        w = 0.014
        draw.rectangle(
            [(x - w) * side, (horizon - 0.3) * side, (x + w) * side, (horizon + 0.06) * side], fill=(112, 142, 106)
        )
    draw.polygon(_wave(side, horizon, 0.02, 1.2, rng.uniform(0, 6.3)), fill=(84, 138, 86))
    draw.polygon(_wave(side, horizon + 0.16, 0.02, 1.0, rng.uniform(0, 6.3)), fill=(70, 120, 74))


def city(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    for i in range(7):
        x0, x1, top = i / 7, (i + 0.92) / 7, horizon - rng.uniform(0.12, 0.4)
        draw.rectangle(
            [x0 * side, top * side, x1 * side, horizon * side], fill=[(150, 144, 186), (168, 160, 200)][i % 2]
        )
        for row in range(int((horizon - top) / 0.075)):
            y = top + 0.03 + row * 0.075
            for column in (0.03, 0.085):
                x = x0 + column
                draw.rectangle([x * side, y * side, (x + 0.025) * side, (y + 0.032) * side], fill=(228, 220, 226))
    draw.rectangle([0, horizon * side, side, side], fill=(176, 174, 184))
    draw.rectangle([0, (horizon + 0.1) * side, side, side], fill=(150, 148, 160))


def room(draw: ImageDraw.ImageDraw, side: int, horizon: float, rng: np.random.Generator) -> None:
    x, y, w, h = rng.uniform(0.08, 0.62), horizon - 0.46, 0.26, 0.28
    draw.rectangle([x * side, y * side, (x + w) * side, (y + h) * side], fill=(250, 246, 238))
    for px, py in ((0.02, 0.02), (0.14, 0.02), (0.02, 0.15), (0.14, 0.15)):
        draw.rectangle(
            [(x + px) * side, (y + py) * side, (x + px + 0.1) * side, (y + py + 0.11) * side], fill=(186, 216, 234)
        )
    draw.rectangle([0, horizon * side, side, side], fill=(188, 142, 104))
    draw.rectangle([0, horizon * side, side, (horizon + 0.03) * side], fill=(246, 238, 226))
    for i in range(1, 4):
        y = (horizon + 0.03 + i * 0.11) * side
        draw.line([0, y, side, y], fill=(172, 126, 90), width=max(1, side // 128))


BACKGROUNDS: dict[str, Painter] = {
    "meadow": meadow,
    "beach": beach,
    "snow": snow,
    "desert": desert,
    "night": night,
    "sea": sea,
    "forest": forest,
    "city": city,
    "room": room,
}


def paint_background(name: str, side: int, horizon: float, seed: int) -> Image.Image:
    """A background without objects, RGB [side, side]; `horizon` a fraction of the side, `seed` for the details."""
    image = gradient(*SKIES[name], side)
    BACKGROUNDS[name](ImageDraw.Draw(image), side, horizon, np.random.default_rng(seed))
    return image
