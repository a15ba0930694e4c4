"""Holes: each shows what its text describes, and the kinds of hole that the tasks need occur."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.storybook.world import holes
from maskless.storybook.world.captions import STYLE_WORDS
from maskless.storybook.world.graph import KINDS
from maskless.storybook.world.holes import random_hole
from maskless.storybook.world.scenes import Scene, render


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render(seed, 96) for seed in range(400)]


def test_a_hole_is_where_its_text_says(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(0)
    named = 0
    for scene in scenes[:300]:
        hole = random_hole(scene, rng)
        x0, y0, x1, y1 = hole.window
        assert hole.mask.shape == (96, 96) and hole.mask[y0:y1, x0:x1].any()
        assert hole.mask[y0:y1, x0:x1].sum() == hole.mask.sum(), "the window shows the whole hole"
        assert (x1 - x0) == (y1 - y0) >= 24
        for kind in KINDS:
            if kind in hole.text.split():
                covered = [
                    (t.mask & hole.mask).sum() / t.mask.sum() for t in scene.objects if t.kind == kind
                ]  # fmt: skip
                assert covered or kind in " ".join(sum(STYLE_WORDS.values(), ()))
                named += max(covered) > 0.3
    assert named > 100


def test_the_hole_of_an_object_sometimes_keeps_other_objects_that_reach_into_its_box() -> None:
    kept = cut = 0
    for seed in range(150):
        scene = render(seed, 96)
        for item in scene.objects:
            hole = holes._object_hole(scene, item, np.random.default_rng(seed))
            ys, xs = np.nonzero(hole.mask)
            box = np.zeros_like(hole.mask)
            box[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1] = True
            others = np.any([o.mask for o in scene.objects if o.index != item.index] or [~box & box], axis=0) & box
            if others.sum() < 20:
                continue
            assert (hole.mask & item.mask).any()
            kept += not (hole.mask & others).any()
            cut += bool((hole.mask & others).any())
    assert kept > 10 and cut > 10


def test_most_objects_lie_in_the_middle_of_holes_of_many_shapes() -> None:
    rooms = np.array([holes._room(40, 20, np.random.default_rng(seed)) for seed in range(400)])
    left, top, right, bottom = rooms.T
    assert (rooms >= 1).all()
    assert 0.75 < np.mean((left == right) & (top == bottom)) < 0.95
    ratio = (40 + left + right) / (20 + top + bottom)
    assert 0.3 < np.mean(np.isclose(ratio, 1)) < 0.5, "squares"
    assert ratio.min() < 0.6 and ratio.max() > 1.9, "holes of objects of another shape"


def test_an_empty_hole_hides_no_object(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(3)
    empty = 0
    for scene in scenes[:300]:
        hole = random_hole(scene, rng)
        if hole.mask.mean() > 0.5 or not any(word in hole.text for word in ("empty", "nothing", "only")):
            continue
        empty += 1
        assert all((t.mask & hole.mask).sum() <= 0.5 * t.mask.sum() for t in scene.objects)
    assert empty > 20


def test_a_hole_around_some_objects_keeps_them(scenes: list[Scene]) -> None:
    rng = np.random.default_rng(1)
    found = 0
    for scene in scenes:
        hole = random_hole(scene, rng)
        if not 0.3 < hole.mask.mean() < 1 or hole.mask[:2].min() == 0 or hole.mask[-2:].min() == 0:
            continue
        kept = [t for t in scene.objects if not (t.mask & hole.mask).any()]
        if not kept:
            continue
        found += 1
        if len(kept) == len(scene.objects) and any(word in hole.text for word in ("empty", "nothing", "only")):
            assert not any(kind in hole.text.split() for kind in KINDS)
    assert found >= 8


def test_no_filter_of_one_pixel_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow 12.3.0 crashes on one (SIGFPE)."""
    monkeypatch.setattr(holes.ImageFilter, "MaxFilter", lambda size: pytest.fail(f"a filter of {size}"))
    mask = np.eye(8, dtype=bool)
    assert (holes._dilate(mask, 0) == mask).all()


def test_a_random_hole_is_rarely_a_whole_window_and_never_names_a_style_that_is_not_there() -> None:
    rng, whole = np.random.default_rng(0), 0
    styles = [word for style, words in STYLE_WORDS.items() if style != "flat" for word in words]
    for seed in range(200):
        scene = render(seed, 96)
        hole = random_hole(scene, rng)
        x0, y0, x1, y1 = hole.window
        assert hole.mask.any() and hole.mask[y0:y1, x0:x1].sum() == hole.mask.sum(), "the window shows the whole hole"
        if hole.mask[y0:y1, x0:x1].all():
            whole += 1
            assert hole.window == (0, 0, 96, 96)
        assert scene.graph.style != "flat" or not any(word in hole.text for word in styles)
    assert whole < 20
