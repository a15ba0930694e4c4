"""The overview is a picture of sensible size for any input. Its looks can only be judged by eye."""

import io

import numpy as np
import pytest
from PIL import Image

from maskless.records.overview import THUMB_PX, draw_overview, thumbnail


@pytest.mark.parametrize("size_yx", [(64, 64), (32, 400), (400, 32)])
def test_any_shape_and_any_text(make_result, size_yx):
    pixels = np.random.default_rng(0).integers(0, 256, (*size_yx, 3), dtype=np.uint8)
    result = make_result(pixels, caption="$x_1$ 🌳 漢字", prompt="w" * 400)
    thumbs = [thumbnail(result.edited(index).pixels()) for index in range(9)]
    image = Image.open(io.BytesIO(draw_overview(result, thumbnail(pixels), thumbs)))
    assert image.format == "PNG" and image.width == 1430 and 600 < image.height < 2500
    assert len(set(image.convert("L").getdata())) > 100


def test_thumbnails_are_small_and_have_eight_bits():
    pixels = np.full((1000, 2000, 3), 40_000, np.uint16)
    image = thumbnail(pixels)
    assert image.size == (THUMB_PX, THUMB_PX // 2) and image.getpixel((0, 0)) == (156, 156, 156)
