"""Masks: their parts, holes and margins, the weights at their seams, and the pixels that they touch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskless.data.boxes import (
    box_in_window,
    context_window,
    propose_regions,
)
from maskless.data.masks import (
    components,
    crop_mask,
    dilate,
    enlarge_mask,
    mask_box,
    mask_weight,
    seam_step,
    seam_weight,
    soft_box_mask,
    window_mask,
    without_holes,
)
from random_boxes import anchors_on_grids, small_sides


@given(anchors=anchors_on_grids(), r=st.integers(1, 16), height=small_sides, width=small_sides)
def test_the_mask_covers_the_whole_box(anchors, r, height, width):
    box = propose_regions(anchors, [r], (height, width)).boxes_xyxy[0].tolist()
    window = context_window(box, (height, width), context=0.5)
    x0, y0, x1, y1 = box_in_window(box, window, 64)
    scale = 64 / (window[2] - window[0])
    assert x0 <= (box[0] - window[0]) * scale and (box[2] - window[0]) * scale <= x1 <= 64
    assert y0 <= (box[1] - window[1]) * scale and (box[3] - window[1]) * scale <= y1 <= 64
    assert float(window_mask(box, window, 64).sum()) == (x1 - x0) * (y1 - y0)


def test_the_weight_falls_only_where_there_are_pixels_to_blend_with():
    weight = seam_weight((0, 0, 40, 40), (100, 100), 0.1)
    assert weight[0, 0] == 1 and weight[20, 20] == 1
    assert weight[39, 20] < 0.1 and weight[20, 39] < 0.1


def test_soft_masks_are_near_one_inside_and_near_zero_outside():
    mask = soft_box_mask(torch.tensor([[8, 16, 40, 48]]), (64, 64), sharpness_px=1.0)[0]
    assert mask[32, 24] > 0.99 and mask[4, 24] < 0.01 and mask[32, 60] < 0.01
    assert abs(float(mask[32, 7] + mask[32, 8]) - 1) < 1e-3, "the mask is one half on the edge"


def test_connected_parts_are_ordered_by_size():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = True  # these two share a corner
    mask[4:7, 4:7] = True
    parts = components(mask)
    assert [int(part.sum()) for part in parts] == [9, 2]
    assert torch.equal(torch.stack(parts).any(dim=0), mask) and components(torch.zeros_like(mask)) == []
    mask[0, 3] = mask[0, 5] = mask[2, 4] = True
    alone = [tuple(part.nonzero()[0].tolist()) for part in components(mask)[2:]]
    assert alone == [(0, 3), (0, 5), (2, 4)], "parts of one size are ordered by their last pixel"


def test_small_holes_are_filled():
    ring = torch.zeros(10, 10, dtype=torch.bool)
    ring[2:6, 2:6] = True
    ring[3:5, 3:5] = False
    ring[8:, 8:] = True
    ring[9, 9] = False  # open to the picture's border
    filled = without_holes(ring, 0.04)
    assert int((filled & ~ring).sum()) == 4 and bool(filled[3:5, 3:5].all())
    assert torch.equal(without_holes(ring, 0.03), ring)
    for same in (torch.ones_like(ring), torch.zeros_like(ring)):
        assert torch.equal(without_holes(same, 0.5), same)


def test_the_seam_of_a_mask_lies_inside_the_mask():
    mask = torch.zeros(64, 80, dtype=torch.bool)
    mask[20:60, 10:50] = True
    mask[30:40, 50:70] = True
    box = mask_box(mask)
    assert box == (10, 20, 70, 60)
    whole, soft = mask_weight(mask, box, 0.0), mask_weight(mask, box, 0.1)
    inside = mask[20:60, 10:70]
    assert torch.equal(whole, inside.float())
    assert bool((soft[~inside] == 0).all()) and bool((soft[inside] > 0).all()) and float(soft.max()) == 1
    assert float(soft[20, 20]) == 1 and float(soft[20, 0]) < 0.2


def test_along_the_pictures_border_a_mask_has_no_seam():
    everything = torch.ones(40, 60, dtype=torch.bool)
    assert torch.equal(mask_weight(everything, (0, 0, 60, 40), 0.2), torch.ones(40, 60))


def test_a_mask_marks_every_pixel_that_it_touches():
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[3, 70] = True
    assert crop_mask(mask, (0, 0, 128, 128), 32).nonzero().tolist() == [[0, 0, 17]]


def test_the_colour_step_across_an_outline():
    image = torch.zeros(3, 32, 32)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:20, 8:20] = True
    image[:, mask] = 0.5
    assert seam_step(image, mask) == pytest.approx(0.5)
    assert seam_step(image, torch.ones_like(mask)) == 0 == seam_step(torch.ones(3, 32, 32), mask)


def test_the_margin_of_a_dilated_mask_is_a_share_of_the_shorter_side():
    mask = torch.zeros(50, 100, dtype=torch.bool)
    mask[20:30, 40:60] = True
    assert mask_box(dilate(mask, 0.1)) == (35, 15, 65, 35)
    assert mask_box(dilate(mask, 0.001)) == (39, 19, 61, 31), "the margin is at least one pixel"


@pytest.mark.parametrize("feather", [0.06, 0.3])
def test_several_thin_parts_are_painted_whole(feather):
    bars, middles = torch.zeros(900, 1200, dtype=torch.bool), torch.zeros(900, 1200, dtype=torch.bool)
    for row in range(30, 900, 100):
        bars[row : row + 10, 50:1150] = True
        middles[row + 4 : row + 6, 80:1120] = True
    weight = torch.zeros(bars.shape)
    x0, y0, x1, y1 = box = mask_box(bars)
    weight[y0:y1, x0:x1] = mask_weight(bars, box, feather)
    assert float(weight[middles].min()) == 1 and float(weight[bars].mean()) > 0.9


def test_hair_lines_of_a_large_mask_are_painted_whole():
    mask = torch.zeros(1500, 3000, dtype=torch.bool)
    for column in range(100, 3000, 70):  # one pixel wide, which a smaller copy of the mask cannot show
        mask[100:1400, column] = True
    mask[300:900, 1000:1600] = True
    x0, y0, x1, y1 = box = mask_box(mask)
    weight = mask_weight(mask, box, 0.1)
    assert float(weight[: 250 - y0].max()) == 1 and bool((weight[: 250 - y0][mask[y0:250, x0:x1]] == 1).all())
    assert float(weight[310 - y0, 1300 - x0]) < 0.5 < float(weight[600 - y0, 1300 - x0]), "the block has its seam"


def test_a_thin_part_of_a_thick_mask_has_a_seam_of_its_own_width():
    rows, columns = torch.meshgrid(torch.arange(900), torch.arange(1200), indexing="ij")
    disc = (rows - 450) ** 2 + (columns - 300) ** 2 < 200**2
    handle = (rows > 440) & (rows < 460) & (columns > 300) & (columns < 1100)
    box = mask_box(disc | handle)
    x0, y0, x1, y1 = box
    weight, alone = mask_weight(disc | handle, box, 0.1), mask_weight(disc, mask_box(disc), 0.1)
    assert float(weight[450 - y0, 600 - x0 : 1090 - x0].min()) == 1
    assert float(weight[450 - y0, 2]) < 0.1 and float(alone[450 - y0, 2]) < 0.1, "the disc keeps its wide seam"


@pytest.mark.parametrize("side", [300, 700, 2000])
def test_a_mask_of_any_size_has_its_seam_on_every_side(side):
    mask = torch.zeros(side + 200, side + 200, dtype=torch.bool)
    mask[100 : 100 + side, 100 : 100 + side] = True
    weight = mask_weight(mask, mask_box(mask), 0.1)
    middle, edge = side // 2, round(0.02 * side)
    for row, column in ((edge, middle), (side - edge, middle), (middle, edge), (middle, side - edge)):
        assert 0 < float(weight[row, column]) < 0.3


def test_a_mask_of_a_window_is_enlarged_to_the_box_in_the_picture() -> None:
    """The window reaches beyond the picture on the left; its left half is in the mask."""
    small = torch.zeros(8, 8, dtype=torch.bool)
    small[:, :4] = True
    found = enlarge_mask(small, (-16, 0, 48, 64), (0, 10, 40, 30))
    assert found.shape == (20, 40) and found[:, :16].all() and not found[:, 16:].any()
