"""Known drifts: where they put a pixel, and what they do to its colour."""

import numpy as np
import pytest
import torch

from maskless.evaluation.measures.drift import Drift


def test_no_drift_changes_nothing():
    picture = torch.randint(0, 256, (3, 20, 30)) / 255
    assert torch.equal(Drift()(picture), picture)


def test_a_pixel_goes_where_the_matrix_puts_it():
    picture = torch.zeros(3, 41, 61)
    picture[:, 10, 20] = 1
    drift = Drift(shift_xy_px=(5, -3), scale=2.0)
    x, y, _one = drift.matrix((41, 61)) @ np.array([20, 10, 1])
    assert (x, y) == (20 + (20 - 30) + 5, 10 + (10 - 20) - 3)
    spot = drift(picture)[0]
    assert divmod(int(spot.argmax()), 61) == pytest.approx((max(y, 0), x), abs=1) or y < 0


def test_colours_are_multiplied_and_shifted():
    picture = torch.full((3, 8, 8), 0.5)
    found = Drift(gain_rgb=(1.2, 1, 0.8), offset_rgb=(0, 0.1, 0), blur_px=1.0)(picture)
    assert found[:, 4, 4].tolist() == pytest.approx([0.6, 0.6, 0.4], abs=0.003)
