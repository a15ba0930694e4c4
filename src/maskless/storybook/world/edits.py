"""Edited scenes: one random change of a graph, and the crops that show its objects. Used by training and evaluation."""

from __future__ import annotations

import dataclasses

import numpy as np

from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.scenes import COLOURS, KINDS, TEXTURES, Scene, SceneGraph, VisibleObject
from maskless.storybook.world.styles import STYLES

LARGE = 0.22  # of the side, an object on which a texture is seen

Window = tuple[int, int, int, int]


def other(options: tuple[str, ...], than: str, rng: np.random.Generator) -> str:
    """One of the options, but not `than`."""
    rest = [option for option in options if option != than]
    return rest[int(rng.integers(len(rest)))]


def random_edit(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph:
    """The same scene with one thing changed: an object's colour or kind, an object gone, the place or the style."""
    choice = rng.random()
    if not graph.objects or choice < 0.08:
        return graph.with_background(other(tuple(BACKGROUNDS), graph.background, rng))
    if choice < 0.14:
        return graph.with_style(other(tuple(STYLES), graph.style, rng))
    index = int(rng.integers(len(graph.objects)))
    thing = graph.objects[index]
    if choice < 0.24:
        return graph.remove_object(index)
    if choice < 0.3 and thing.texture != "plain":
        return graph.replace_object(index, texture=other(TEXTURES, thing.texture, rng))
    changes = {}
    if choice < 0.75:
        changes["kind"] = other(KINDS, thing.kind, rng)
    if choice > 0.6:
        changes["colour"] = other(tuple(COLOURS), thing.colour, rng)
    return graph.replace_object(index, **changes)


def retextured(graph: SceneGraph, rng: np.random.Generator) -> SceneGraph:
    """The same scene with the textures of its large objects drawn anew, three in four of them no plain one."""
    for index, thing in enumerate(graph.objects):
        if thing.size > LARGE:
            graph = graph.replace_object(index, texture=str(rng.choice(TEXTURES)))
    return graph


def window_around(thing: VisibleObject, side: int, rng: np.random.Generator, tight: bool = False) -> Window:
    """A square window (x0, y0, x1, y1) that shows an object: tight, or with room and off centre."""
    x0, y0, x1, y1 = thing.box_xyxy
    longer = max(x1 - x0, y1 - y0)
    scale = rng.uniform(1.02, 1.25) if tight else np.exp(rng.uniform(np.log(1.0), np.log(2.6)))
    width = int(np.clip(round(longer * scale), 12, side))
    slack = 0.06 if tight else 0.3
    cx = (x0 + x1) / 2 + rng.uniform(-slack, slack) * (width - longer * 0.5)
    cy = (y0 + y1) / 2 + rng.uniform(-slack, slack) * (width - longer * 0.5)
    left, top = int(np.clip(cx - width / 2, 0, side - width)), int(np.clip(cy - width / 2, 0, side - width))
    return left, top, left + width, top + width


def share_inside(thing: VisibleObject, window: Window) -> float:
    """How much of an object's visible pixels the window shows, in [0, 1]."""
    x0, y0, x1, y1 = window
    return float(thing.mask[y0:y1, x0:x1].sum() / thing.mask.sum())


def shown(scene: Scene, window: Window, least: float = 0.6) -> SceneGraph:
    """The graph of what a window shows: the objects of which at least that share is inside."""
    inside = [scene.graph.objects[thing.index] for thing in scene.objects if share_inside(thing, window) >= least]
    return dataclasses.replace(scene.graph, objects=tuple(inside))
