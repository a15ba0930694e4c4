"""Boxes and windows, for pictures of any size and aspect ratio."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskless.data.boxes import (
    context_window,
    corners,
    inside_less_outside,
    propose_regions,
    scale_boxes,
    scale_to_grid,
    square_window,
    without_overlaps,
)
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from random_boxes import anchors_on_grids, half_sizes, sides


@given(anchors=anchors_on_grids(), sizes=half_sizes, height=sides, width=sides)
def test_boxes_stay_inside_and_keep_their_size(anchors, sizes, height, width):
    regions = propose_regions(anchors, sizes, (height, width))
    assert len(regions) == len(anchors) * len(sizes)
    x0, y0, x1, y1 = regions.boxes_xyxy.unbind(1)
    assert bool((x0 >= 0).all() and (y0 >= 0).all() and (x1 <= width).all() and (y1 <= height).all())
    expected = torch.tensor([max(1, round(2 * r * min(height, width) / 32)) for r in sizes]).repeat(len(anchors))
    assert torch.equal(x1 - x0, expected)
    assert torch.equal(y1 - y0, expected)


@given(anchors=anchors_on_grids(), sizes=half_sizes, height=sides, width=sides)
def test_boxes_are_centred_on_their_anchor_unless_that_would_cross_the_border(anchors, sizes, height, width):
    regions = propose_regions(anchors, sizes, (height, width))
    for box, anchor in zip(regions.boxes_xyxy.tolist(), regions.anchor_index.tolist(), strict=True):
        row, column = anchors.points_yx[anchor].tolist()
        centre_y, centre_x = (row + 0.5) * height / anchors.grid_yx[0], (column + 0.5) * width / anchors.grid_yx[1]
        x0, y0, x1, y1 = box
        assert x0 == 0 or x1 == width or abs((x0 + x1) / 2 - centre_x) <= 1
        assert y0 == 0 or y1 == height or abs((y0 + y1) / 2 - centre_y) <= 1


def test_the_default_sizes_are_the_published_six():
    assert EditConfig().sizes == (4, 6, 8, 10, 12, 14)


@pytest.mark.parametrize("sizes", [[], [0], [17], [-4]])
def test_sizes_out_of_range_are_refused(sizes, nine_anchors):
    with pytest.raises(MasklessError, match="sizes must be"):
        propose_regions(nine_anchors, sizes, (100, 100))


@given(
    anchors=anchors_on_grids(),
    r=st.integers(1, 16),
    height=sides,
    width=sides,
    context=st.floats(0, 4),
)
def test_a_window_is_a_square_inside_the_picture_that_contains_its_box(anchors, r, height, width, context):
    box = propose_regions(anchors, [r], (height, width)).boxes_xyxy[0].tolist()
    x0, y0, x1, y1 = context_window(box, (height, width), context=context)
    assert x1 - x0 == y1 - y0 >= min((1 + 2 * context) * max(box[2] - box[0], box[3] - box[1]), height, width)
    assert 0 <= x0 <= box[0] and 0 <= y0 <= box[1] and box[2] <= x1 <= width and box[3] <= y1 <= height


def test_a_region_as_wide_as_the_picture_is_its_own_window():
    assert context_window((10, 0, 110, 100), (100, 140), context=0.5) == (10, 0, 110, 100)


@given(anchors=anchors_on_grids(), r=st.integers(1, 16), height=sides, width=sides)
def test_boxes_on_a_smaller_copy_stay_inside_it(anchors, r, height, width):
    boxes = propose_regions(anchors, [r], (height, width)).boxes_xyxy
    scale = min(1.0, 512 / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    x0, y0, x1, y1 = scale_boxes(boxes, (height, width), small).unbind(1)
    assert bool(((0 <= x0) & (x0 < x1) & (x1 <= small[1]) & (0 <= y0) & (y0 < y1) & (y1 <= small[0])).all())


def test_on_the_grid_x_still_counts_columns_and_y_rows():
    grid = scale_to_grid(torch.tensor([[64, 0, 128, 32]]), size_yx=(64, 256), grid_yx=(16, 32))
    assert grid.tolist() == [[8.0, 0.0, 16.0, 8.0]]


def test_the_mean_inside_minus_the_mean_outside():
    scores = torch.zeros(64, 64)
    scores[16:32, 8:24] = 1.0
    boxes = torch.tensor([[8, 16, 24, 32], [40, 40, 56, 56], [0, 0, 64, 64]])
    found = inside_less_outside(scores, boxes, (64, 64))
    assert torch.allclose(found, torch.tensor([1.0, -256 / (4096 - 256), 256 / 4096]), atol=1e-6)


@given(
    box=st.tuples(*[st.integers(0, 70)] * 4).filter(lambda b: b[0] < b[2] and b[1] < b[3]),
    size=st.tuples(st.integers(70, 200), st.integers(70, 90)),
    context=st.floats(0, 2),
)
def test_a_square_window_contains_its_box(box, size, context):
    x0, y0, x1, y1 = square_window(box, size, context=context)
    assert x1 - x0 == y1 - y0 <= max(size)
    assert x0 <= box[0] and y0 <= box[1] and box[2] <= x1 and box[3] <= y1
    if x1 - x0 <= min(size):
        assert 0 <= x0 and x1 <= size[1] and 0 <= y0 and y1 <= size[0]


def test_corners_are_integers():
    assert corners(torch.tensor([1, 2, 3, 4])) == (1, 2, 3, 4)


def test_boxes_that_overlap_a_better_one_are_left_out():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 4]])
    score = torch.tensor([0.1, 0.9, -0.5, 0.3])
    assert without_overlaps(boxes, score, max_iou=0.5, count=4) == [1, 3, 2], "the first overlaps the second by 0.9"
    assert without_overlaps(boxes, score, max_iou=0.95, count=4) == [1, 3, 0, 2]
    assert without_overlaps(boxes, score, max_iou=0.5, count=2) == [1, 3]
    assert without_overlaps(boxes[:0], score[:0], max_iou=0.5, count=2) == []
