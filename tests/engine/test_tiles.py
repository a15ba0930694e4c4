"""Tiles cover their canvas, lie on whole cells, and fade into each other."""

import pytest
import torch

from maskless.engine.tiles import Tile, blend_tiles, tile_starts, tiles_over, whole_tile


@pytest.mark.parametrize("side", [64, 72, 100, 128, 256, 300])
def test_starts_cover_a_side_in_overlapping_steps_on_whole_cells(side):
    starts = tile_starts(side, 64, 4)
    assert starts[0] == 0 and starts[-1] == round((side - 64) / 4) * 4
    assert all(start % 4 == 0 for start in starts)
    assert all(0 < after - before <= 64 for before, after in zip(starts, starts[1:], strict=False))


def test_only_tiles_that_touch_the_mask_are_drawn():
    mask = torch.zeros(1, 160, 160)
    mask[:, 5:10, 150:] = 1
    tiles = tiles_over(mask, tile_px=64, cell_px=4)
    assert [(tile.y.start, tile.x.start) for tile in tiles] == [(0, 96)]
    assert tiles[0].crop(mask).shape == (1, 64, 64)
    assert tiles[0].crop_latents(torch.zeros(1, 4, 40, 40), 4).shape == (1, 4, 16, 16)


def test_tiles_cut_from_a_picture_join_to_the_same_picture():
    picture = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    tiles = tiles_over(torch.ones(1, 128, 128), tile_px=64, cell_px=4)
    canvas = torch.zeros(3, 128, 128)
    assert torch.allclose(
        blend_tiles(canvas, tiles, torch.stack([tile.crop(picture) for tile in tiles])), picture, atol=1e-6
    )


def test_where_no_tile_lies_the_canvas_stays():
    mask = torch.zeros(1, 160, 160)
    mask[:, :8, :8] = 1
    tiles = tiles_over(mask, tile_px=64, cell_px=4)
    canvas = torch.full((3, 160, 160), 0.25)
    result = blend_tiles(canvas, tiles, torch.ones(len(tiles), 3, 64, 64))
    assert float(result[:, 0, 0].min()) == 1 and float(result[:, 150, 150].max()) == 0.25


def test_a_drawn_tile_replaces_its_part_of_a_copy():
    canvas, drawn = torch.zeros(3, 8, 8), torch.ones(3, 4, 4)
    result = Tile(y=slice(4, 8), x=slice(0, 4)).replaced(canvas, drawn)
    assert float(result.sum()) == 3 * 16 == float(result[:, 4:, :4].sum()) and float(canvas.sum()) == 0
    assert torch.equal(whole_tile(8).replaced(canvas, result), result) and whole_tile(8).crop(result).shape == (3, 8, 8)
