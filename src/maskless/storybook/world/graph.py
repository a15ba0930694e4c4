"""The scene graph: what a scene consists of, before it is drawn, and how one is sampled from a seed.

Coordinates are fractions of the picture's side, (x, y) with y downwards, so that a scene can be drawn at any size.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.shapes import SHAPES
from maskless.storybook.world.styles import STYLES

KINDS = tuple(SHAPES)
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (216, 44, 44),
    "orange": (246, 136, 30),
    "yellow": (250, 216, 50),
    "green": (56, 166, 80),
    "blue": (48, 98, 210),
    "purple": (136, 66, 178),
    "pink": (246, 130, 180),
    "brown": (134, 84, 50),
    "white": (248, 246, 240),
    "black": (52, 50, 58),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object of a scene: what it is, and the centre (x, y) and the longer side of its box.

    `tone` is added to the RGB values of its colour, so that not all red cars are of the same red.
    """

    kind: str
    colour: str
    texture: str = "plain"
    centre_xy: tuple[float, float]
    size: float
    flip: bool = False
    tone: tuple[int, int, int] = (0, 0, 0)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x0, y0, x1, y1) as fractions of the picture's side."""
        aspect = SHAPES[self.kind].aspect
        w, h = (self.size, self.size / aspect) if aspect >= 1 else (self.size * aspect, self.size)
        x, y = self.centre_xy
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2


@dataclass(frozen=True, kw_only=True)
class SceneGraph:
    """What a scene consists of: objects from back to front, background, style, and the seed of the finer details.

    `horizon` is the height of the horizon as a fraction of the side, counted from the top.
    """

    objects: tuple[SceneObject, ...]
    background: str
    style: str
    horizon: float
    detail_seed: int

    def replace_object(self, index: int, **changes: object) -> SceneGraph:
        """With object `index` changed (kind=…, colour=…, texture=…); all else, such as its position, stays."""
        changed = dataclasses.replace(self.objects[index], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(self, objects=(*self.objects[:index], changed, *self.objects[index + 1 :]))

    def remove_object(self, index: int) -> SceneGraph:
        """Without object `index`."""
        return dataclasses.replace(self, objects=(*self.objects[:index], *self.objects[index + 1 :]))

    def add_object(self, added: SceneObject) -> SceneGraph:
        """With one more object, in front of the others."""
        return dataclasses.replace(self, objects=(*self.objects, added))

    def with_background(self, background: str) -> SceneGraph:
        """The same objects on another background, one of `BACKGROUNDS`."""
        return dataclasses.replace(self, background=background)

    def with_style(self, style: str) -> SceneGraph:
        """The same scene in another style, one of `STYLES`."""
        return dataclasses.replace(self, style=style)


def sample(seed: int) -> SceneGraph:
    """The scene graph of a seed: 0 to 5 objects that hide little of one another."""
    rng = np.random.default_rng(seed)
    style = str(rng.choice(list(STYLES), p=[0.7, 0.1, 0.1, 0.1]))
    count = int(rng.choice(6, p=[0.06, 0.26, 0.28, 0.20, 0.12, 0.08]))
    horizon = float(rng.uniform(0.5, 0.68))
    objects: list[SceneObject] = []
    for _ in range(count * 12):
        if len(objects) == count:
            break
        candidate = _sample_object(rng, count, horizon, smallest=0.28 if style == "pixel" else 0.12)
        if all(_overlap(candidate.box, other.box) < 0.18 for other in objects):
            objects.append(candidate)
    objects.sort(key=lambda o: o.box[3])
    background = str(rng.choice(list(BACKGROUNDS)))
    return SceneGraph(objects=tuple(objects), background=background, style=style, horizon=horizon, detail_seed=seed)


def _sample_object(rng: np.random.Generator, count: int, horizon: float, smallest: float) -> SceneObject:
    """One random object, smaller where there are many; mostly on the ground or, if its kind is airborne, in the sky."""
    kind = KINDS[rng.integers(len(KINDS))]
    largest = {1: 0.6, 2: 0.52, 3: 0.46}.get(count, 0.4)
    size = float(smallest + (largest - smallest) * rng.beta(1.6, 1.6))
    # On a small object no texture could be recognised.
    textured = size > 0.22 and rng.random() < 0.35
    aspect = SHAPES[kind].aspect
    w, h = (size, size / aspect) if aspect >= 1 else (size * aspect, size)
    x = rng.uniform(w / 2 + 0.01, 0.99 - w / 2)
    if rng.random() < 0.25:
        low, high = h / 2 + 0.01, 0.99 - h / 2
    elif SHAPES[kind].airborne:
        low, high = h / 2 + 0.01, max(h / 2 + 0.02, horizon - h / 2 + 0.1)
    else:
        low, high = max(h / 2 + 0.01, horizon + 0.04 - h / 2), 0.99 - h / 2
    y = rng.uniform(min(low, high), max(low, high))
    jitter = rng.integers(-10, 11, 3)
    return SceneObject(
        kind=kind,
        colour=list(COLOURS)[rng.integers(len(COLOURS))],
        texture=str(rng.choice(TEXTURES[1:])) if textured else "plain",
        centre_xy=(float(x), float(y)),
        size=size,
        flip=bool(rng.random() < 0.5),
        tone=(int(jitter[0]), int(jitter[1]), int(jitter[2])),
    )


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes (x0, y0, x1, y1) share, divided by the area of the smaller one."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(w, 0) * max(h, 0) / smaller
