"""Drawn scratches are found, and a picture without any is left alone."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from maskless.method.scratches import find_scratches


def picture(size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A sky over a field, with a red disc, and with a dark box that is too wide to be a scratch."""
    image = Image.new("RGB", size, (120, 180, 230))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, size[1] // 2, size[0], size[1]), fill=(90, 160, 70))
    pen.ellipse((20, 20, 60, 60), fill=(200, 40, 40))
    pen.rectangle((90, 60, 130, 100), fill=(20, 20, 30))
    return image


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


LINES = {
    "across": (0, 10, 159, 70),
    "upright": (75, 0, 78, 119),
    "over the disc": (5, 70, 90, 5),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("colour", [(245, 245, 245), (10, 10, 10)], ids=["bright", "dark"])
def test_a_line_is_found_whole_and_little_else(line, colour):
    damaged, truth = picture(), Image.new("L", (160, 120))
    ImageDraw.Draw(damaged).line(line, fill=colour, width=2)
    ImageDraw.Draw(truth).line(line, fill=255, width=2)
    found, drawn = find_scratches(tensor(damaged)).numpy(), np.asarray(truth) > 0
    crossed = np.zeros_like(drawn)
    crossed[58:102, 88:132] = True  # where a dark line crosses the dark box it cannot be distinguished
    assert (found & drawn & ~crossed).sum() >= 0.95 * (drawn & ~crossed).sum()
    assert (found & ~drawn).mean() < 0.04


def test_an_undamaged_picture_has_none():
    assert not find_scratches(tensor(picture())).any()
    assert not find_scratches(torch.full((3, 64, 64), 0.5)).any()


def test_short_marks_and_coloured_lines_are_no_scratches():
    image = picture()
    pen = ImageDraw.Draw(image)
    pen.line((100, 10, 112, 12), fill=(245, 245, 245), width=2)
    pen.line((0, 110, 159, 112), fill=(200, 40, 40), width=2)
    assert not find_scratches(tensor(image)).any()


def test_hatching_that_a_scratch_touches_is_no_scratch():
    image = picture()
    pen = ImageDraw.Draw(image)
    for start in range(-60, 160, 6):
        pen.line((start, 119, start + 45, 74), fill=(235, 245, 235), width=2)
    pen.line((5, 5, 150, 80), fill=(250, 250, 250), width=2)
    truth = Image.new("L", image.size)
    ImageDraw.Draw(truth).line((5, 5, 150, 80), fill=255, width=2)
    found, drawn = find_scratches(tensor(image)).numpy(), np.asarray(truth) > 0
    assert (found & drawn)[:66].sum() >= 0.9 * drawn[:66].sum(), "the scratch is found outside the hatching"
    assert found[90:].mean() < 0.02, "the hatching is left out"


def test_a_large_picture_is_searched_at_a_smaller_size():
    image = picture().resize((1600, 1200))
    ImageDraw.Draw(image).line((0, 100, 1599, 700), fill=(250, 250, 250), width=16)
    found = find_scratches(tensor(image))
    assert found.shape == (1200, 1600) and 0.005 < float(found.float().mean()) < 0.05
