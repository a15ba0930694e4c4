"""Drawn scenes: the same bytes for the same seed, true boxes and masks, edits, splits."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, SceneGraph, SceneObject, sample
from maskless.storybook.world.scenes import SPLITS, draw, render, split_seed, visible_parts
from maskless.storybook.world.shapes import SHAPES
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


def test_the_pictures_are_those_that_the_models_were_trained_on() -> None:
    """A hash of all kinds, each in a colour and a texture, as they were drawn before their parts had names."""
    drawn = hashlib.sha256()
    for number, kind in enumerate(KINDS):
        item = SceneObject(
            kind=kind,
            colour=list(COLOURS)[number % 10],
            texture=TEXTURES[number % 4],
            centre_xy=(0.5, 0.5),
            size=0.8,
            flip=bool(number % 2),
        )
        graph = SceneGraph(objects=(item,), background="meadow", style="flat", horizon=0.6, detail_seed=number)
        drawn.update(draw(graph, 64).image.tobytes())
    assert drawn.hexdigest() == "5d80d9aaa313b6aa74da15cdbebc9d0923811820820b242f5debc5390b411957"


def _house(colour: str, *others: SceneObject) -> SceneGraph:
    house = SceneObject(kind="house", colour=colour, centre_xy=(0.5, 0.5), size=0.5)
    return SceneGraph(objects=(house, *others), background="meadow", style="flat", horizon=0.6, detail_seed=0)


def test_a_part_is_visible_where_leaving_it_out_changes_the_picture() -> None:
    seen = visible_parts(_house("red"), 0, 128)
    assert list(seen) == ["chimney", "roof", "window", "door"]
    rows = {name: np.flatnonzero(mask.any(axis=1)).mean() for name, mask in seen.items()}
    assert rows["chimney"] < rows["roof"] < rows["window"] < rows["door"]
    assert "door" not in visible_parts(_house("brown"), 0, 128), "a wooden door in a brown wall"


def test_a_hidden_part_is_not_visible() -> None:
    window = np.argwhere(visible_parts(_house("red"), 0, 128)["window"]).mean(axis=0)[::-1] / 128
    ball = SceneObject(kind="heart", colour="blue", centre_xy=(float(window[0]), float(window[1])), size=0.2)
    assert "window" not in visible_parts(_house("red", ball), 0, 128)
    assert "roof" in visible_parts(_house("red", ball), 0, 128)


def test_other_polygons_are_drawn_in_place_of_a_kind() -> None:
    graph = _house("red")
    whole, empty = draw(graph), draw(graph, parts={0: []})
    assert empty.objects == () and empty.image.tobytes() == draw(graph.remove_object(0)).image.tobytes()
    assert draw(graph, parts={0: SHAPES["house"].parts}).image.tobytes() == whole.image.tobytes()
