"""What the inpainter learns to fill: a picture's window, the mask in it, and the words for what belongs there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from maskless.storybook.world.captions import STYLE_WORDS, describe_empty, describe_object, describe_scene, with_style
from maskless.storybook.world.edits import Window, shown
from maskless.storybook.world.scenes import Scene, VisibleObject
from maskless.storybook.world.styles import BLOCKS


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A window of a scene, the mask in it ([H, W] of the whole picture, True = to be filled), and its text."""

    window: Window
    mask: np.ndarray
    text: str


def random_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """An object's box or outline, an empty box, the border, scratches, all around some objects, or everything."""
    side, choice = scene.image.width, rng.random()
    if scene.graph.style != "flat" and rng.random() < 0.6:
        return _manner_hole(scene, rng)
    textured = [thing for thing in scene.objects if thing.texture != "plain"]
    if choice < 0.24 and textured:
        return _outline_hole(scene, textured[int(rng.integers(len(textured)))], rng)
    if choice < 0.62 and scene.objects:
        return _object_hole(scene, scene.objects[int(rng.integers(len(scene.objects)))], rng)
    if choice < 0.83:
        return _empty_hole(scene, rng)
    whole = (0, 0, side, side)
    if choice < 0.88:
        return Hole(window=whole, mask=_border(side, rng), text=_scene_text(scene, rng))
    if choice < 0.91:
        return Hole(
            window=whole, mask=_scratches(side, rng), text="" if rng.random() < 0.5 else _scene_text(scene, rng)
        )
    if choice < 0.97 and scene.objects:
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


def _object_hole(scene: Scene, thing: VisibleObject, rng: np.random.Generator) -> Hole:
    side = scene.image.width
    x0, y0, x1, y1 = thing.box_xyxy
    room = rng.uniform(0.0, 0.22, 4) * max(x1 - x0, y1 - y0) + 1
    if rng.random() < 0.5:  # the square regions of the method
        short = ((y1 - y0) - (x1 - x0)) / 2
        room[[0, 2]] += max(short, 0)
        room[[1, 3]] += max(-short, 0)
    box = (
        max(0, int(x0 - room[0])),
        max(0, int(y0 - room[1])),
        min(side, int(x1 + room[2])),
        min(side, int(y1 + room[3])),
    )
    mask = _grown(thing.mask, int(rng.integers(1, 5))) if rng.random() < 0.1 else _box_mask(box, side)
    text = describe_object(scene.graph.objects[thing.index], rng)
    if rng.random() < 0.2:
        text = describe_scene(dataclasses.replace(scene.graph, objects=(scene.graph.objects[thing.index],)), rng)
    elif scene.graph.style != "flat" and rng.random() < 0.5:
        text = with_style(text, scene.graph.style, rng)
    return Hole(window=window_of(box, side, float(rng.uniform(1.25, 2.2)), rng), mask=mask, text=text)


def _outline_hole(scene: Scene, thing: VisibleObject, rng: np.random.Generator) -> Hole:
    """A textured object's own outline, more or less, and its texture said: it is drawn in the shape that is there."""
    graph = scene.graph.objects[thing.index]
    text = " ".join(word for word in (graph.colour, graph.texture, graph.kind) if word)
    text = f"{'an' if text[0] in 'aeiou' else 'a'} {text}" if rng.random() < 0.7 else describe_object(graph, rng)
    if scene.graph.style != "flat" and rng.random() < 0.5:
        text = with_style(text, scene.graph.style, rng)
    window = window_of(thing.box_xyxy, scene.image.width, float(rng.uniform(1.25, 2.2)), rng)
    return Hole(window=window, mask=_grown(thing.mask, int(rng.integers(0, 4))), text=text)


def _surroundings_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """All but some of the objects: where all are kept, half of the time the text names the place only."""
    kept = [thing for thing in scene.objects if rng.random() < 0.8] or list(scene.objects)
    mask = ~_grown(np.any([thing.mask for thing in kept], axis=0), int(rng.integers(0, 4)))
    if len(kept) == len(scene.objects) and rng.random() < 0.6:
        text = describe_empty(scene.graph.background, rng)
    else:
        text = _scene_text(scene, rng)
    side = scene.image.width
    return Hole(window=(0, 0, side, side), mask=mask, text=text)


def _manner_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """Everything, in a scene that is no flat drawing, its manner said. Mostly a window of half the side on the grid of
    pixel art's blocks: a whole picture is drawn over in such tiles (engine/tiles.py), a block a cell of the latents."""
    side = scene.image.width
    if rng.random() < 0.65:
        width = side // 2
        x, y = (int(v) * side // BLOCKS for v in rng.integers(0, BLOCKS // 2 + 1, 2))
    else:
        width = side if rng.random() < 0.4 else int(rng.uniform(0.45, 0.9) * side)
        x, y = (int(v) for v in rng.integers(0, side - width + 1, 2))
    window = (x, y, x + width, y + width)
    graph = shown(scene, window, least=0.5) if rng.random() < 0.5 else scene.graph
    text = describe_scene(graph, rng)
    if not any(word in text for word in STYLE_WORDS[graph.style]):
        text = with_style(text, graph.style, rng)
    return Hole(window=window, mask=_box_mask(window, side), text=text)


def _empty_hole(scene: Scene, rng: np.random.Generator) -> Hole:
    """A box that hides less than a third of any object; among eight tries the first that does."""
    side = scene.image.width
    for _ in range(8):
        w = int(rng.uniform(0.14, 0.6) * side)
        h = int(np.clip(w * np.exp(rng.uniform(-0.6, 0.6)), side * 0.1, side * 0.7))
        x, y = int(rng.integers(0, side - w + 1)), int(rng.integers(0, side - h + 1))
        box = (x, y, x + w, y + h)
        if not shown(scene, box, least=0.34).objects:
            break
    inside = shown(scene, box, least=0.34)
    text = describe_scene(inside, rng) if inside.objects else describe_empty(scene.graph.background, rng)
    return Hole(window=window_of(box, side, float(rng.uniform(1.25, 2.2)), rng), mask=_box_mask(box, side), text=text)


def _scene_text(scene: Scene, rng: np.random.Generator) -> str:
    return describe_scene(scene.graph, rng)


def _box_mask(box: Window, side: int) -> np.ndarray:
    mask = np.zeros((side, side), dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    if not pixels:  # Pillow 12.3.0 dies of a filter of one pixel
        return mask
    grown = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(2 * pixels + 1))
    return np.asarray(grown) > 0


def _border(side: int, rng: np.random.Generator) -> np.ndarray:
    """All but an inner rectangle; at least one side of the frame is to be extended."""
    cut = (rng.uniform(0.1, 0.4, 4) * side * (rng.random(4) < 0.6)).astype(int)
    if not cut.any():
        cut[int(rng.integers(4))] = side // 4
    mask = np.ones((side, side), dtype=bool)
    mask[cut[1] : side - cut[3], cut[0] : side - cut[2]] = False
    return mask


def _scratches(side: int, rng: np.random.Generator) -> np.ndarray:
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(2, 7))):
        ends = (rng.random((3, 2)) * side).ravel().tolist()
        pen.line(ends, fill=255, width=int(rng.integers(2, max(3, side // 24))))
    return np.asarray(canvas) > 0
