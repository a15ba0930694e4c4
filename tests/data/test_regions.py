"""Boxes, windows, masks and the paste back, on any size and aspect."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.data.boxes import (
    box_in_window,
    context_window,
    inside_less_outside,
    propose_regions,
    scale_boxes,
    scale_to_grid,
    square_window,
)
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.masks import (
    components,
    crop_mask,
    mask_box,
    mask_weight,
    seam_step,
    seam_weight,
    soft_box_mask,
    window_mask,
    without_holes,
)
from maskless.data.paste import crop_window, met, paste_back, paste_pixels, spread
from maskless.data.types import Anchors

sides = st.integers(32, 8000)
small_sides = st.integers(32, 200)
half_sizes = st.lists(st.integers(1, 16), min_size=1, max_size=6, unique=True)


@st.composite
def anchors_on_grids(draw):
    rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    count = draw(st.integers(1, 5))
    points = [[draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))] for _ in range(count)]
    return Anchors(points_yx=torch.tensor(points), weight=torch.ones(count), grid_yx=(rows, columns))


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
def test_boxes_are_centred_on_their_anchor_unless_the_border_is_in_the_way(anchors, sizes, height, width):
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
def test_a_window_is_a_square_inside_the_picture_that_holds_its_box(anchors, r, height, width, context):
    box = propose_regions(anchors, [r], (height, width)).boxes_xyxy[0].tolist()
    x0, y0, x1, y1 = context_window(box, (height, width), context=context)
    assert x1 - x0 == y1 - y0 >= min((1 + 2 * context) * max(box[2] - box[0], box[3] - box[1]), height, width)
    assert 0 <= x0 <= box[0] and 0 <= y0 <= box[1] and box[2] <= x1 <= width and box[3] <= y1 <= height


def test_a_small_region_is_seen_in_detail_and_with_context():
    assert context_window((10, 20, 40, 50), (128, 128), context=0.5) == (0, 5, 60, 65)
    assert context_window((1000, 1000, 1200, 1200), (4000, 6000), context=0.5) == (900, 900, 1300, 1300)


def test_a_region_that_fills_the_picture_is_seen_with_all_of_it():
    assert context_window((10, 0, 110, 100), (100, 140), context=0.5) == (10, 0, 110, 100)


@given(anchors=anchors_on_grids(), r=st.integers(1, 16), height=small_sides, width=small_sides)
def test_the_mask_covers_the_whole_box(anchors, r, height, width):
    box = propose_regions(anchors, [r], (height, width)).boxes_xyxy[0].tolist()
    window = context_window(box, (height, width), context=0.5)
    x0, y0, x1, y1 = box_in_window(box, window, 64)
    scale = 64 / (window[2] - window[0])
    assert x0 <= (box[0] - window[0]) * scale and (box[2] - window[0]) * scale <= x1 <= 64
    assert y0 <= (box[1] - window[1]) * scale and (box[3] - window[1]) * scale <= y1 <= 64
    assert float(window_mask(box, window, 64).sum()) == (x1 - x0) * (y1 - y0)


@settings(deadline=None)
@given(
    anchors=anchors_on_grids(),
    r=st.integers(1, 16),
    height=small_sides,
    width=small_sides,
    deep=st.booleans(),
    feather=st.floats(0, 0.5),
)
def test_outside_the_box_every_pixel_is_the_originals_at_any_depth(anchors, r, height, width, deep, feather):
    rng = np.random.default_rng(height * 1000 + width)
    kind = np.uint16 if deep else np.uint8
    original = rng.integers(0, np.iinfo(kind).max + 1, (height, width, 3), dtype=kind)
    box = propose_regions(anchors, [r], (height, width)).boxes_xyxy[0].tolist()
    window = context_window(box, (height, width), context=0.5)
    edited = paste_pixels(original, torch.rand(3, 64, 64), window, box, feather=feather)
    assert edited.dtype == kind and edited.shape == original.shape
    x0, y0, x1, y1 = box
    outside = np.ones((height, width), dtype=bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(edited[outside], original[outside])


@settings(deadline=None)
@given(anchors=anchors_on_grids(), r=st.integers(1, 16), side=st.integers(64, 150), deep=st.booleans())
def test_a_window_that_was_not_changed_pastes_back_to_the_very_same_picture(anchors, r, side, deep):
    kind = np.uint16 if deep else np.uint8
    original = np.random.default_rng(side).integers(0, np.iinfo(kind).max + 1, (side, side, 3), dtype=kind)
    image = torch.from_numpy(original.astype(np.float32) / np.iinfo(kind).max).permute(2, 0, 1)
    box = propose_regions(anchors, [r], (side, side)).boxes_xyxy[0].tolist()
    window = context_window(box, (side, side), context=0.5)
    crop = crop_window(image, window, window[2] - window[0])
    assert np.array_equal(paste_pixels(original, crop, window, box, feather=0.06), original)
    assert torch.allclose(paste_back(image, crop, window, box, feather=0.06), image, atol=1e-6)


def test_the_middle_of_the_box_is_the_edit():
    original = np.zeros((100, 100, 3), dtype=np.uint8)
    edited = paste_pixels(original, torch.ones(3, 64, 64), (0, 0, 100, 100), (20, 30, 60, 70), feather=0.1)
    assert (edited[36:64, 26:54] == 255).all()
    assert 0 < edited[30, 40, 0] < 255, "the seam is blended inside the box"


def test_the_seam_falls_only_where_there_is_something_to_blend_with():
    weight = seam_weight((0, 0, 40, 40), (100, 100), 0.1)
    assert weight[0, 0] == 1 and weight[20, 20] == 1
    assert weight[39, 20] < 0.1 and weight[20, 39] < 0.1


def test_paste_back_passes_gradients_to_the_edit():
    crop = torch.rand(3, 32, 32, requires_grad=True)
    paste_back(torch.zeros(3, 64, 64), crop, (0, 0, 64, 64), (16, 16, 48, 48), feather=0.0).sum().backward()
    assert crop.grad is not None
    assert float(crop.grad[:, 10:22, 10:22].min()) > 0 and float(crop.grad[:, 0].abs().max()) == 0


def test_pixels_of_another_kind_are_refused():
    with pytest.raises(MasklessError, match="uint8 or uint16"):
        paste_pixels(np.zeros((9, 9, 3), np.float32), torch.zeros(3, 8, 8), (0, 0, 9, 9), (1, 1, 4, 4), feather=0.0)


@given(anchors=anchors_on_grids(), r=st.integers(1, 16), height=sides, width=sides)
def test_boxes_on_a_smaller_copy_stay_inside_it(anchors, r, height, width):
    boxes = propose_regions(anchors, [r], (height, width)).boxes_xyxy
    scale = min(1.0, 512 / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    x0, y0, x1, y1 = scale_boxes(boxes, (height, width), small).unbind(1)
    assert bool(((0 <= x0) & (x0 < x1) & (x1 <= small[1]) & (0 <= y0) & (y0 < y1) & (y1 <= small[0])).all())


def test_grid_boxes_keep_x_with_columns_and_y_with_rows():
    grid = scale_to_grid(torch.tensor([[64, 0, 128, 32]]), size_yx=(64, 256), grid_yx=(16, 32))
    assert grid.tolist() == [[8.0, 0.0, 16.0, 8.0]]


def test_soft_masks_are_near_one_inside_and_near_zero_outside():
    mask = soft_box_mask(torch.tensor([[8, 16, 40, 48]]), (64, 64), sharpness_px=1.0)[0]
    assert mask[32, 24] > 0.99 and mask[4, 24] < 0.01 and mask[32, 60] < 0.01
    assert abs(float(mask[32, 7] + mask[32, 8]) - 1) < 1e-3, "one half on the edge"


def test_inside_less_outside_of_a_map_that_is_one_in_the_box():
    scores = torch.zeros(64, 64)
    scores[16:32, 8:24] = 1.0
    boxes = torch.tensor([[8, 16, 24, 32], [40, 40, 56, 56], [0, 0, 64, 64]])
    found = inside_less_outside(scores, boxes, (64, 64))
    assert torch.allclose(found, torch.tensor([1.0, -256 / (4096 - 256), 256 / 4096]), atol=1e-6)


def test_connected_parts_the_largest_first():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = True  # neighbours by a corner
    mask[4:7, 4:7] = True
    parts = components(mask)
    assert [int(part.sum()) for part in parts] == [9, 2]
    assert torch.equal(torch.stack(parts).any(dim=0), mask) and components(torch.zeros_like(mask)) == []


def test_what_a_mask_encloses_is_of_it_where_that_is_small():
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


def test_a_masks_seam_lies_inside_it():
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


@given(
    box=st.tuples(*[st.integers(0, 70)] * 4).filter(lambda b: b[0] < b[2] and b[1] < b[3]),
    size=st.tuples(st.integers(70, 200), st.integers(70, 90)),
    context=st.floats(0, 2),
)
def test_a_square_window_holds_its_box(box, size, context):
    x0, y0, x1, y1 = square_window(box, size, context=context)
    assert x1 - x0 == y1 - y0 <= max(size)
    assert x0 <= box[0] and y0 <= box[1] and box[2] <= x1 and box[3] <= y1
    if x1 - x0 <= min(size):
        assert 0 <= x0 and x1 <= size[1] and 0 <= y0 and y1 <= size[0]


def test_where_a_window_overhangs_the_border_is_repeated_and_masked():
    image = torch.rand(3, 40, 60)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    crop, masked = crop_window(image, (0, -10, 60, 50), 60), crop_mask(mask, (0, -10, 60, 50), 60)
    assert torch.equal(crop[:, 10:50], image) and torch.equal(crop[:, 0], image[:, 0])
    assert bool(masked[:, :10].all()) and bool(masked[:, 50:].all()) and not bool(masked[:, 10:50].any())


def test_a_mask_marks_every_pixel_that_it_touches():
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[3, 70] = True
    assert crop_mask(mask, (0, 0, 128, 128), 32).nonzero().tolist() == [[0, 0, 17]]


def test_known_values_spread_smoothly():
    ramp = torch.linspace(0, 1, 64).expand(1, 48, 64)
    known = torch.ones(48, 64, dtype=torch.bool)
    known[12:30, 20:44] = False
    spreading = spread(ramp, known)
    assert torch.equal(spreading[:, known], ramp[:, known])
    assert float((spreading - ramp).abs().max()) < 0.2
    assert torch.allclose(spread(torch.full((3, 9, 7), 0.4), known[:9, :7]), torch.full((3, 9, 7), 0.4), atol=1e-6)


def test_the_step_across_an_outline():
    image = torch.zeros(3, 32, 32)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[8:20, 8:20] = True
    image[:, mask] = 0.5
    assert seam_step(image, mask) == pytest.approx(0.5)
    assert seam_step(image, torch.ones_like(mask)) == 0 == seam_step(torch.ones(3, 32, 32), mask)


def test_a_drawing_meets_its_surroundings():
    source = torch.linspace(0.2, 0.6, 64).expand(3, 64, 64).contiguous()
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 20:44, 20:44] = True
    thing = torch.zeros(3, 64, 64)
    thing[:, 28:36, 28:36] = 0.3
    drawn = source + thing + torch.tensor([0.05, -0.1, 0.0])[:, None, None]  # all of it lighter, darker, as it was
    assert torch.allclose(met(drawn, source, mask), source + thing, atol=1e-4)
    everything = torch.ones_like(mask)
    assert torch.equal(met(drawn, source, everything), drawn), "nothing is around it"
