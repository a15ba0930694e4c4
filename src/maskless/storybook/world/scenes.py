"""The drawn world: a scene graph from a seed, and its picture with the truth of what stands where.

    scene = render(7)                      # sample(7), then draw
    truth = draw(scene.graph.replace_object(0, kind="house", colour="blue"))

Coordinates in a graph are fractions of the picture's side, (x, y) with y downwards: a scene can be drawn at any size.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from maskless.storybook.world.backgrounds import BACKGROUNDS, paint_background
from maskless.storybook.world.shapes import FIXED_PAINTS, SHAPES
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

# Seeds are split once and for all. The judge trains in the second half of `train`, everything else in the first.
SPLITS = {
    "train": range(0, 800_000_000),
    "validation": range(800_000_000, 900_000_000),
    "held-out": range(900_000_000, 1_000_000_000),
}
JUDGE_OFFSET = 400_000_000


def split_seed(split: str, index: int) -> int:
    """The seed of scene `index` of a split ("train", "validation", "held-out")."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return SPLITS[split][index]


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One thing in a scene: what it is, and the centre (x, y) and longer side of its box as fractions of the side."""

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
    """What a scene consists of: objects from back to front, place, style, and the seed of the place's details."""

    objects: tuple[SceneObject, ...]
    background: str
    style: str
    horizon: float
    detail_seed: int

    def replace_object(self, index: int, **changes: object) -> SceneGraph:
        """With object `index` changed (kind=…, colour=…, texture=…), standing where it stood."""
        changed = dataclasses.replace(self.objects[index], **changes)  # type: ignore[arg-type]
        return dataclasses.replace(self, objects=(*self.objects[:index], changed, *self.objects[index + 1 :]))

    def remove_object(self, index: int) -> SceneGraph:
        return dataclasses.replace(self, objects=(*self.objects[:index], *self.objects[index + 1 :]))

    def add_object(self, added: SceneObject) -> SceneGraph:
        """With one more object, in front of the others."""
        return dataclasses.replace(self, objects=(*self.objects, added))

    def with_background(self, background: str) -> SceneGraph:
        return dataclasses.replace(self, background=background)

    def with_style(self, style: str) -> SceneGraph:
        return dataclasses.replace(self, style=style)


@dataclass(frozen=True, kw_only=True)
class VisibleObject:
    """An object of a drawn scene: the half-open box (x0, y0, x1, y1) and the mask [H, W] of its visible pixels."""

    kind: str
    colour: str
    texture: str
    box_xyxy: tuple[int, int, int, int]
    mask: np.ndarray
    index: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A drawn scene: RGB picture, graph, and its visible objects from back to front."""

    image: Image.Image
    graph: SceneGraph
    objects: tuple[VisibleObject, ...]

    @property
    def caption(self) -> str:
        """One caption of the whole scene, the same for the same scene."""
        return self.captions[0]

    @property
    def captions(self) -> tuple[str, ...]:
        """Four captions that say the same in different words."""
        from maskless.storybook.world.captions import describe_scene

        rng = np.random.default_rng(self.graph.detail_seed)
        return tuple(describe_scene(self.graph, rng) for _ in range(4))


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
    kind = KINDS[rng.integers(len(KINDS))]
    largest = {1: 0.6, 2: 0.52, 3: 0.46}.get(count, 0.4)
    size = float(smallest + (largest - smallest) * rng.beta(1.6, 1.6))
    # A texture needs room to be seen.
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
    """Shared area of two boxes over the smaller one's."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(w, 0) * max(h, 0) / smaller


def render(seed: int, size: int = 128) -> Scene:
    """The scene of a seed, drawn [size, size]; the same seed and size give the same bytes."""
    return draw(sample(seed), size)


