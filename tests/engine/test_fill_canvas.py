"""The canvas of a fill: its window, the cells that a model draws, and what a drawing changes in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskless.engine.editor import Editor
from maskless.engine.fill_canvas import Canvas, NamedRegion

BOX, WINDOW = (20, 24, 44, 40), (8, 8, 56, 56)


@pytest.fixture
def canvas(editor: Editor) -> Canvas:
    """A grey picture of 64 pixels with a mask of 24 x 16 pixels, in a window of 48 pixels."""
    request = editor.request(torch.full((3, 64, 64), 0.5), prompt="a red car", box=BOX)
    return replace(editor.start(request).canvas, window_xyxy=WINDOW)


def test_the_mask_of_the_window_covers_whole_cells(canvas):
    picture, mask = canvas.crop(48, 8)
    assert picture.shape == (3, 48, 48) and mask.shape == (1, 48, 48)
    ys, xs = mask[0].nonzero().unbind(1)
    assert [int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)] == [8, 16, 40, 32]
    assert set(mask.unique().tolist()) == {0.0, 1.0}


def test_a_soft_mask_has_its_values_in_the_window(canvas):
    soft = replace(canvas.region.request, amount=canvas.mask * 0.5)
    _picture, mask = replace(canvas, region=NamedRegion(request=soft)).crop(48, 1)
    assert float(mask.max()) == pytest.approx(0.5)


def test_a_drawing_changes_the_pixels_that_it_makes_different_inside_the_mask(canvas):
    drawn = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    drawn[:, 36:56, 40:120] = 255  # in the picture: x from 28, y from 26 to 36
    found = canvas.changed_by(drawn)
    assert found[26:36, 28:44].all() and not found[:, :26].any() and not found[38:].any()
    assert not (found & ~canvas.mask).any()


def test_a_drawing_that_changes_nothing_is_pasted_as_a_whole(canvas):
    assert torch.equal(canvas.changed_by(torch.full((3, 96, 96), 128, dtype=torch.uint8)), canvas.mask)


def test_a_replaced_object_counts_as_changed(canvas):
    drawn = torch.full((3, 96, 96), 128, dtype=torch.uint8)
    drawn[:, 36:56, 60:72] = 255
    old = torch.zeros(64, 64, dtype=torch.bool)
    old[28:36, 22:40] = True
    assert replace(canvas, replaced=old).changed_by(drawn)[28:36, 22:40].all()
    assert not canvas.changed_by(drawn)[28:36, 22:30].any()
