"""Styles: what each does to a picture, at any size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from maskless.storybook.world.graph import sample
from maskless.storybook.world.scenes import draw
from maskless.storybook.world.styles import BLOCKS, STYLES, flat, pencil, pixel, watercolour


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return draw(next(g for g in map(sample, range(100)) if g.objects).with_style("flat"), 128).image


@pytest.mark.parametrize("style", list(STYLES))
def test_a_style_keeps_the_size_and_is_the_same_for_the_same_seed(style: str, picture: Image.Image) -> None:
    first, again = STYLES[style](picture, 5), STYLES[style](picture, 5)
    assert first.size == picture.size and first.mode == "RGB" and first.tobytes() == again.tobytes()


def test_flat_is_the_drawing_itself(picture: Image.Image) -> None:
    assert flat(picture, 0).tobytes() == picture.tobytes()


def test_pencil_is_pale_with_dark_outlines() -> None:
    canvas = Image.new("RGB", (128, 128), (20, 60, 200))
    canvas.paste((230, 40, 40), (64, 0, 128, 128))
    drawn = np.asarray(pencil(canvas, 0)).astype(int)
    fill = drawn[:, 8:56]
    assert fill.mean() > np.asarray(canvas)[:, 8:56].mean() + 50
    assert fill.std(axis=1).max() > 5, "hatching"
    assert drawn[:, 64].mean() < drawn[:, 70:120].mean() - 20, "an outline where the colours meet"


def test_watercolour_is_lighter_and_its_blotches_depend_on_the_seed(picture: Image.Image) -> None:
    first, second = (np.asarray(watercolour(picture, seed)).astype(int) for seed in (0, 1))
    assert first.mean() > np.asarray(picture).mean() and (first != second).mean() > 0.5


def test_pixel_art_has_even_blocks_of_few_colours(picture: Image.Image) -> None:
    drawn = np.asarray(pixel(picture, 0))
    assert set(np.unique(drawn)) <= {0, 51, 102, 153, 204, 255}
    blocks = drawn.reshape(BLOCKS, 128 // BLOCKS, BLOCKS, 128 // BLOCKS, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()


@pytest.mark.parametrize("style", list(STYLES))
def test_a_scene_looks_alike_at_twice_the_size(style: str) -> None:
    graph = next(g for g in map(sample, range(100)) if g.objects).with_style(style)
    small, large = draw(graph, 128).image, draw(graph, 256).image.reduce(2)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(large)).mean() < 12
