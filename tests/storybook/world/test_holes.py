"""Edits, windows and holes: what CLIP and the inpainter are trained on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from maskless.storybook.training.clip import named_words
from maskless.storybook.world import holes
from maskless.storybook.world.captions import STYLE_WORDS
from maskless.storybook.world.edits import random_edit, shown, window_around
from maskless.storybook.world.holes import _manner_hole, random_hole
from maskless.storybook.world.scenes import KINDS, draw, render, sample


def test_a_random_edit_changes_exactly_one_thing() -> None:
    kinds_of_change = Counter()
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
        kinds_of_change["place" if changed[-2] else "style" if changed[-1] else "object"] += 1
    assert set(kinds_of_change) == {"removed", "place", "style", "object"}


def test_a_window_around_an_object_shows_it() -> None:
    rng = np.random.default_rng(0)
    for seed in range(60):
        scene = render(seed)
        for thing in scene.objects:
            window = window_around(thing, 128, rng, tight=True)
            assert window[2] - window[0] == window[3] - window[1]
            assert min(window[:2]) >= 0 and max(window[2:]) <= 128
            assert scene.graph.objects[thing.index] in shown(scene, window).objects


def test_a_hole_is_where_its_text_says() -> None:
    rng = np.random.default_rng(0)
    named = 0
    for seed in range(300):
        scene = render(seed, 96)
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


def test_an_empty_hole_hides_no_object() -> None:
    rng = np.random.default_rng(3)
    empty = 0
    for seed in range(300):
        scene = render(seed, 96)
        hole = random_hole(scene, rng)
        if hole.mask.mean() > 0.5 or not any(word in hole.text for word in ("empty", "nothing", "only")):
            continue
        empty += 1
        assert all((t.mask & hole.mask).sum() <= 0.5 * t.mask.sum() for t in scene.objects)
    assert empty > 20


def test_all_around_some_objects_is_a_hole_that_keeps_them() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for seed in range(400):
        scene = render(seed, 96)
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


def test_pictures_in_a_manner_are_drawn_whole_and_mostly_say_it() -> None:
    rng = np.random.default_rng(2)
    words = [word for style, every in STYLE_WORDS.items() if style != "flat" for word in every]
    whole, said = 0, 0
    for seed in range(300):
        scene = render(seed, 96)
        hole = random_hole(scene, rng)
        x0, y0, x1, y1 = hole.window
        if scene.graph.style != "flat" and hole.mask[y0:y1, x0:x1].all():
            whole += 1
            said += any(word in hole.text for word in words)
    assert whole > 15 and said > 0.6 * whole


def test_a_textured_object_is_redrawn_in_its_outline() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for seed in range(300):
        scene = render(seed, 96)
        hole = random_hole(scene, rng)
        for thing in scene.objects:
            covers = (hole.mask & thing.mask).sum() == thing.mask.sum()
            if thing.texture in hole.text and thing.texture != "plain" and covers:
                found += hole.mask.sum() < 2 * thing.mask.sum() and not hole.mask[:, :2].all()
    assert found > 8


def test_in_a_hole_of_a_whole_manner_the_manner_is_said() -> None:
    """Nothing of the picture is left to tell it by."""
    rng = np.random.default_rng(0)
    for seed in range(60):
        hole = _manner_hole(draw(sample(seed).with_style("pencil"), 96), rng)
        x0, y0, x1, y1 = hole.window
        assert hole.mask[y0:y1, x0:x1].all() and any(word in hole.text for word in STYLE_WORDS["pencil"])


def test_every_manner_but_the_plain_one_is_a_word_that_the_texts_are_taught_by() -> None:
    plain = named_words("a drawing of a red car")
    for style, words in STYLE_WORDS.items():
        told = [named_words(f"a {word} of a red car") for word in words]
        assert style == "flat" or all((each - plain).sum() == 1 for each in told)
        assert all(torch.equal(each, told[0]) for each in told)


def test_most_holes_of_a_manner_are_tiles_of_half_the_side_on_whole_blocks() -> None:
    rng, tiles = np.random.default_rng(0), 0
    for seed in range(60):
        x0, y0, x1, _ = _manner_hole(draw(sample(seed).with_style("pixel"), 96), rng).window
        tiles += x1 - x0 == 48 and x0 % 3 == 0 and y0 % 3 == 0
    assert 30 <= tiles < 60


def test_no_filter_of_one_pixel_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow 12.3.0 dies of one (SIGFPE)."""
    monkeypatch.setattr(holes.ImageFilter, "MaxFilter", lambda size: pytest.fail(f"a filter of {size}"))
    mask = np.eye(8, dtype=bool)
    assert (holes._grown(mask, 0) == mask).all()
