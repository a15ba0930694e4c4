"""Transparent holes in a picture, and margins around it."""

import numpy as np
import pytest
import torch

from maskless.data.canvas import holes, margins_of, on_canvas, opaque, without_margins
from maskless.data.errors import MasklessError
from maskless.data.picture import load_image


@pytest.fixture
def source():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    pixels[10:20, 30:40, 3] = 7
    return load_image(pixels)


def test_holes_are_transparent_pixels_and_can_be_made_opaque(source):
    region = holes(source)
    assert int(region.sum()) == 100 and bool(region[10:20, 30:40].all())
    assert not bool(holes(opaque(source, region)).any()) and bool(holes(source).any())
    assert holes(load_image(source.pixels)) is None


@pytest.mark.parametrize(
    ("extend", "expected"),
    [
        (0.25, (15, 10, 15, 10)),
        (8, (8, 8, 8, 8)),
        ("25%", (15, 10, 15, 10)),
        ("left=0.5,top=4", (30, 4, 0, 0)),
    ],
)
def test_margins_by_share_pixels_and_side(extend, expected):
    assert margins_of(extend, (40, 60)) == expected


@pytest.mark.parametrize("extend", ["", "0", "left=x", "north=4", -3])
def test_other_forms_are_refused(extend):
    with pytest.raises(MasklessError, match=r"extend must be 0\.25 \(of each side\)"):
        margins_of(extend, (40, 60))


def test_too_large_a_canvas_is_refused():
    with pytest.raises(MasklessError, match="must be at most 8000 pixels, got 16060 x 16040"):
        margins_of(8000, (40, 60))


def test_a_canvas_contains_the_picture_unchanged(source):
    margins = (3, 0, 5, 7)
    canvas, added = on_canvas(source, margins)
    assert canvas.rgb.shape == (3, 47, 68) and int((~added).sum()) == 40 * 60
    assert np.array_equal(without_margins(canvas.pixels, margins), source.pixels)
    assert torch.equal(canvas.rgb[:, :40, 3:63], source.rgb)
