"""Cropping and pasting back: outside the region every pixel is the original's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.data.boxes import (
    context_window,
    propose_regions,
)
from maskless.data.errors import MasklessError
from maskless.data.masks import (
    crop_mask,
)
from maskless.data.paste import (
    LARGE_PX,
    averaged,
    averaged_source,
    continue_outwards,
    crop_source,
    crop_window,
    match_surroundings,
    paste_alpha,
    paste_back,
    paste_pixels,
    paste_small,
    resize,
    shrunk_to,
)
from maskless.data.picture import BAND_ROWS, as_floats, load_image
from random_boxes import anchors_on_grids, small_sides


def test_a_window_is_the_region_with_its_context_inside_the_picture():
    assert context_window((10, 20, 40, 50), (128, 128), context=0.5) == (0, 5, 60, 65)
    assert context_window((1000, 1000, 1200, 1200), (4000, 6000), context=0.5) == (900, 900, 1300, 1300)


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
def test_pasting_an_unchanged_window_gives_the_same_picture(anchors, r, side, deep):
    kind = np.uint16 if deep else np.uint8
    original = np.random.default_rng(side).integers(0, np.iinfo(kind).max + 1, (side, side, 3), dtype=kind)
    image = torch.from_numpy(original.astype(np.float32) / np.iinfo(kind).max).permute(2, 0, 1)
    box = propose_regions(anchors, [r], (side, side)).boxes_xyxy[0].tolist()
    window = context_window(box, (side, side), context=0.5)
    crop = crop_window(image, window, window[2] - window[0])
    assert np.array_equal(paste_pixels(original, crop, window, box, feather=0.06), original)
    assert torch.allclose(paste_back(image, crop, window, box, feather=0.06), image, atol=1e-6)


def test_the_middle_of_the_box_shows_the_edit_alone():
    original = np.zeros((100, 100, 3), dtype=np.uint8)
    edited = paste_pixels(original, torch.ones(3, 64, 64), (0, 0, 100, 100), (20, 30, 60, 70), feather=0.1)
    assert (edited[36:64, 26:54] == 255).all()
    assert 0 < edited[30, 40, 0] < 255, "the seam is blended inside the box"


@pytest.mark.parametrize("with_mask", [False, True])
def test_a_box_higher_than_one_band_of_rows_is_pasted_without_a_step(with_mask):
    generator = torch.Generator().manual_seed(0)
    size, box, window = (2 * BAND_ROWS + 90, 60), (5, 20, 50, 2 * BAND_ROWS + 61), (0, 0, 60, 2 * BAND_ROWS + 90)
    pixels = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8).numpy()
    crop, mask = torch.rand(3, 40, 40, generator=generator), torch.zeros(size, dtype=torch.bool)
    mask[30 : 2 * BAND_ROWS + 50, 12:40] = True
    region = mask if with_mask else None
    floats = torch.from_numpy(pixels).movedim(-1, 0) / 255
    expected = paste_back(floats, crop, window, box, feather=0.1, mask=region)
    pasted = paste_pixels(pixels, crop, window, box, feather=0.1, mask=region)
    difference = (torch.from_numpy(pasted).movedim(-1, 0) - 255 * expected).abs()
    assert float(difference.max()) < 0.51, "rounded, and nothing else"


def test_paste_back_passes_gradients_to_the_edit():
    crop = torch.rand(3, 32, 32, requires_grad=True)
    paste_back(torch.zeros(3, 64, 64), crop, (0, 0, 64, 64), (16, 16, 48, 48), feather=0.0).sum().backward()
    assert crop.grad is not None
    assert float(crop.grad[:, 10:22, 10:22].min()) > 0 and float(crop.grad[:, 0].abs().max()) == 0


def test_pixels_of_another_kind_are_refused():
    with pytest.raises(MasklessError, match="uint8 or uint16"):
        paste_pixels(np.zeros((9, 9, 3), np.float32), torch.zeros(3, 8, 8), (0, 0, 9, 9), (1, 1, 4, 4), feather=0.0)


def test_beyond_the_picture_a_window_repeats_the_border_and_is_masked():
    image = torch.rand(3, 40, 60)
    mask = torch.zeros(40, 60, dtype=torch.bool)
    crop, masked = crop_window(image, (0, -10, 60, 50), 60), crop_mask(mask, (0, -10, 60, 50), 60)
    assert torch.equal(crop[:, 10:50], image) and torch.equal(crop[:, 0], image[:, 0])
    assert bool(masked[:, :10].all()) and bool(masked[:, 50:].all()) and not bool(masked[:, 10:50].any())


def test_known_values_continue_smoothly():
    ramp = torch.linspace(0, 1, 64).expand(1, 48, 64)
    known = torch.ones(48, 64, dtype=torch.bool)
    known[12:30, 20:44] = False
    continued = continue_outwards(ramp, known)
    assert torch.equal(continued[:, known], ramp[:, known])
    assert float((continued - ramp).abs().max()) < 0.2
    assert torch.allclose(
        continue_outwards(torch.full((3, 9, 7), 0.4), known[:9, :7]), torch.full((3, 9, 7), 0.4), atol=1e-6
    )


def test_a_drawing_takes_the_colours_of_its_surroundings():
    source = torch.linspace(0.2, 0.6, 64).expand(3, 64, 64).contiguous()
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[:, 20:44, 20:44] = True
    drawn_object = torch.zeros(3, 64, 64)
    drawn_object[:, 28:36, 28:36] = 0.3
    colour_shift = torch.tensor([0.05, -0.1, 0.0])[:, None, None]
    drawn = source + drawn_object + colour_shift
    assert torch.allclose(match_surroundings(drawn, source, mask), source + drawn_object, atol=1e-4)
    everything = torch.ones_like(mask)
    assert torch.equal(match_surroundings(drawn, source, everything), drawn), "there are no surroundings to match"


def test_a_picture_is_shrunk_and_never_enlarged():
    picture = torch.rand(3, 60, 120, generator=torch.Generator().manual_seed(0))
    assert shrunk_to(picture, 120) is picture and shrunk_to(picture, 500) is picture
    assert shrunk_to(picture, 40).shape == (3, 20, 40)


def test_a_large_picture_is_averaged_over_whole_squares_of_pixels():
    picture = torch.rand(3, 62, 95, generator=torch.Generator().manual_seed(0))
    assert averaged(picture, 32) is picture and averaged(picture) is picture
    even = picture[:, :, :94]
    assert torch.allclose(averaged(even, 31), even.reshape(3, 31, 2, 47, 2).mean(dim=(2, 4)), atol=1e-6)
    odd = averaged(picture, 31)
    assert odd.shape == (3, 31, 47) and float(odd.mean()) == pytest.approx(float(picture.mean()), abs=1e-5)
    learned = picture.clone().requires_grad_()
    assert averaged(learned, 31) is learned, "gradients flow through the picture itself"


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integer_pixels_are_averaged_to_the_nearest_value(dtype, white):
    pixels = np.random.default_rng(0).integers(0, white, (70, 103, 3), dtype=dtype)
    source = load_image(pixels)
    found = averaged_source(source, shorter_px=32)
    assert "rgb" not in vars(source), "the whole picture does not become floats"
    assert found.shape == (3, 35, 51)
    assert float((found - averaged(source.rgb, 32)).abs().max()) * white < 0.51
    assert torch.equal(averaged_source(load_image(source.rgb), shorter_px=32), averaged(source.rgb, 32)), (
        "floats stay exact"
    )


@pytest.mark.parametrize("window", [(10, 5, 42, 37), (-6, 20, 30, 56), (30, 30, 70, 70)])
def test_a_window_of_a_loaded_picture_is_that_of_its_floats(window):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    source = load_image(pixels)
    part = crop_source(source, window, 24)
    assert "rgb" not in vars(source)
    assert torch.equal(part, crop_window(source.rgb, window, 24))


def test_a_large_window_is_averaged_before_it_becomes_floats(monkeypatch):
    monkeypatch.setattr("maskless.data.paste.LARGE_PX", 32)
    pixels = np.random.default_rng(0).integers(0, 255, (100, 90, 3), dtype=np.uint8)
    source = load_image(pixels)
    converted = []
    monkeypatch.setattr("maskless.data.paste.as_floats", lambda part: converted.append(part.shape) or as_floats(part))
    part = crop_source(source, (8, 8, 80, 80), 16)
    assert converted == [(36, 36, 3)] and "rgb" not in vars(source)
    assert float((part - crop_window(source.rgb, (8, 8, 80, 80), 16)).abs().max()) * 255 < 0.6


def test_large_pictures_and_windows_are_shrunk_as_the_bicubic_kernel_would():
    down, across = torch.meshgrid(
        torch.linspace(0, 1, 2 * LARGE_PX), torch.linspace(0, 1, 2 * LARGE_PX + 96), indexing="ij"
    )
    picture = torch.stack([down, across, (down + across) / 2])
    assert torch.allclose(shrunk_to(picture, 200), resize(picture, (194, 200)), atol=2e-3)
    assert torch.allclose(
        crop_window(picture, (90, 0, 3162, 3072), 64), resize(picture[:, :, 90:3162], (64, 64)), atol=2e-3
    )
    small = picture[:, :3000, :3000]
    assert torch.equal(crop_window(small, (0, 0, 3000, 3000), 64), resize(small, (64, 64))), (
        "below the limit nothing changes"
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(20, 200), st.integers(20, 200), st.floats(0, 0.9), st.floats(0, 0.9))
def test_of_a_window_only_the_needed_columns_are_computed_and_they_are_the_same(width, height, left, top):
    picture, crop = torch.zeros(3, 220, 220), torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(0))
    box = (5 + int(left * width), 7 + int(top * height), 5 + width, 7 + height)
    found = paste_back(picture, crop, (5, 7, 5 + width, 7 + height), box, feather=0.0)
    whole = resize(crop, (height, width))
    assert torch.equal(found[:, box[1] : box[3], box[0] : box[2]], whole[:, box[1] - 7 :, box[0] - 5 :])


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_what_is_painted_on_a_transparent_ground_is_opaque_with_its_seam(depth):
    white = np.iinfo(depth).max
    original, alpha = np.zeros((60, 80, 3), depth), np.zeros((60, 80), depth)
    alpha[:, :30] = white
    box = (20, 10, 60, 50)
    pasted = paste_alpha(alpha, box, feather=0.2)
    outside = np.ones((60, 80), bool)
    outside[10:50, 20:60] = False
    assert pasted.dtype == depth and np.array_equal(pasted[outside], alpha[outside])
    assert (pasted[20:40, 30:50] == white).all() and (pasted[10:50, 20:30] == white).all()
    assert 0 < pasted[30, 59] < pasted[30, 55] < white, "the seam falls towards the transparent ground"
    pixels = paste_pixels(original, torch.ones(3, 40, 40), box, box, feather=0.2, alpha=alpha)
    assert (pixels[20:40, 31:60] == white).all(), "no colour of the invisible ground is in the seam"
    assert 0 < pixels[30, 20, 0] < white, "an opaque ground is blended as before"


def test_on_an_opaque_picture_the_alpha_channel_changes_nothing():
    original = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    crop, box = torch.rand(3, 40, 40), (20, 10, 60, 50)
    opaque = np.full((60, 80), 255, np.uint8)
    assert np.array_equal(
        paste_pixels(original, crop, box, box, feather=0.2, alpha=opaque),
        paste_pixels(original, crop, box, box, feather=0.2),
    )
    assert np.array_equal(paste_alpha(opaque, box, feather=0.2), opaque)


def test_a_soft_mask_fades_out_and_touches_nothing_where_it_is_zero():
    original = np.full((40, 60, 3), 100, np.uint8)
    amount = torch.linspace(0, 1, 60).expand(40, 60).contiguous()
    box = (0, 0, 60, 40)
    edited = paste_pixels(original, torch.ones(3, 40, 60), box, box, feather=0.0, mask=amount)[20, :, 0].astype(int)
    assert edited[0] == 100 and (np.diff(edited) >= 0).all()
    assert 100 < edited[6] < 255 and (edited[16:] == 255).all()
    assert np.array_equal(paste_alpha(original[..., 0], box, feather=0.0, mask=amount)[20], edited)


def test_a_small_copy_gets_the_same_part_of_the_window():
    rng = torch.Generator().manual_seed(0)
    image, mask = torch.rand(3, 80, 120, generator=rng), torch.zeros(80, 120, dtype=torch.bool)
    mask[20:44, 30:61] = True
    window = (-4, 6, 70, 80)  # beyond the picture on the left
    crop = torch.full((3, 64, 64), 0.8)
    whole = paste_small(image, crop, window, mask, 0.0)
    assert torch.equal(whole, paste_back(image, crop, window, (30, 20, 61, 44), feather=0.0, mask=mask))
    small = shrunk_to(image, 30)
    pasted = paste_small(small, crop, window, mask, 0.0)
    changed = (pasted != small).any(dim=0)
    assert bool(changed[5:11, 8:15].all()), "every pixel that stands for one of the region"
    changed[5:11, 7:16] = False
    assert not changed.any()


def test_a_region_that_is_nothing_in_a_small_copy_is_still_pasted():
    mask = torch.zeros(800, 800, dtype=torch.bool)
    mask[799, 799] = True
    pasted = paste_small(torch.zeros(3, 8, 8), torch.ones(3, 4, 4), (799, 799, 800, 800), mask, 0.0)
    assert float(pasted[:, 7, 7].min()) == 1 and float(pasted.sum()) == 3
