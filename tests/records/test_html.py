"""The parts of pages: they need no other file, and any text is escaped."""

import base64
import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from maskless.records.html import (
    before_after,
    box_outline,
    curve,
    data_uri,
    facts,
    mask_outline,
    page,
    picture_bytes,
    text,
)

NASTY = "<script>alert(1)</script>\"'&\0\r\n<!-- ]]> </style>"


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


def test_a_page_forbids_every_request_and_every_script_but_its_own():
    html = page("title", "<p>body</p>")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy and policy.group(1).startswith("default-src 'none'; img-src data:;")
    assert html.count("<script>") == 1 and "'unsafe-inline'" not in policy.group(1).partition("script-src")[2]
    assert 'lang="en"' in html and 'name="viewport"' in html and "prefers-color-scheme: dark" in html


@pytest.mark.parametrize("content", [NASTY, 3, "ordinary", "漢字 🌳"])
def test_text_is_escaped(content):
    safe = text(content)
    assert not set("<>\"'\0\r") & set(safe)


def test_every_part_escapes_its_texts():
    picture = picture_bytes(Image.new("RGB", (8, 8)), longest_px=8, most_bytes=10_000)
    parts = [
        before_after(picture, picture, NASTY, size_px=(8, 8)),
        facts({NASTY: NASTY}),
        curve({NASTY: [(1, 2.0), (2, 1.0)]}, x_label=NASTY),
        page(NASTY, ""),
    ]
    for part in parts:
        assert "alert(1)" in part and "<script>alert" not in part and "\0" not in part


class TestPictures:
    def test_a_small_picture_is_stored_exactly(self):
        pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        image = opened(data_uri(picture_bytes(Image.fromarray(pixels), longest_px=60, most_bytes=20_000)))
        assert image.format == "PNG" and np.array_equal(np.asarray(image), pixels)

    @pytest.mark.parametrize("most_bytes", [300_000, 30_000, 3_000])
    def test_even_noise_is_reduced_to_the_maximum_size(self, most_bytes):
        pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
        encoded = picture_bytes(Image.fromarray(pixels), longest_px=1024, most_bytes=most_bytes)
        image = opened(data_uri(encoded))
        assert len(encoded) <= most_bytes and image.format == "JPEG"
        assert abs(image.width / image.height - 4 / 3) < 0.1

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
    def test_any_mode(self, mode):
        assert opened(data_uri(picture_bytes(Image.new(mode, (5, 9)), longest_px=64, most_bytes=9_000))).mode == "RGB"


class TestRegions:
    def test_boxes_are_drawn_at_their_coordinates(self):
        svg = box_outline([(10, 20, 40, 80)], (100, 200))
        assert 'viewBox="0 0 100 200"' in svg and '<rect x="10" y="20" width="30" height="60"/>' in svg
        assert box_outline([], (100, 200)) == ""

    def test_the_outline_of_a_mask_is_drawn(self):
        mask = np.zeros((100, 200), bool)
        mask[40:60, 50:150] = True
        address = re.search(r'src="([^"]*)"', mask_outline(mask))
        assert address
        alpha = np.asarray(opened(address.group(1)).convert("RGBA"))[..., 3] > 0
        assert alpha.shape == (320, 640) and alpha[128, 320] and alpha[160, 160]  # 3.2 times as large
        assert not alpha[160, 320] and not alpha[32, 32]

    def test_only_a_region_has_a_check_box(self):
        picture = picture_bytes(Image.new("RGB", (8, 8)), longest_px=8, most_bytes=10_000)
        outline = box_outline([(0, 0, 4, 4)], (8, 8))
        assert "checkbox" in before_after(picture, picture, "x", size_px=(8, 8), region=outline)
        assert "checkbox" not in before_after(picture, picture, "x", size_px=(8, 8))


class TestCurve:
    @pytest.mark.parametrize(
        "values",
        [[1.0], [1.0, 1.0], [0.0, 0.0], [2.0, 1.0, math.nan], [1e-9, 2e-9], [-3e8, 5e8], list(range(5000))],
        ids=range(7),
    )
    def test_any_values(self, values):
        svg = curve({"loss": [(step, float(value)) for step, value in enumerate(values)]}, x_label="iteration")
        numbers = [float(number) for number in re.findall(r'points="([^"]*)"', svg)[0].replace(",", " ").split()]
        assert all(math.isfinite(number) and 0 <= number <= 480 for number in numbers)
        assert len(numbers) <= 2 * 420 and "nan" not in svg

    def test_nothing_to_draw(self):
        assert curve({"loss": [(1, math.nan)]}, x_label="x") == "" == curve({}, x_label="x")

    def test_it_has_a_description(self):
        svg = curve({"loss": [(1, 2.0), (2, 1.5)]}, x_label="iteration")
        assert 'role="img"' in svg and "loss: 2 at the start, 1.5 at the end" in svg