def draw(graph: SceneGraph, size: int = 128) -> Scene:
    """A graph's picture, `size` pixels a side (at least 16), anti-aliased, with each object's visible box and mask."""
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")
    side = size * (3 if size <= 256 else 2)
    canvas = paint_background(graph.background, side, graph.horizon, graph.detail_seed)
    labels = Image.new("L", (size, size))
    canvas_draw, labels_draw = ImageDraw.Draw(canvas), ImageDraw.Draw(labels)
    for number, thing in enumerate(graph.objects, start=1):
        _draw_object(canvas, canvas_draw, thing, side)
        for part in SHAPES[thing.kind].parts:
            labels_draw.polygon(_placed(part.points, thing, size), fill=number)
    image = STYLES[graph.style](canvas.reduce(side // size), graph.detail_seed)
    return Scene(image=image, graph=graph, objects=_visible(graph, np.asarray(labels)))


def _visible(graph: SceneGraph, labels: np.ndarray) -> tuple[VisibleObject, ...]:
    found = []
    for number, thing in enumerate(graph.objects, start=1):
        mask = labels == number
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        found.append(
            VisibleObject(
                kind=thing.kind, colour=thing.colour, texture=thing.texture, box_xyxy=box, mask=mask, index=number - 1
            )
        )
    return tuple(found)


def _placed(points: np.ndarray, thing: SceneObject, side: int) -> list[float]:
    """Polygon points [N, 2] of the unit square in pixels of a canvas, flattened to x, y, x, y, …"""
    x0, y0, x1, y1 = thing.box
    x = 1 - points[:, 0] if thing.flip else points[:, 0]
    return np.stack([(x0 + x * (x1 - x0)) * side, (y0 + points[:, 1] * (y1 - y0)) * side], axis=1).ravel().tolist()


def _mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> tuple[int, int, int]:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _paints(thing: SceneObject) -> dict[str, tuple[int, int, int]]:
    base = tuple(min(255, max(0, c + t)) for c, t in zip(COLOURS[thing.colour], thing.tone, strict=True))
    relative = {
        "body": base,
        "shade": _mix(base, (20, 14, 40), 0.16),
        "light": _mix(base, (255, 255, 255), 0.35),
        "dark": _mix(base, (20, 14, 40), 0.32),
    }
    return {**FIXED_PAINTS, **relative}  # type: ignore[dict-item]


def _draw_object(canvas: Image.Image, canvas_draw: ImageDraw.ImageDraw, thing: SceneObject, side: int) -> None:
    paints = _paints(thing)
    pattern = None
    if thing.texture != "plain":
        period = max(4, round(thing.size * side / 6))
        pattern = _pattern(thing.texture, period, int(np.ceil(thing.size * side)) + 2)
        light = thing.colour in ("white", "yellow")
        second = _mix(paints["body"], (90, 90, 120) if light else (255, 255, 255), 0.55 if light else 0.7)
    for part in SHAPES[thing.kind].parts:
        xy = _placed(part.points, thing, side)
        canvas_draw.polygon(xy, fill=paints[part.paint])
        if pattern is not None and part.paint == "body":
            x0, y0 = int(min(xy[::2])), int(min(xy[1::2]))
            w, h = int(max(xy[::2])) - x0 + 1, int(max(xy[1::2])) - y0 + 1
            mask = Image.new("L", (w, h))
            ImageDraw.Draw(mask).polygon([v - (x0, y0)[i % 2] for i, v in enumerate(xy)], fill=255)
            ox, oy = x0 - int(thing.box[0] * side), y0 - int(thing.box[1] * side)
            canvas.paste(second, (x0, y0), ImageChops.multiply(mask, pattern.crop((ox, oy, ox + w, oy + h))))


@lru_cache(maxsize=256)
def _pattern(texture: str, period: int, side: int) -> Image.Image:
    """Where the second colour of a texture shows: an L image [side, side] of 0 and 255."""
    rows, columns = np.mgrid[:side, :side]
    if texture == "striped":
        on = rows % period < period // 2
    elif texture == "checkered":
        on = (rows // period + columns // period) % 2 == 0
    else:
        shift = (rows // period % 2) * (period // 2)
        on = ((rows % period - period / 2) ** 2 + ((columns + shift) % period - period / 2) ** 2) < (0.3 * period) ** 2
    return Image.fromarray((on * 255).astype(np.uint8))
