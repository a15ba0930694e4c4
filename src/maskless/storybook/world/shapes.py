"""The 24 kinds of object, each a short list of flat polygons.

A kind is written on a canvas of 100 by 100 units (x to the right, y downwards) and normalised to the unit square of its
own bounding box, so its points in a picture are `points * box_size + box_corner`. To add a kind, write an entry of
`_DRAWN`.

`paint` is relative to the object's colour (body, shade, light, dark) or a fixed colour of `FIXED_PAINTS`. Only `body`
parts take a texture. `part=` names what a person would name; polygons of one name are one part, such as two wheels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FIXED_PAINTS: dict[str, tuple[int, int, int]] = {
    "wood": (122, 82, 48),
    "leaf": (70, 150, 72),
    "glass": (196, 228, 244),
    "cream": (250, 240, 214),
    "ink": (38, 34, 44),
    "stone": (150, 150, 158),
    "gold": (252, 205, 70),
    "flame": (250, 140, 40),
    "snowy": (252, 252, 252),
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One polygon of a kind: `points` [N, 2] as (x, y) in the unit square of the object's box.

    `name` is the part that it belongs to, such as "roof"; empty where a person would not name one.
    """

    points: np.ndarray
    paint: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A kind: its parts from back to front, width over height of its box, and whether it is mostly seen in the sky."""

    parts: tuple[Part, ...]
    aspect: float
    airborne: bool

    @property
    def named_parts(self) -> tuple[str, ...]:
        """The names of its parts, each once, from back to front."""
        return tuple(dict.fromkeys(part.name for part in self.parts if part.name))


_Raw = tuple[str, list[tuple[float, float]], str]  # the paint, points (x, y) on the canvas, and part of a polygon


def _poly(paint: str, *xy: float, part: str = "") -> _Raw:
    """A polygon from x, y, x, y, …"""
    return paint, [(xy[i], xy[i + 1]) for i in range(0, len(xy), 2)], part


def _rect(paint: str, x0: float, y0: float, x1: float, y1: float, *, part: str = "") -> _Raw:
    return _poly(paint, x0, y0, x1, y0, x1, y1, x0, y1, part=part)


def _disc(paint: str, cx: float, cy: float, rx: float, ry: float | None = None, *, part: str = "") -> _Raw:
    """An ellipse, or a circle where `ry` is left out."""
    return paint, _arc((cx, cy), (rx, rx if ry is None else ry), np.linspace(0, 360, 25)), part


def _upper_half(paint: str, cx: float, cy: float, rx: float, ry: float, *, part: str = "") -> _Raw:
    """The upper half of an ellipse."""
    return paint, _arc((cx, cy), (rx, ry), np.linspace(180, 360, 15)), part


def _lower_half(paint: str, cx: float, cy: float, rx: float, ry: float, *, part: str = "") -> _Raw:
    """The lower half of an ellipse."""
    return paint, _arc((cx, cy), (rx, ry), np.linspace(0, 180, 15)), part


def _arc(centre: tuple[float, float], radii: tuple[float, float], degrees: np.ndarray) -> list[tuple[float, float]]:
    """Points of an ellipse at angles in degrees (0 = right, 90 = down)."""
    (cx, cy), (rx, ry) = centre, radii
    return [(cx + rx * float(np.cos(a)), cy + ry * float(np.sin(a))) for a in np.radians(degrees)]


def _spikes(paint: str, cx: float, cy: float, outer: float, inner: float, count: int) -> _Raw:
    """A star of `count` spikes, the first of them pointing up: radius `outer` at their tips, `inner` between them."""
    angles = np.radians(-90 + np.arange(2 * count) * 180 / count)
    radii = np.where(np.arange(2 * count) % 2 == 0, outer, inner)
    return (
        paint,
        [(cx + float(r * np.cos(a)), cy + float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)],
        "",
    )


def _heart(paint: str, cx: float, cy: float, scale: float) -> _Raw:
    """A heart, about 32 * `scale` wide."""
    t = np.linspace(0, 2 * np.pi, 33)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return paint, [(cx + float(a) * scale, cy + float(b) * scale) for a, b in zip(x, y, strict=True)], ""


_DRAWN: dict[str, list[_Raw]] = {
    "tree": [
        _rect("wood", 43, 60, 57, 100, part="trunk"),
        _disc("body", 50, 32, 34, 32, part="crown"),
        _disc("body", 26, 46, 22, 20, part="crown"),
        _disc("body", 74, 46, 22, 20, part="crown"),
        _disc("shade", 60, 54, 22, 11, part="crown"),
        _disc("light", 38, 22, 14, 10, part="crown"),
    ],
    "pine": [
        _rect("wood", 44, 84, 56, 100, part="trunk"),
        _poly("body", 50, 34, 84, 88, 16, 88),
        _poly("shade", 50, 60, 84, 88, 50, 88),
        _poly("body", 50, 16, 77, 60, 23, 60),
        _poly("shade", 50, 38, 77, 60, 50, 60),
        _poly("body", 50, 0, 70, 34, 30, 34),
        _poly("light", 50, 2, 50, 32, 34, 32),
    ],
    "flower": [
        _rect("leaf", 47, 50, 53, 100, part="stem"),
        _disc("leaf", 36, 82, 13, 6, part="leaf"),
        _disc("leaf", 64, 74, 13, 6, part="leaf"),
        *[
            _disc("body", 50 + 20 * c, 30 + 20 * s, 13, part="petal")
            for c, s in [(1, 0), (0.5, 0.87), (-0.5, 0.87), (-1, 0), (-0.5, -0.87), (0.5, -0.87)]
        ],
        _disc("gold", 50, 30, 12, part="centre"),
        _disc("flame", 52, 32, 6, part="centre"),
    ],
    "mushroom": [
        _poly("cream", 40, 48, 60, 48, 66, 96, 34, 96, part="stem"),
        _poly("stone", 54, 50, 60, 50, 66, 96, 56, 96, part="stem"),
        _upper_half("body", 50, 50, 46, 44, part="cap"),
        _poly("shade", 4, 50, 96, 50, 84, 58, 16, 58, part="cap"),
        _disc("snowy", 34, 28, 8, 7, part="spot"),
        _disc("snowy", 62, 22, 6, 5, part="spot"),
        _disc("snowy", 74, 40, 7, 5, part="spot"),
        _disc("snowy", 18, 42, 5, 4, part="spot"),
    ],
    "cactus": [
        _rect("body", 38, 12, 62, 100),
        _disc("body", 50, 12, 12),
        _rect("body", 10, 48, 40, 62, part="arm"),
        _rect("body", 8, 30, 22, 58, part="arm"),
        _disc("body", 15, 30, 7, part="arm"),
        _rect("body", 60, 58, 88, 72, part="arm"),
        _rect("body", 78, 36, 92, 70, part="arm"),
        _disc("body", 85, 36, 7, part="arm"),
        _rect("shade", 54, 12, 62, 100),
        _rect("light", 43, 14, 46, 94),
        _disc("flame", 50, 2, 6, 5, part="blossom"),
    ],
    "house": [
        _rect("body", 14, 44, 86, 100),
        _rect("shade", 74, 44, 86, 100),
        _rect("dark", 66, 8, 78, 34, part="chimney"),
        _poly("dark", 50, 2, 98, 46, 2, 46, part="roof"),
        _rect("glass", 22, 56, 40, 74, part="window"),
        _rect("ink", 30, 56, 32, 74, part="window"),
        _rect("wood", 52, 62, 70, 100, part="door"),
        _disc("gold", 66, 82, 2, part="door"),
    ],
    "castle": [
        _rect("body", 14, 42, 86, 100),
        *[_rect("body", x, 32, x + 10, 44, part="battlement") for x in (34, 50, 58)],
        _rect("body", 4, 24, 30, 100, part="tower"),
        _rect("body", 70, 24, 96, 100, part="tower"),
        _rect("shade", 24, 24, 30, 100, part="tower"),
        _rect("shade", 90, 24, 96, 100, part="tower"),
        _poly("dark", 17, 0, 34, 26, 0, 26, part="roof"),
        _poly("dark", 83, 0, 100, 26, 66, 26, part="roof"),
        _upper_half("ink", 50, 78, 13, 14, part="gate"),
        _rect("ink", 37, 78, 63, 100, part="gate"),
        _rect("glass", 13, 40, 20, 54, part="window"),
        _rect("glass", 80, 40, 87, 54, part="window"),
    ],
    "tent": [
        _poly("body", 50, 8, 100, 92, 0, 92),
        _poly("shade", 50, 8, 100, 92, 72, 92),
        _poly("ink", 50, 36, 66, 92, 34, 92, part="entrance"),
        _poly("light", 50, 36, 36, 92, 26, 92, part="entrance"),
        _rect("wood", 48, 0, 52, 12, part="pole"),
    ],
    "car": [
        _poly("body", 22, 34, 34, 8, 68, 8, 84, 34),
        _disc("body", 12, 44, 12, 12),
        _disc("body", 90, 46, 10, 14),
        _rect("body", 10, 32, 92, 60),
        _rect("shade", 2, 50, 100, 60),
        _poly("glass", 29, 32, 38, 14, 49, 14, 49, 32, part="window"),
        _poly("glass", 54, 14, 65, 14, 76, 32, 54, 32, part="window"),
        _disc("ink", 25, 60, 12, part="wheel"),
        _disc("stone", 25, 60, 5, part="wheel"),
        _disc("ink", 76, 60, 12, part="wheel"),
        _disc("stone", 76, 60, 5, part="wheel"),
        _disc("gold", 97, 44, 4, 5, part="headlight"),
    ],
    "boat": [
        _rect("wood", 47, 0, 51, 70, part="mast"),
        _poly("snowy", 52, 4, 92, 62, 52, 62, part="sail"),
        _poly("stone", 45, 14, 45, 62, 14, 62, part="sail"),
        _poly("body", 0, 68, 100, 68, 82, 98, 18, 98, part="hull"),
        _poly("shade", 12, 88, 88, 88, 82, 98, 18, 98, part="hull"),
        _rect("light", 6, 70, 94, 74, part="hull"),
    ],
    "balloon": [
        _disc("body", 50, 36, 38, 36),
        _poly("body", 16, 50, 84, 50, 60, 78, 40, 78),
        _disc("shade", 68, 42, 14, 28),
        _disc("light", 36, 24, 9, 14),
        _poly("ink", 41, 77, 43, 77, 45, 88, 43, 88),
        _poly("ink", 57, 77, 59, 77, 57, 88, 55, 88),
        _poly("wood", 39, 86, 61, 86, 58, 102, 42, 102, part="basket"),
    ],
    "rocket": [
        _poly("flame", 40, 82, 60, 82, 50, 102, part="flame"),
        _poly("gold", 45, 82, 55, 82, 50, 94, part="flame"),
        _poly("dark", 34, 54, 34, 84, 14, 92, 18, 70, part="fin"),
        _poly("dark", 66, 54, 66, 84, 86, 92, 82, 70, part="fin"),
        _poly("body", 50, 0, 62, 18, 68, 40, 66, 84, 34, 84, 32, 40, 38, 18),
        _poly("shade", 50, 0, 62, 18, 68, 40, 66, 84, 56, 84, 58, 40),
        _disc("stone", 49, 38, 12, part="window"),
        _disc("glass", 49, 38, 9, part="window"),
    ],
    "bird": [
        _poly("dark", 6, 34, 32, 46, 26, 60, 2, 52, part="tail"),
        _disc("body", 52, 54, 32, 24),
        _disc("body", 76, 32, 17),
        _poly("gold", 91, 28, 106, 34, 91, 40, part="beak"),
        _poly("shade", 34, 46, 68, 50, 50, 74, 36, 68, part="wing"),
        _disc("snowy", 79, 28, 5, part="eye"),
        _disc("ink", 80, 28, 3, part="eye"),
        _rect("flame", 46, 76, 50, 92, part="leg"),
        _rect("flame", 58, 76, 62, 92, part="leg"),
    ],
    "fish": [
        _poly("dark", 40, 20, 66, 2, 70, 24, part="fin"),
        _poly("shade", 26, 44, 0, 18, 6, 44, 0, 72, part="tail"),
        _disc("body", 58, 44, 40, 27),
        _disc("light", 56, 56, 28, 10),
        _poly("dark", 52, 44, 40, 38, 40, 56, part="fin"),
        _disc("snowy", 80, 36, 7, part="eye"),
        _disc("ink", 82, 36, 4, part="eye"),
    ],
    "cat": [
        _poly("body", 12, 2, 40, 24, 14, 44, part="ear"),
        _poly("body", 88, 2, 60, 24, 86, 44, part="ear"),
        _poly("light", 18, 12, 34, 26, 20, 36, part="ear"),
        _poly("light", 82, 12, 66, 26, 80, 36, part="ear"),
        _disc("body", 50, 56, 42, 38),
        _disc("light", 50, 74, 19, 13, part="muzzle"),
        _disc("gold", 33, 48, 9, 10, part="eye"),
        _disc("gold", 67, 48, 9, 10, part="eye"),
        _disc("ink", 33, 48, 4, 9, part="eye"),
        _disc("ink", 67, 48, 4, 9, part="eye"),
        _poly("flame", 44, 64, 56, 64, 50, 71, part="nose"),
    ],
    "butterfly": [
        _disc("body", 26, 30, 26, 26, part="wing"),
        _disc("body", 74, 30, 26, 26, part="wing"),
        _disc("shade", 32, 66, 19, 20, part="wing"),
        _disc("shade", 68, 66, 19, 20, part="wing"),
        _disc("snowy", 24, 28, 9, part="spot"),
        _disc("snowy", 76, 28, 9, part="spot"),
        _disc("light", 32, 66, 8, part="spot"),
        _disc("light", 68, 66, 8, part="spot"),
        _disc("ink", 50, 48, 6, 36),
        _poly("ink", 48, 16, 38, 0, 41, 0, 50, 14, part="feeler"),
        _poly("ink", 52, 16, 62, 0, 59, 0, 50, 14, part="feeler"),
    ],
    "snail": [
        _poly("cream", 8, 84, 80, 84, 84, 50, 98, 46, 100, 62, 94, 96, 14, 96),
        _rect("cream", 85, 30, 88, 52, part="feeler"),
        _rect("cream", 94, 32, 97, 52, part="feeler"),
        _disc("ink", 86.5, 29, 4, part="eye"),
        _disc("ink", 95.5, 31, 4, part="eye"),
        _disc("body", 44, 50, 38, part="shell"),
        _disc("dark", 46, 52, 25, part="shell"),
        _disc("body", 44, 53, 18, part="shell"),
        _disc("dark", 46, 54, 8, part="shell"),
    ],
    "umbrella": [
        _rect("wood", 48, 36, 52, 92, part="handle"),
        _lower_half("wood", 43, 91, 9, 9, part="handle"),
        _upper_half("body", 50, 48, 48, 44),
        _poly("shade", 50, 5, 72, 12, 92, 30, 98, 48, 74, 48, 66, 22),
        _poly("light", 50, 5, 26, 14, 10, 34, 14, 34, 32, 16),
        *[_upper_half("dark", x, 48, 8, 5) for x in (10, 26, 42, 58, 74, 90)],
        _rect("wood", 48, 0, 52, 6),
    ],
    "cake": [
        _rect("cream", 47, 8, 53, 32, part="candle"),
        _disc("flame", 50, 3, 4, 6, part="flame"),
        _disc("stone", 50, 94, 50, 6, part="plate"),
        _rect("body", 8, 34, 92, 92),
        _rect("cream", 8, 58, 92, 66),
        _rect("snowy", 8, 30, 92, 40, part="icing"),
        *[_disc("snowy", x, 41, 7, 7, part="icing") for x in (15, 38, 62, 85)],
        _rect("shade", 82, 48, 92, 92),
    ],
    "cup": [
        _disc("dark", 80, 50, 19, 20, part="handle"),
        _disc("cream", 80, 50, 10, 11, part="handle"),
        _poly("body", 6, 20, 80, 20, 72, 90, 16, 90),
        _poly("shade", 66, 20, 80, 20, 72, 90, 62, 90),
        _disc("light", 43, 20, 37, 8),
        _disc("wood", 43, 21, 31, 5),
        _disc("stone", 44, 92, 42, 5, part="saucer"),
    ],
    "lamp": [
        _disc("dark", 50, 94, 30, 7, part="foot"),
        _rect("stone", 46, 46, 54, 92, part="pole"),
        _poly("body", 30, 2, 70, 2, 92, 48, 8, 48),
        _poly("shade", 60, 2, 70, 2, 92, 48, 72, 48),
        _poly("gold", 8, 48, 92, 48, 88, 55, 12, 55),
    ],
    "star": [
        _spikes("body", 50, 52, 52, 22, 5),
        _poly("shade", 50, 52, 99.5, 36, 68.5, 58),
        _poly("shade", 50, 52, 80.6, 94, 50, 74),
        _poly("light", 50, 52, 50, 0, 37, 34),
        _disc("light", 50, 52, 7),
    ],
    "heart": [
        _heart("body", 50, 46, 3.0),
        _heart("shade", 58, 54, 1.7),
        _heart("body", 53, 50, 1.8),
        _disc("light", 28, 26, 8, 6),
    ],
    "apple": [
        _disc("body", 34, 56, 32, 38),
        _disc("body", 64, 56, 32, 38),
        _disc("shade", 74, 64, 16, 24),
        _disc("light", 24, 42, 7, 11),
        _poly("wood", 47, 28, 52, 28, 57, 4, 52, 3, part="stem"),
        _poly("leaf", 54, 16, 66, 4, 86, 6, 74, 18, part="leaf"),
    ],
}

AIRBORNE = frozenset({"balloon", "rocket", "bird", "butterfly", "star", "heart"})


def _normalise(kind: str, raw: list[_Raw]) -> Shape:
    """A kind from canvas units to the unit square of its bounding box."""
    every = np.array([p for _, points, _ in raw for p in points])
    low, high = every.min(axis=0), every.max(axis=0)
    width, height = high - low
    parts = tuple(
        Part(points=(np.array(points) - low) / (high - low), paint=paint, name=name) for paint, points, name in raw
    )
    return Shape(parts=parts, aspect=float(width / height), airborne=kind in AIRBORNE)


SHAPES: dict[str, Shape] = {kind: _normalise(kind, raw) for kind, raw in _DRAWN.items()}
PARTS: tuple[str, ...] = tuple(sorted({name for shape in SHAPES.values() for name in shape.named_parts}))
"""The names of all parts."""
