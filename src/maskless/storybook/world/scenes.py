"""The drawn world: the picture of a scene graph, and the truth of where each of its objects can be seen.

    scene = render(7)                      # sample(7), then draw
    truth = draw(scene.graph.replace_object(0, kind="house", colour="blue"))

A graph's coordinates are fractions of the picture's side; those of a drawn scene are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from maskless.storybook.world.backgrounds import paint_background
from maskless.storybook.world.captions import describe_scene
from maskless.storybook.world.graph import COLOURS, SceneGraph, SceneObject, sample
from maskless.storybook.world.shapes import FIXED_PAINTS, SHAPES, Part
from maskless.storybook.world.styles import STYLES

# The split of the seeds never changes. The judge trains on the second half of `train`, all other models on the first.
SPLITS = {
    "train": range(0, 800_000_000),
    "validation": range(800_000_000, 900_000_000),
    "held-out": range(900_000_000, 1_000_000_000),
}
JUDGE_OFFSET = 400_000_000
SEEN_DIFFERENCE = 24
"""By how much of 255 a pixel must change, in some channel, when a part is left out, so that it shows the part."""
LEAST_PART = 0.005
"""The least area in which a part counts as seen, as a share of the square of the longer side of its object."""


def split_seed(split: str, index: int) -> int:
    """The seed of scene `index` of a split ("train", "validation", "held-out")."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return SPLITS[split][index]


@dataclass(frozen=True, kw_only=True)
class VisibleObject:
    """An object of a drawn scene: the half-open box (x0, y0, x1, y1) and the mask [H, W] of its visible pixels.

    `index` is its number in the graph. An object that others hide completely is not among the visible ones.
    """

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
        rng = np.random.default_rng(self.graph.detail_seed)
        return tuple(describe_scene(self.graph, rng) for _ in range(4))


def render(seed: int, size: int = 128) -> Scene:
    """The scene of a seed, drawn [size, size]; the same seed and size give the same bytes."""
    return draw(sample(seed), size)


def draw(graph: SceneGraph, size: int = 128, *, parts: Mapping[int, Sequence[Part]] | None = None) -> Scene:
    """A graph's picture, `size` pixels a side (at least 16), anti-aliased, with each object's visible box and mask.

    parts: the polygons of some objects, by their number in the graph, drawn in place of those of their kind.
    """
    if size < 16:
        raise ValueError(f"size must be at least 16 pixels, got {size}")
    side = size * (3 if size <= 256 else 2)
    canvas = _background(graph.background, side, graph.horizon, graph.detail_seed).copy()
    labels = Image.new("L", (size, size))
    canvas_draw, labels_draw = ImageDraw.Draw(canvas), ImageDraw.Draw(labels)
    for number, item in enumerate(graph.objects, start=1):
        polygons = (parts or {}).get(number - 1, SHAPES[item.kind].parts)
        _draw_object(canvas, canvas_draw, item, polygons, side)
        for part in polygons:
            labels_draw.polygon(_to_canvas(part.points, item, size), fill=number)
    image = STYLES[graph.style](canvas.reduce(side // size), graph.detail_seed)
    return Scene(image=image, graph=graph, objects=_visible(graph, np.asarray(labels)))


@lru_cache(maxsize=1)
def _background(name: str, side: int, horizon: float, seed: int) -> Image.Image:
    """The background alone, kept because the same scene is often drawn again with one object changed."""
    return paint_background(name, side, horizon, seed)


def _visible(graph: SceneGraph, labels: np.ndarray) -> tuple[VisibleObject, ...]:
    """The visible objects from labels [H, W]: each pixel holds the number, from 1, of the object it shows, or 0."""
    found = []
    for number, item in enumerate(graph.objects, start=1):
        mask = labels == number
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        found.append(
            VisibleObject(
                kind=item.kind, colour=item.colour, texture=item.texture, box_xyxy=box, mask=mask, index=number - 1
            )
        )
    return tuple(found)


def _to_canvas(points: np.ndarray, item: SceneObject, side: int) -> list[float]:
    """Polygon points [N, 2] of the object's unit square in pixels of a canvas, flattened to x, y, x, y, …"""
    x0, y0, x1, y1 = item.box
    x = 1 - points[:, 0] if item.flip else points[:, 0]
    return np.stack([(x0 + x * (x1 - x0)) * side, (y0 + points[:, 1] * (y1 - y0)) * side], axis=1).ravel().tolist()


def _mix(a: tuple[int, ...], b: tuple[int, ...], share: float) -> tuple[int, int, int]:
    """The colour `share` of the way from `a` to `b`."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _paints(item: SceneObject) -> dict[str, tuple[int, int, int]]:
    """The RGB colour of every paint that the parts of a shape can name."""
    base = tuple(min(255, max(0, c + t)) for c, t in zip(COLOURS[item.colour], item.tone, strict=True))
    relative = {
        "body": base,
        "shade": _mix(base, (20, 14, 40), 0.16),
        "light": _mix(base, (255, 255, 255), 0.35),
        "dark": _mix(base, (20, 14, 40), 0.32),
    }
    return {**FIXED_PAINTS, **relative}  # type: ignore[dict-item]


def visible_parts(graph: SceneGraph, index: int, size: int = 128) -> dict[str, np.ndarray]:
    """The named parts of object `index` that can be seen: by name, the mask [size, size] of where each is seen.

    A part is seen where the picture would be another one without it. Too little of it must not be hidden by other
    parts and objects or have the colour of what is behind it: the mask has at least LEAST_PART of the square of the
    object's longer side.
    """
    whole, polygons = np.asarray(draw(graph, size).image, dtype=np.int16), SHAPES[graph.objects[index].kind].parts
    found = {}
    for name in SHAPES[graph.objects[index].kind].named_parts:
        rest = draw(graph, size, parts={index: [part for part in polygons if part.name != name]})
        mask = np.abs(whole - np.asarray(rest.image, dtype=np.int16)).max(axis=2) > SEEN_DIFFERENCE
        if mask.sum() >= LEAST_PART * (graph.objects[index].size * size) ** 2:
            found[name] = mask
    return found


def _draw_object(
    canvas: Image.Image, canvas_draw: ImageDraw.ImageDraw, item: SceneObject, polygons: Sequence[Part], side: int
) -> None:
    """Draw an object's polygons from back to front, its texture over those of its body."""
    paints = _paints(item)
    pattern = None
    if item.texture != "plain":
        period = max(4, round(item.size * side / 6))
        pattern = _pattern(item.texture, period, int(np.ceil(item.size * side)) + 2)
        light = item.colour in ("white", "yellow")
        second = _mix(paints["body"], (90, 90, 120) if light else (255, 255, 255), 0.55 if light else 0.7)
    for part in polygons:
        xy = _to_canvas(part.points, item, side)
        canvas_draw.polygon(xy, fill=paints[part.paint])
        if pattern is not None and part.paint == "body":
            x0, y0 = int(min(xy[::2])), int(min(xy[1::2]))
            w, h = int(max(xy[::2])) - x0 + 1, int(max(xy[1::2])) - y0 + 1
            mask = Image.new("L", (w, h))
            ImageDraw.Draw(mask).polygon([v - (x0, y0)[i % 2] for i, v in enumerate(xy)], fill=255)
            ox, oy = x0 - int(item.box[0] * side), y0 - int(item.box[1] * side)
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
