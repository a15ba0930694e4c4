"""Where a returned picture lies is measured to half a pixel, for every drift that editors are known for."""

import numpy as np
import pytest
import torch

from drifting import SAMPLES, WARM, edited, middle, picture_of
from maskless.data.paste import resize
from maskless.data.picture import load_image
from maskless.evaluation.measures.drift import Drift
from maskless.method.registration import displacement_px, mapped, register, shift_and_scale

DRIFTS = [
    Drift(),
    Drift(shift_xy_px=(0.5, -0.4)),
    Drift(shift_xy_px=(1, 0), **WARM),
    Drift(shift_xy_px=(-6, 3), blur_px=1.0),
    Drift(shift_xy_px=(12, -9), scale=1.03, **WARM),
    Drift(shift_xy_px=(24, 0)),
    Drift(shift_xy_px=(-17, 17), scale=0.95),
    Drift(scale=0.9, **WARM),
    Drift(scale=1.1, blur_px=1.0),
    Drift(shift_xy_px=(8, 8), scale=1.1, **WARM),
]


def error_px(drift: Drift, matrix: np.ndarray, region: torch.Tensor) -> float:
    """The largest error at a corner of the region."""
    true = np.linalg.inv(drift.matrix(region.shape)) @ matrix
    return displacement_px(true / true[2, 2], region)


@pytest.mark.parametrize("name", ["desert", "room"])
@pytest.mark.parametrize("drift", DRIFTS, ids=str)
def test_a_known_drift_is_measured_to_half_a_pixel(name, drift):
    picture, region = picture_of(name, 256), middle(256)
    found = register(drift(edited(picture, region)), picture, region)
    assert found is not None and found.residual < 0.5
    assert error_px(drift, found.matrix, region) <= 0.5
    (x, y), scale = shift_and_scale(found.matrix, region.shape)
    assert (x, y) == pytest.approx(drift.shift_xy_px, abs=0.5) and scale == pytest.approx(drift.scale, abs=0.004)


@pytest.mark.parametrize("name", ["astronaut", "cat", "coffee"])
@pytest.mark.parametrize("drift", [DRIFTS[0], DRIFTS[2], DRIFTS[4], DRIFTS[7], DRIFTS[8]], ids=str)
def test_a_known_drift_of_a_photograph_is_measured_to_half_a_pixel(name, drift):
    picture, region = picture_of(name, 256), middle(256)
    found = register(drift(edited(picture, region)), picture, region)
    assert found is not None and found.residual < 0.5
    assert error_px(drift, found.matrix, region) <= 0.5


def test_a_small_homography_is_measured_too():
    import cv2

    picture, region = picture_of("room", 256), middle(256)
    matrix = np.array([[1.0, 0.01, 3.0], [0.0, 1.0, -2.0], [1e-4, -5e-5, 1.0]])
    array = edited(picture, region).movedim(0, -1).numpy()
    moved = cv2.warpPerspective(array, matrix, (256, 256), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    found = register(torch.from_numpy(moved).movedim(-1, 0).clamp(0, 1), picture, region)
    assert found is not None
    corners = np.array([(90.0, 90.0), (160.0, 90.0), (90.0, 170.0), (160.0, 170.0)])
    assert np.abs(mapped(found.matrix, corners) - mapped(matrix, corners)).max() <= 0.5


def test_what_the_editor_changed_outside_as_well_does_not_mislead_it():
    picture, region, drift = picture_of("room", 256), middle(256), Drift(shift_xy_px=(7, -4))
    changed = edited(picture, region)
    changed[:, 20:60, 190:240] = torch.tensor([0.1, 0.7, 0.2])[:, None, None]
    found = register(drift(changed), picture, region)
    assert found is not None and error_px(drift, found.matrix, region) <= 0.5


def test_unrelated_pictures_leave_a_residual_near_one():
    picture, region = picture_of("room", 128), middle(128)
    noise = torch.rand(picture.shape, generator=torch.Generator().manual_seed(1))
    for other in (picture_of("desert", 128), picture.flip(1), noise):
        found = register(other, picture, region)
        assert found is not None and found.residual > 0.8


@pytest.mark.parametrize("size", [(40, 300), (300, 40), (700, 900)])
def test_every_shape_is_measured(size):
    drift = Drift(shift_xy_px=(3, -2))
    picture = resize(load_image(SAMPLES / "room.png").rgb, size)
    region = torch.zeros(size, dtype=torch.bool)
    region[size[0] // 3 : size[0] // 2, size[1] // 3 : size[1] // 2] = True
    found = register(drift(picture), picture, region)
    assert found is not None and error_px(drift, found.matrix, region) <= 0.5


def test_a_picture_without_structure_lies_where_it_is():
    plain, region = torch.full((3, 64, 64), 0.4), middle(64)
    found = register(plain * 0.9, plain, region)
    assert found is not None and np.array_equal(found.matrix, np.eye(3)) and found.residual == 0


def test_nothing_is_measured_where_nothing_lies_outside():
    picture, region = torch.rand(3, 64, 64), torch.ones(64, 64, dtype=torch.bool)
    assert register(picture, picture, region) is None
    region[:2] = False
    assert register(picture, picture, region) is None
