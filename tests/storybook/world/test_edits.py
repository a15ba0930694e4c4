"""Edits of a scene change one respect, and windows show the objects that they are around."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from maskless.storybook.world.edits import (
    LARGE,
    choose_other,
    facing_one_way,
    graph_of_window,
    random_edit,
    share_inside,
    window_around,
    with_new_textures,
    with_weighted_kinds,
)
from maskless.storybook.world.graph import KINDS, TEXTURES, sample
from maskless.storybook.world.scenes import render


def test_the_other_option_is_never_the_given_one() -> None:
    rng = np.random.default_rng(0)
    assert {choose_other(("a", "b", "c"), "b", rng) for _ in range(50)} == {"a", "c"}


def test_a_random_edit_changes_exactly_one_respect() -> None:
    kinds_of_change: Counter[str] = Counter()
    for seed in range(300):
        graph = sample(seed)
        edited = random_edit(graph, np.random.default_rng(seed))
        if len(edited.objects) < len(graph.objects):
            kinds_of_change["removed"] += 1
            assert len(edited.objects) == len(graph.objects) - 1
            continue
        changed = [a != b for a, b in zip(graph.objects, edited.objects, strict=True)]
        changed += [graph.background != edited.background, graph.style != edited.style]
        assert sum(changed) == 1
        kinds_of_change["background" if changed[-2] else "style" if changed[-1] else "object"] += 1
    assert set(kinds_of_change) == {"removed", "background", "style", "object"}


def test_a_window_around_an_object_shows_it() -> None:
    rng = np.random.default_rng(0)
    for seed in range(60):
        scene = render(seed)
        for item in scene.objects:
            window = window_around(item, 128, rng, tight=True)
            assert window[2] - window[0] == window[3] - window[1]
            assert min(window[:2]) >= 0 and max(window[2:]) <= 128
            assert scene.graph.objects[item.index] in graph_of_window(scene, window).objects


def test_the_share_of_an_object_in_a_window_is_that_of_its_pixels() -> None:
    scene = next(s for s in map(render, range(50)) if s.objects)
    item = scene.objects[0]
    assert share_inside(item, (0, 0, 128, 128)) == 1 and share_inside(item, item.box_xyxy) == 1
    left, right = (0, 0, 64, 128), (64, 0, 128, 128)
    assert abs(share_inside(item, left) + share_inside(item, right) - 1) < 1e-9
    assert scene.graph == graph_of_window(scene, (0, 0, 128, 128))
    assert graph_of_window(scene, (0, 0, 1, 1)).objects == ()


def test_new_textures_are_of_every_kind_and_on_large_objects_only() -> None:
    rng, seen = np.random.default_rng(0), Counter[str]()
    for seed in range(200):
        before = sample(seed)
        after = with_new_textures(before, rng)
        for was, now in zip(before.objects, after.objects, strict=True):
            if was.size > LARGE:
                seen[now.texture] += 1
            assert now == dataclasses.replace(was, texture=now.texture if was.size > LARGE else was.texture)
    assert set(seen) == set(TEXTURES) and max(seen.values()) < 1.5 * min(seen.values())


def test_kinds_are_drawn_by_their_weights_and_all_else_stays() -> None:
    counts: Counter[str] = Counter()
    for seed in range(400):
        graph = sample(seed)
        weighted = with_weighted_kinds(graph, {"fish": 23.0}, np.random.default_rng(seed))
        counts.update(item.kind for item in weighted.objects)
        changed = [dataclasses.replace(item, kind="fish") for item in weighted.objects]
        assert changed == [dataclasses.replace(item, kind="fish") for item in graph.objects]
        assert dataclasses.replace(weighted, objects=graph.objects) == graph
    assert 0.4 < counts["fish"] / counts.total() < 0.6, "its weight is that of the 23 others together"
    assert set(counts) == set(KINDS)


def test_facing_one_way_no_object_is_mirrored_and_all_else_stays() -> None:
    graphs = [sample(seed) for seed in range(50)]
    assert any(item.flip for graph in graphs for item in graph.objects)
    for graph in graphs:
        turned = facing_one_way(graph)
        assert not any(item.flip for item in turned.objects)
        flips = [item.flip for item in graph.objects]
        restored = [dataclasses.replace(item, flip=flip) for item, flip in zip(turned.objects, flips, strict=True)]
        assert dataclasses.replace(turned, objects=tuple(restored)) == graph
