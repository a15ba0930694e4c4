"""A returned picture is moved back and recoloured where that is needed, and not touched where it is not."""

import pytest
import torch

from drifting import WARM, edited, middle, picture_of
from maskless.evaluation.measures.drift import Drift
from maskless.method.alignment import align

SIDE = 256


def inner_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The mean difference away from the border, where a drift brings in what was never there; 0 to 255."""
    return 255 * float((a - b)[:, 60:-60, 60:-60].abs().mean())


def smooth(picture: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(picture, 5, stride=1)


@pytest.mark.parametrize(
    "drift", [Drift(shift_xy_px=(9, -14)), Drift(scale=0.92, **WARM), Drift(shift_xy_px=(2, 3), scale=1.07)], ids=str
)
def test_a_drifting_picture_comes_back_with_its_colours(drift):
    picture, region = picture_of("room", SIDE), middle(SIDE)
    wanted = edited(picture, region)
    returned = drift(wanted)
    found = align(returned, picture, region, limit=0.5)
    assert found is not None and found.alignment.aligned and found.alignment.warped
    assert found.alignment.colours_matched == (drift.gain_rgb != (1, 1, 1))
    smooth = torch.nn.functional.avg_pool2d
    before, after = (
        inner_difference(smooth(each, 5, stride=1), smooth(wanted, 5, stride=1)) for each in (returned, found.picture)
    )
    assert after < 0.25 * before and after < 2
    assert found.alignment.shift_xy_px == pytest.approx(drift.shift_xy_px, abs=0.5)
    assert found.alignment.scale == pytest.approx(drift.scale, abs=0.004)


@pytest.mark.parametrize("name", ["desert", "meadow", "room"])
def test_what_lies_right_is_the_same_tensor(name):
    """Nor does the noise of a model's autoencoder move it."""
    picture, region = picture_of(name, 128), middle(128)
    noise = 0.008 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(2))
    for returned in (edited(picture, region), (edited(picture, region) + noise).clamp(0, 1)):
        found = align(returned, picture, region, limit=0.5)
        assert found is not None and found.picture is returned
        assert found.alignment.aligned and not found.alignment.warped and not found.alignment.colours_matched


def test_a_cast_alone_is_taken_back_without_a_warp():
    picture, region = picture_of("room", SIDE), middle(SIDE)
    wanted = edited(picture, region)
    found = align(Drift(**WARM)(wanted), picture, region, limit=0.5)
    assert found is not None and found.alignment.colours_matched and not found.alignment.warped
    assert inner_difference(found.picture, wanted) < 2
    expected = 255 * (Drift(**WARM)(picture) - picture)[:, ~region].mean(dim=1)
    assert found.alignment.colour_rgb == pytest.approx(expected.tolist(), abs=1)


def test_the_colours_of_the_region_have_no_say():
    picture, region = picture_of("room", SIDE), middle(SIDE)
    for colour in (0.0, 1.0):
        found = align(torch.where(region, torch.tensor(colour), picture), picture, region, limit=0.5)
        assert found is not None and not found.alignment.colours_matched
        assert found.alignment.colour_rgb == pytest.approx((0, 0, 0), abs=0.01)


def test_a_picture_that_cannot_be_aligned_is_refused_as_it_is():
    picture, region = picture_of("room", SIDE), middle(SIDE)
    noise = torch.rand(picture.shape, generator=torch.Generator().manual_seed(3))
    for returned in (picture_of("desert", SIDE), noise, picture.flip(1)):
        found = align(returned, picture, region, limit=0.5)
        assert found is not None and found.picture is returned
        assert not found.alignment.aligned and not found.alignment.warped and found.alignment.residual > 0.5


def test_the_limit_decides():
    picture, region = picture_of("room", SIDE), middle(SIDE)
    other = picture_of("desert", SIDE)
    for limit in (0.0, 0.6, 1.0):
        found = align(other, picture, region, limit=limit)
        assert found is not None and found.alignment.aligned == (found.alignment.residual <= limit)


def test_a_region_that_moved_out_of_the_picture_is_refused():
    picture = picture_of("room", SIDE)
    region = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    region[100:180, 200:] = True
    found = align(Drift(shift_xy_px=(24, 0))(picture), picture, region, limit=0.5)
    assert found is not None and not found.alignment.aligned
    assert found.alignment.shift_xy_px == pytest.approx((24, 0), abs=0.5)
