"""The scene graph: how scenes are sampled, and edits of a graph."""

from __future__ import annotations

from collections import Counter

import pytest

from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, SceneObject, sample
from maskless.storybook.world.shapes import SHAPES
from maskless.storybook.world.styles import STYLES


def test_the_world_has_the_size_that_the_model_card_states() -> None:
    assert (len(KINDS) >= 24, len(COLOURS), len(BACKGROUNDS) >= 8, len(TEXTURES), len(STYLES)) == (True, 10, True, 4, 4)


def test_samples_cover_counts_sizes_styles_and_backgrounds() -> None:
    graphs = [sample(seed) for seed in range(600)]
    counts = Counter(len(graph.objects) for graph in graphs)
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert {graph.style for graph in graphs} == set(STYLES)
    assert {graph.background for graph in graphs} == set(BACKGROUNDS)
    objects = [item for graph in graphs for item in graph.objects]
    assert {item.kind for item in objects} == set(KINDS)
    assert {item.texture for item in objects} == set(TEXTURES)
    sizes = [item.size for item in objects]
    assert 0.12 <= min(sizes) < 0.16 and 0.5 < max(sizes) <= 0.6


def test_a_seed_gives_the_same_graph() -> None:
    assert [sample(seed) for seed in range(20)] == [sample(seed) for seed in range(20)]
    assert sample(3) != sample(4) and sample(3).detail_seed == 3


def test_sampled_objects_lie_in_the_picture_and_hide_little_of_one_another() -> None:
    for seed in range(200):
        boxes = [item.box for item in sample(seed).objects]
        assert all(0 < x0 < x1 < 1 and 0 < y0 < y1 < 1 for x0, y0, x1, y1 in boxes)
        assert [box[3] for box in boxes] == sorted(box[3] for box in boxes), "from back to front"
        for at, (ax0, ay0, ax1, ay1) in enumerate(boxes):
            for bx0, by0, bx1, by1 in boxes[:at]:
                shared = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
                assert shared < 0.18 * min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0))


def test_small_objects_have_no_texture_and_pixel_art_no_small_objects() -> None:
    for graph in map(sample, range(400)):
        assert all(item.texture == "plain" for item in graph.objects if item.size <= 0.22)
        assert graph.style != "pixel" or all(item.size >= 0.28 for item in graph.objects)


@pytest.mark.parametrize("kind", ["car", "rocket"])
def test_size_is_the_longer_side_of_the_box(kind: str) -> None:
    x0, y0, x1, y1 = SceneObject(kind=kind, colour="red", centre_xy=(0.4, 0.7), size=0.2).box
    assert max(x1 - x0, y1 - y0) == pytest.approx(0.2) and (x1 - x0) / (y1 - y0) == pytest.approx(SHAPES[kind].aspect)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((0.4, 0.7))


def test_an_edit_of_a_graph_changes_only_what_it_names() -> None:
    graph = next(g for g in map(sample, range(100)) if len(g.objects) == 3)
    replaced = graph.replace_object(0, kind="house", colour="blue")
    assert (replaced.objects[0].kind, replaced.objects[0].colour) == ("house", "blue")
    assert replaced.objects[0].centre_xy == graph.objects[0].centre_xy and replaced.objects[1:] == graph.objects[1:]
    assert graph.remove_object(1).objects == (graph.objects[0], graph.objects[2])
    assert graph.add_object(graph.objects[0]).objects == (*graph.objects, graph.objects[0])
    sea, sketch = graph.with_background("sea"), graph.with_style("pencil")
    assert sea.background == "sea" and sketch.style == "pencil" and sea.objects == sketch.objects == graph.objects
