"""Training examples of the inpainter: a window of a scene, the hole in it that is to be filled, and its caption."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from maskless.storybook.world.captions import describe_empty, describe_object, describe_scene, with_style
from maskless.storybook.world.edits import Window, graph_of_window
from maskless.storybook.world.scenes import Scene, VisibleObject

CENTRED = 0.85
"""Share of the objects' holes whose middle is the middle of the object: a model that has to guess where in a hole the
object lies draws a mixture of the possible places."""


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A window of a scene, the mask [H, W] of the whole picture (True = to be filled), and the text for the filling."""

    window: Window
    mask: np.ndarray
    text: str


def random_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """One of six kinds of hole, in any style: an object's box, a box that hides no object, the border, scratches,
    everything around some objects, or the whole picture.

    New textures and styles are drawn by the redrawer, which sees the picture, so no hole is for them.
    """
    side, choice = scene.image.width, rng.random()
    whole = (0, 0, side, side)
    if choice < 0.58 and scene.objects:
        return _object_hole(scene, scene.objects[int(rng.integers(len(scene.objects)))], rng)
    if choice < 0.84:
        return _empty_hole(scene, rng)
    if choice < 0.92:
        return Hole(window=whole, mask=_border(side, rng), text=_scene_text(scene, rng))
    if choice < 0.94:
        text = "" if rng.random() < 0.5 else _scene_text(scene, rng)
        return Hole(window=whole, mask=_scratches(side, rng), text=text)
    if choice < 0.98 and scene.objects:
        return _surroundings_hole(scene, rng)
    return Hole(window=whole, mask=np.ones((side, side), dtype=bool), text=_scene_text(scene, rng))


def window_of(box: tuple[int, int, int, int], side: int, scale: float, rng: np.random.Generator) -> Window:
    """A square window around a box, `scale` times its longer side where there is room, the box near its middle."""
    x0, y0, x1, y1 = box
    width = int(np.clip(round(max(x1 - x0, y1 - y0) * scale), 24, side))
    free_x, free_y = width - (x1 - x0), width - (y1 - y0)
    left = x0 - round(free_x * rng.uniform(0.25, 0.75))
    top = y0 - round(free_y * rng.uniform(0.25, 0.75))
    left, top = int(np.clip(left, 0, side - width)), int(np.clip(top, 0, side - width))
    return left, top, left + width, top + width


def _object_hole(scene: Scene, item: VisibleObject, rng: np.random.Generator) -> Hole:
    """An object's box with some margin, or rarely its outline, and the object's description.

    In half of all cases the visible parts of other objects are kept.
    """
    side = scene.image.width
    x0, y0, x1, y1 = item.box_xyxy
    room = _room(x1 - x0, y1 - y0, rng)
    box = (
        max(0, int(x0 - room[0])),
        max(0, int(y0 - room[1])),
        min(side, int(x1 + room[2])),
        min(side, int(y1 + room[3])),
    )
    mask = _dilate(item.mask, int(rng.integers(1, 5))) if rng.random() < 0.1 else _box_mask(box, side)
    others = [other.mask for other in scene.objects if other.index != item.index]
    if others and rng.random() < 0.5:  # as the engine keeps the outlines of other objects that reach into a region
        without = mask & ~_dilate(np.any(others, axis=0), int(rng.integers(0, 2)))
        mask = without if without.any() else mask
    text = describe_object(scene.graph.objects[item.index], rng)
    if rng.random() < 0.2:
        text = describe_scene(dataclasses.replace(scene.graph, objects=(scene.graph.objects[item.index],)), rng)
    elif scene.graph.style != "flat" and rng.random() < 0.5:
        text = with_style(text, scene.graph.style, rng)
    return Hole(window=window_of(box, side, float(rng.uniform(1.25, 2.2)), rng), mask=mask, text=text)


def _room(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Pixels [left, top, right, bottom] between an object and the edges of its hole, mostly the same on opposite sides.

    width, height: of the object's box, in pixels.
    """
    longer = max(width, height)
    if rng.random() < CENTRED:
        room = np.full(4, rng.uniform(0.02, 0.12) * longer + 1)
    else:
        room = rng.uniform(0.0, 0.22, 4) * longer + 1
    choice = rng.random()
    if choice < 0.75:  # a square, or the region of an object of another shape
        aspect = 1.0 if choice < 0.4 else np.exp(rng.uniform(-0.7, 0.7))
        hole_width, hole_height = width + room[0] + room[2], height + room[1] + room[3]
        room[[0, 2]] += max(hole_height * aspect - hole_width, 0) / 2
        room[[1, 3]] += max(hole_width / aspect - hole_height, 0) / 2
    return room


def _surroundings_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """Everything but some of the objects. Where all are kept, the text mostly names the background only."""
    kept = [item for item in scene.objects if rng.random() < 0.8] or list(scene.objects)
    mask = ~_dilate(np.any([item.mask for item in kept], axis=0), int(rng.integers(0, 4)))
    if len(kept) == len(scene.objects) and rng.random() < 0.6:
        text = describe_empty(scene.graph.background, rng)
    else:
        text = _scene_text(scene, rng)
    side = scene.image.width
    return Hole(window=(0, 0, side, side), mask=mask, text=text)


def _empty_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """A random box that hides at most about a third of every object; the last of eight boxes may hide more."""
    side = scene.image.width
    for _ in range(8):
        w = int(rng.uniform(0.14, 0.6) * side)
        h = int(np.clip(w * np.exp(rng.uniform(-0.6, 0.6)), side * 0.1, side * 0.7))
        x, y = int(rng.integers(0, side - w + 1)), int(rng.integers(0, side - h + 1))
        box = (x, y, x + w, y + h)
        if not graph_of_window(scene, box, least=0.34).objects:
            break
    inside = graph_of_window(scene, box, least=0.34)
    text = describe_scene(inside, rng) if inside.objects else describe_empty(scene.graph.background, rng)
    return Hole(window=window_of(box, side, float(rng.uniform(1.25, 2.2)), rng), mask=_box_mask(box, side), text=text)


def _scene_text(scene: Scene, rng: np.random.Generator) -> str:
    return describe_scene(scene.graph, rng)


def _box_mask(box: Window, side: int) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def _dilate(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask, wider by some pixels."""
    if not pixels:  # Pillow 12.3.0 crashes on a filter of one pixel
        return mask
    wider = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.asarray(wider) > 0


def _border(side: int, rng: np.random.Generator) -> np.ndarray:
    """Everything outside an inner rectangle, as when a picture is to be extended; at least one side is masked."""
    cut = (rng.uniform(0.1, 0.4, 4) * side * (rng.random(4) < 0.6)).astype(int)
    if not cut.any():
        cut[int(rng.integers(4))] = side // 4
    mask = np.ones((side, side), dtype=bool)
    mask[cut[1] : side - cut[3], cut[0] : side - cut[2]] = False
    return mask


def _scratches(side: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of two to six bent lines."""
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 7))):
        ends = (rng.random((3, 2)) * side).ravel().tolist()
        pen.line(ends, fill=255, width=int(rng.integers(2, max(3, side // 24))))
    return np.asarray(canvas) > 0
