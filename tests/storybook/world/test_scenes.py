"""Drawn scenes: the same bytes for the same seed, true boxes and masks, edits, splits."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.storybook.world.graph import COLOURS, SceneGraph, SceneObject, sample
from maskless.storybook.world.scenes import SPLITS, draw, render, split_seed
from maskless.storybook.world.styles import STYLES


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
        assert not scene.objects or sum(item.mask.astype(int) for item in scene.objects).max() <= 1
        for item in scene.objects:
            x0, y0, x1, y1 = item.box_xyxy
            assert item.mask[y0:y1, x0:x1].sum() == item.mask.sum() > 0
            assert item.mask[y0].any() and item.mask[y1 - 1].any()
            assert item.mask[:, x0].any() and item.mask[:, x1 - 1].any()


def test_an_object_has_its_colour_where_its_mask_is() -> None:
    for colour, rgb in COLOURS.items():
        item = SceneObject(kind="apple", colour=colour, centre_xy=(0.5, 0.5), size=0.6)
        graph = SceneGraph(objects=(item,), background="meadow", style="flat", horizon=0.6, detail_seed=0)
        scene = draw(graph)
        inside = np.median(np.asarray(scene.image)[scene.objects[0].mask], axis=0)
        assert np.abs(inside - rgb).max() < 30, colour


def test_an_object_removed_from_the_graph_changes_only_its_own_pixels() -> None:
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
