"""Backgrounds: each paints the whole canvas, the same for the same seed, with its horizon where it is wanted."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.storybook.world.backgrounds import BACKGROUNDS, SKIES, gradient, paint_background

NAMES = list(BACKGROUNDS)


def _array(name: str, side: int = 96, horizon: float = 0.6, seed: int = 0) -> np.ndarray:
    return np.asarray(paint_background(name, side, horizon, seed)).astype(int)


def test_every_background_has_a_sky() -> None:
    assert BACKGROUNDS.keys() == SKIES.keys()


def test_a_gradient_runs_from_the_first_colour_to_the_second() -> None:
    image = np.asarray(gradient((200, 0, 50), (0, 100, 50), 64)).astype(int)
    assert image.shape == (64, 64, 3)
    assert np.abs(image[0] - (200, 0, 50)).max() <= 4 and np.abs(image[-1] - (0, 100, 50)).max() <= 4
    assert (np.diff(image[:, 0, 0]) <= 0).all() and (np.diff(image[:, 0, 1]) >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_same_picture_and_another_seed_other_details(name: str) -> None:
    assert (_array(name) == _array(name)).all()
    assert (_array(name) != _array(name, seed=1)).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_ground_begins_at_the_horizon(name: str) -> None:
    """Below it nothing of the sky is left, whose colours change smoothly from top to bottom."""
    sky = np.asarray(gradient(*SKIES[name], 96)).astype(int)
    for horizon in (0.5, 0.68):
        ground = np.abs(_array(name, horizon=horizon) - sky).sum(axis=2)[int((horizon + 0.2) * 96) :]
        assert (ground > 12).mean() > 0.95, horizon


@pytest.mark.parametrize("name", NAMES)
def test_it_looks_alike_at_any_size(name: str) -> None:
    small = paint_background(name, 64, 0.6, 3)
    large = paint_background(name, 192, 0.6, 3).reduce(3)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(large)).mean() < 8
