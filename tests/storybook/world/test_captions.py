"""Captions: they name what a scene shows, in several wordings."""

from __future__ import annotations

import numpy as np

from maskless.storybook.world.captions import (
    BACKGROUND_WORDS,
    STYLE_WORDS,
    describe_change,
    describe_empty,
    describe_object,
    describe_scene,
)
from maskless.storybook.world.graph import SceneGraph, SceneObject


def _object(kind: str, colour: str, x: float = 0.5) -> SceneObject:
    return SceneObject(kind=kind, colour=colour, centre_xy=(x, 0.5), size=0.3)


def test_an_object_is_described_in_several_ways_and_always_by_kind_and_colour() -> None:
    rng = np.random.default_rng(0)
    texts = {describe_object(_object("car", "red"), rng) for _ in range(200)}
    assert {"a red car", "red car", "a car that is red", "the red car"} <= texts
    assert all("car" in text and "red" in text for text in texts)
    assert "an orange apple" in {describe_object(_object("apple", "orange"), rng) for _ in range(50)}


def test_equal_objects_are_counted() -> None:
    graph = SceneGraph(
        objects=(_object("tree", "green", 0.2), _object("tree", "green", 0.5), _object("house", "blue", 0.8)),
        background="snow", style="flat", horizon=0.6, detail_seed=0,
    )  # fmt: skip
    texts = [describe_scene(graph, np.random.default_rng(i)) for i in range(60)]
    assert any("two green trees" in text for text in texts) and any("two trees" in text for text in texts)
    assert any(text.endswith("in the snow") for text in texts)
    assert all("house" in text for text in texts)


def test_backgrounds_and_styles_are_named() -> None:
    rng = np.random.default_rng(0)
    assert "empty meadow" in {describe_empty("meadow", rng) for _ in range(30)}
    sketch = SceneGraph(objects=(), background="beach", style="pencil", horizon=0.6, detail_seed=0)
    texts = [describe_scene(sketch, rng) for _ in range(40)]
    assert sum(any(word in text for word in STYLE_WORDS["pencil"]) for text in texts) > 20
    assert all(any(name in text for name, _ in BACKGROUND_WORDS.values()) for text in texts)


def test_a_change_is_named_in_a_caption_that_is_otherwise_the_same() -> None:
    graph = SceneGraph(
        objects=(_object("house", "blue", 0.2), _object("car", "red", 0.7)),
        background="snow", style="flat", horizon=0.6, detail_seed=0,
    )  # fmt: skip
    for seed in range(30):
        before, after = describe_change(graph, graph.with_background("sea"), seed)
        assert before.replace("in the snow", "at sea") == after != before
        before, after = describe_change(graph.with_style("watercolour"), graph, seed)
        assert "watercolour" in before and "watercolour" not in after
        before, after = describe_change(graph, graph.replace_object(1, texture="dotted"), seed)
        assert after.replace(" and dotted", "").replace("dotted ", "") == before != after


def test_a_change_that_no_caption_names_ends_in_equal_captions() -> None:
    graph = SceneGraph(
        objects=(_object("tree", "green", 0.2), _object("tree", "green", 0.8)),
        background="snow", style="flat", horizon=0.6, detail_seed=0,
    )  # fmt: skip
    by_count = [describe_change(graph, graph.replace_object(0, texture="striped"), seed) for seed in range(20)]
    assert all(before == after and "two" in after for before, after in by_count)
