"""Lumps: each spoils an object, `mild` defects do not, and all of them depend on their generator alone."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.storybook.critic import CROP
from maskless.storybook.training import lumps
from maskless.storybook.training.critic import specimen_of
from maskless.storybook.training.lumps import LUMPS, Specimen
from maskless.storybook.world.graph import SceneGraph, SceneObject
from maskless.storybook.world.shapes import SHAPES


@pytest.fixture(scope="module")
def specimen() -> Specimen:
    house = SceneObject(kind="house", colour="blue", centre_xy=(0.5, 0.5), size=0.5)
    graph = SceneGraph(objects=(house,), background="beach", style="flat", horizon=0.6, detail_seed=0)
    return specimen_of(graph, 0, 128, np.random.default_rng(0))


@pytest.mark.parametrize("name", LUMPS)
def test_a_lump_changes_the_object_much_and_stays_in_range(specimen: Specimen, name: str) -> None:
    made = [LUMPS[name](specimen, np.random.default_rng(seed)) for seed in (1, 1, 2, 3)]
    assert np.array_equal(made[0], made[1])
    assert all(
        picture.shape == (CROP, CROP, 3) and picture.min() >= -1e-6 and picture.max() <= 1 + 1e-6 for picture in made
    )
    assert max(lumps.change(specimen, picture) for picture in made) > lumps.LEAST_CHANGE


def test_mild_defects_change_an_object_little(specimen: Specimen) -> None:
    made = [lumps.mild(specimen.right, specimen.length, np.random.default_rng(seed)) for seed in range(12)]
    assert np.mean([lumps.change(specimen, picture) for picture in made]) < lumps.LEAST_CHANGE
    assert any(not np.array_equal(picture, specimen.right) for picture in made)


def test_a_specimen_shows_its_object_where_its_mask_says(specimen: Specimen) -> None:
    difference = np.abs(specimen.right - specimen.behind).max(axis=2)
    assert difference[specimen.mask > 0.99].min() > 0 and difference[specimen.mask == 0].mean() < 0.02
    assert 28 < specimen.length < 44 and lumps.change(specimen, specimen.right) == 0


def test_polygons_of_one_part_are_moved_alike() -> None:
    house = SHAPES["house"].parts
    moved = lumps.jittered(house, 0.1, np.random.default_rng(0))
    windows = [(a, b) for a, b in zip(house, moved, strict=True) if a.name == "window"]
    shifts = [b.points.mean(axis=0) - a.points.mean(axis=0) for a, b in windows]
    assert len(windows) == 2 and np.allclose(shifts[0], shifts[1]) and np.abs(shifts[0]).max() > 0.01
    still = lumps.jittered(house, 0.0, np.random.default_rng(0))
    assert all(np.allclose(a.points, b.points) for a, b in zip(house, still, strict=True))
