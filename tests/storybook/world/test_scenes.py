"""The drawn world: determinism, variety, the truth of boxes and masks, edits, splits."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.edits import LARGE, retextured
from maskless.storybook.world.scenes import (
    COLOURS,
    KINDS,
    SPLITS,
    TEXTURES,
    SceneGraph,
    SceneObject,
    draw,
    render,
    sample,
    split_seed,
)
from maskless.storybook.world.styles import STYLES


def test_the_world_is_as_rich_as_promised() -> None:
    assert (len(KINDS) >= 24, len(COLOURS), len(BACKGROUNDS) >= 8, len(TEXTURES), len(STYLES)) == (True, 10, True, 4, 4)


@pytest.mark.parametrize("size", [16, 64, 128, 300])
def test_a_seed_gives_the_same_bytes_at_any_size(size: int) -> None:
    first, again = render(11, size), render(11, size)
    assert first.image.size == (size, size)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.captions == again.captions
    assert first.image.tobytes() != render(12, size).image.tobytes()


def test_boxes_are_the_bounds_of_masks_and_masks_do_not_overlap() -> None:
    for seed in range(40):
        scene = render(seed)
        assert len(scene.objects) == len(scene.graph.objects)
        assert sum(thing.mask.astype(int) for thing in scene.objects).max(initial=0) <= 1 if scene.objects else True
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box_xyxy
            assert thing.mask[y0:y1, x0:x1].sum() == thing.mask.sum() > 0
            assert thing.mask[y0].any() and thing.mask[y1 - 1].any()
            assert thing.mask[:, x0].any() and thing.mask[:, x1 - 1].any()


def test_scenes_cover_counts_sizes_styles_and_places() -> None:
    graphs = [sample(seed) for seed in range(600)]
    counts = Counter(len(graph.objects) for graph in graphs)
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert {graph.style for graph in graphs} == set(STYLES)
    assert {graph.background for graph in graphs} == set(BACKGROUNDS)
    things = [thing for graph in graphs for thing in graph.objects]
    assert {thing.kind for thing in things} == set(KINDS)
    assert {thing.texture for thing in things} == set(TEXTURES)
    sizes = [thing.size for thing in things]
    assert 0.12 <= min(sizes) < 0.16 and 0.5 < max(sizes) <= 0.6


def test_an_object_has_its_colour_where_its_mask_is() -> None:
    for colour, rgb in COLOURS.items():
        thing = SceneObject(kind="apple", colour=colour, centre_xy=(0.5, 0.5), size=0.6)
        graph = SceneGraph(objects=(thing,), background="meadow", style="flat", horizon=0.6, detail_seed=0)
        scene = draw(graph)
        inside = np.median(np.asarray(scene.image)[scene.objects[0].mask], axis=0)
        assert np.abs(inside - rgb).max() < 30, colour


def test_edits_of_a_graph_change_what_they_say_and_nothing_else() -> None:
    graph = next(g for g in map(sample, range(100)) if len(g.objects) == 3 and g.style == "flat")
    source = draw(graph)
    removed = draw(graph.remove_object(2))
    gone = source.objects[2].mask
    difference = np.any(np.asarray(source.image) != np.asarray(removed.image), axis=-1)
    assert difference[gone].mean() > 0.9
    # One pixel of anti-aliasing around the mask may change, nothing further away.
    grown = np.zeros_like(gone)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            grown |= np.roll(gone, (dy, dx), axis=(0, 1))
    assert not difference[~grown].any()
    replaced = graph.replace_object(0, kind="house", colour="blue")
    assert (replaced.objects[0].kind, replaced.objects[0].colour) == ("house", "blue")
    assert replaced.objects[1:] == graph.objects[1:]
    assert graph.with_background("sea").background == "sea" and graph.with_style("pencil").style == "pencil"
    assert len(graph.add_object(graph.objects[0]).objects) == 4


def test_textures_drawn_anew_are_of_large_things_only_and_of_every_kind() -> None:
    rng, seen = np.random.default_rng(0), Counter()
    for seed in range(200):
        before = sample(seed)
        after = retextured(before, rng)
        for was, now in zip(before.objects, after.objects, strict=True):
            if was.size > LARGE:
                seen[now.texture] += 1
            assert now == dataclasses.replace(was, texture=now.texture if was.size > LARGE else was.texture)
    assert set(seen) == set(TEXTURES) and max(seen.values()) < 1.5 * min(seen.values())


@pytest.mark.parametrize("style", [style for style in STYLES if style != "flat"])
def test_a_style_changes_the_whole_picture_but_not_the_layout(style: str) -> None:
    graph = next(g for g in map(sample, range(100)) if g.objects and g.style == "flat")
    flat, other = draw(graph), draw(graph.with_style(style))
    assert [t.box_xyxy for t in flat.objects] == [t.box_xyxy for t in other.objects]
    changed = np.any(np.asarray(flat.image) != np.asarray(other.image), axis=-1)
    assert changed.mean() > 0.5


def test_splits_do_not_share_seeds() -> None:
    ranges = sorted(SPLITS.values(), key=lambda r: r.start)
    assert all(a.stop <= b.start for a, b in zip(ranges, ranges[1:], strict=False))
    with pytest.raises(ValueError, match="split must be one of"):
        split_seed("test", 0)


def test_a_size_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        render(0, 8)
