"""Captions: they name what is there, in several ways, and the tokenizer takes any text."""

from __future__ import annotations

import numpy as np

from maskless.storybook.training.tokenizer import CONTEXT, build_tokenizer
from maskless.storybook.world.captions import (
    PLACES,
    STYLE_WORDS,
    describe_change,
    describe_empty,
    describe_object,
    describe_scene,
    plural,
)
from maskless.storybook.world.scenes import KINDS, SceneGraph, SceneObject, sample


def _thing(kind: str, colour: str, x: float = 0.5) -> SceneObject:
    return SceneObject(kind=kind, colour=colour, centre_xy=(x, 0.5), size=0.3)


def test_an_object_is_described_in_several_ways_and_always_by_kind_and_colour() -> None:
    rng = np.random.default_rng(0)
    texts = {describe_object(_thing("car", "red"), rng) for _ in range(200)}
    assert {"a red car", "red car", "a car that is red", "the red car"} <= texts
    assert all("car" in text and "red" in text for text in texts)
    assert "an orange apple" in {describe_object(_thing("apple", "orange"), rng) for _ in range(50)}


def test_equal_things_are_counted() -> None:
    graph = SceneGraph(
        objects=(_thing("tree", "green", 0.2), _thing("tree", "green", 0.5), _thing("house", "blue", 0.8)),
        background="snow", style="flat", horizon=0.6, detail_seed=0,
    )  # fmt: skip
    texts = [describe_scene(graph, np.random.default_rng(i)) for i in range(60)]
    assert any("two green trees" in text for text in texts) and any("two trees" in text for text in texts)
    assert any(text.endswith("in the snow") for text in texts)
    assert all("house" in text for text in texts)


def test_places_and_styles_are_named() -> None:
    rng = np.random.default_rng(0)
    assert "empty meadow" in {describe_empty("meadow", rng) for _ in range(30)}
    sketch = SceneGraph(objects=(), background="beach", style="pencil", horizon=0.6, detail_seed=0)
    texts = [describe_scene(sketch, rng) for _ in range(40)]
    assert sum(any(word in text for word in STYLE_WORDS["pencil"]) for text in texts) > 20
    assert all(any(name in text for name, _ in PLACES.values()) for text in texts)


def test_every_caption_fits_the_context_and_known_words_are_one_token() -> None:
    tokens = build_tokenizer()
    rng = np.random.default_rng(1)
    longest = max(len(tokens(describe_scene(sample(seed), rng)).input_ids) for seed in range(400))
    assert longest <= 2 * CONTEXT
    for kind in KINDS:
        assert len(tokens.tokenize(kind)) == len(tokens.tokenize(plural(kind))) == 1


def test_unknown_words_have_tokens_too() -> None:
    tokens = build_tokenizer()
    for text in ("xylophone", "Zürich 🙂", "", "a" * 500, "日本語"):
        ids = tokens(text).input_ids
        assert ids[0] == tokens.bos_token_id and ids[-1] == tokens.eos_token_id
        assert max(ids) < len(tokens)


def test_a_change_is_named_in_words_that_are_else_the_same() -> None:
    graph = SceneGraph(
        objects=(_thing("house", "blue", 0.2), _thing("car", "red", 0.7)),
        background="snow", style="flat", horizon=0.6, detail_seed=0,
    )  # fmt: skip
    for seed in range(30):
        was, said = describe_change(graph, graph.with_background("sea"), seed)
        assert was.replace("in the snow", "at sea") == said != was
        was, said = describe_change(graph.with_style("watercolour"), graph, seed)
        assert "watercolour" in was and "watercolour" not in said
        was, said = describe_change(graph, graph.replace_object(1, texture="dotted"), seed)
        assert said.replace(" and dotted", "").replace("dotted ", "") == was != said


def test_a_change_that_no_caption_names_ends_in_equal_captions() -> None:
    graph = SceneGraph(
        objects=(_thing("tree", "green", 0.2), _thing("tree", "green", 0.8)),
        background="snow", style="flat", horizon=0.6, detail_seed=0,
    )  # fmt: skip
    by_count = [describe_change(graph, graph.replace_object(0, texture="striped"), seed) for seed in range(20)]
    assert all(was == said and "two" in said for was, said in by_count)
