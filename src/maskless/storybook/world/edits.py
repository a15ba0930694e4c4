"""Random edits of a scene graph, and the windows that show the objects of a drawn scene.

Training and evaluation both use them. A window is a half-open box (x0, y0, x1, y1) in pixels of the picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, SceneGraph
from maskless.storybook.world.scenes import Scene, VisibleObject
from maskless.storybook.world.styles import STYLES

LARGE = 0.22  # size, as a fraction of the side, above which an object is large enough for a texture to be recognised

Window = tuple[int, int, int, int]


def choose_other(options: tuple[str, ...], than: str, rng: np.random.Generator) -> str:
    """A random option that is not `than`."""
    rest = [option for option in options if option != than]
    return rest[int(rng.integers(len(rest)))]


def random_edit(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph:
    """The same scene with one random change.

    An object gets another kind, another colour, both, or another texture, or it is removed; or the background or the
    style changes.
    """
    choice = rng.random()
    if not graph.objects or choice < 0.08:
        return graph.with_background(choose_other(tuple(BACKGROUNDS), graph.background, rng))
    if choice < 0.14:
        return graph.with_style(choose_other(tuple(STYLES), graph.style, rng))
    index = int(rng.integers(len(graph.objects)))
    item = graph.objects[index]
    if choice < 0.24:
        return graph.remove_object(index)
    if choice < 0.3 and item.texture != "plain":
        return graph.replace_object(index, texture=choose_other(TEXTURES, item.texture, rng))
    changes = {}
    if choice < 0.75:
        changes["kind"] = choose_other(KINDS, item.kind, rng)
    if choice > 0.6:
        changes["colour"] = choose_other(tuple(COLOURS), item.colour, rng)
    return graph.replace_object(index, **changes)


def with_new_textures(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph:
    """The same scene with a random texture on every large object; one in four is plain."""
    for index, item in enumerate(graph.objects):
        if item.size > LARGE:
            graph = graph.replace_object(index, texture=str(rng.choice(TEXTURES)))
    return graph


def with_weighted_kinds(graph: SceneGraph, weights: Mapping[str, float], rng: np.random.Generator) -> SceneGraph:
    """The same scene with another random kind for every object. weights: how often each kind is drawn, relative to 1,
    the weight of a kind that is not named."""
    odds = np.array([weights.get(kind, 1.0) for kind in KINDS])
    for index in range(len(graph.objects)):
        graph = graph.replace_object(index, kind=str(rng.choice(KINDS, p=odds / odds.sum())))
    return graph


def facing_one_way(graph: SceneGraph) -> SceneGraph:
    """The same scene with no object mirrored, so that all fish face the same way."""
    return dataclasses.replace(graph, objects=tuple(dataclasses.replace(item, flip=False) for item in graph.objects))


def window_around(item: VisibleObject, side: int, rng: np.random.Generator, tight: bool = False) -> Window:
    """A square window that shows an object: `tight`, or with more room around it and the object off centre."""
    x0, y0, x1, y1 = item.box_xyxy
    longer = max(x1 - x0, y1 - y0)
    scale = rng.uniform(1.02, 1.25) if tight else np.exp(rng.uniform(np.log(1.0), np.log(2.6)))
    width = int(np.clip(round(longer * scale), 12, side))
    slack = 0.06 if tight else 0.3
    cx = (x0 + x1) / 2 + rng.uniform(-slack, slack) * (width - longer * 0.5)
    cy = (y0 + y1) / 2 + rng.uniform(-slack, slack) * (width - longer * 0.5)
    left, top = int(np.clip(cx - width / 2, 0, side - width)), int(np.clip(cy - width / 2, 0, side - width))
    return left, top, left + width, top + width


def share_inside(item: VisibleObject, window: Window) -> float:
    """Share of an object's visible pixels that lie in the window, in [0, 1]."""
    x0, y0, x1, y1 = window
    return float(item.mask[y0:y1, x0:x1].sum() / item.mask.sum())


def graph_of_window(scene: Scene, window: Window, least: float = 0.6) -> SceneGraph:
    """The graph of what a window shows: with the objects of which at least the share `least` lies in the window."""
    inside = [scene.graph.objects[item.index] for item in scene.objects if share_inside(item, window) >= least]
    return dataclasses.replace(scene.graph, objects=tuple(inside))
