"""The shapes: normalised to the unit square, of known paints, and right side up."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.storybook.world.shapes import (
    AIRBORNE,
    FIXED_PAINTS,
    PARTS,
    SHAPES,
    _disc,
    _lower_half,
    _normalise,
    _rect,
    _spikes,
    _upper_half,
)


@pytest.mark.parametrize("kind", list(SHAPES))
def test_a_kind_fills_the_unit_square_and_has_a_body(kind: str) -> None:
    shape = SHAPES[kind]
    points = np.concatenate([part.points for part in shape.parts])
    assert np.allclose(points.min(axis=0), 0) and np.allclose(points.max(axis=0), 1)
    paints = {part.paint for part in shape.parts}
    assert "body" in paints and paints <= {"body", "shade", "light", "dark", *FIXED_PAINTS}
    assert 0.3 < shape.aspect < 3 and shape.airborne == (kind in AIRBORNE)


def test_the_aspect_is_width_over_height() -> None:
    shape = _normalise("car", [_rect("body", 10, 20, 70, 50), _rect("shade", 30, 40, 70, 50)])
    assert shape.aspect == pytest.approx(2)
    assert np.allclose(shape.parts[1].points.min(axis=0), (1 / 3, 2 / 3))


def test_half_an_ellipse_lies_above_or_below_its_centre() -> None:
    upper, lower = (np.array(half("body", 50, 40, 20, 10)[1]) for half in (_upper_half, _lower_half))
    whole = np.array(_disc("body", 50, 40, 20, 10)[1])
    for points in (upper, lower, whole):
        assert np.allclose((((points - (50, 40)) / (20, 10)) ** 2).sum(axis=1), 1)
    assert upper[:, 1].max() <= 40 + 1e-9 and lower[:, 1].min() >= 40 - 1e-9, "y points downwards"
    assert np.allclose(upper[:, 1].min(), 30) and np.allclose(lower[:, 1].max(), 50)
    assert np.allclose([whole[:, 1].min(), whole[:, 1].max()], [30, 50])


def test_a_disc_of_one_radius_is_a_circle() -> None:
    assert _disc("body", 5, 6, 7) == _disc("body", 5, 6, 7, 7)


def test_a_star_points_upwards() -> None:
    paint, points, _ = _spikes("gold", 50, 50, 40, 15, 5)
    radii = np.hypot(*(np.array(points) - 50).T)
    assert paint == "gold" and len(points) == 10
    assert np.allclose(radii[::2], 40) and np.allclose(radii[1::2], 15)
    assert np.allclose(points[0], (50, 10))


def test_named_parts_are_those_that_a_person_would_name() -> None:
    assert SHAPES["house"].named_parts == ("chimney", "roof", "window", "door") and SHAPES["star"].named_parts == ()
    wheels = [part for part in SHAPES["car"].parts if part.name == "wheel"]
    assert len(wheels) == 4 and {part.paint for part in wheels} == {"ink", "stone"}
    assert {name for shape in SHAPES.values() for name in shape.named_parts} == set(PARTS) and "" not in PARTS
    assert sum(bool(shape.named_parts) for shape in SHAPES.values()) == len(SHAPES) - 2
