"""Splits a square that is larger than a model can draw at once into overlapping tiles, and blends the drawn tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

STRIDE = 0.75
"""Maximum distance between the starts of neighbouring tiles, as a share of their side."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """The rows (y) and columns (x) of a tile on its canvas, in pixels."""

    y: slice
    x: slice

    def crop(self, canvas: Tensor) -> Tensor:
        """The part of a canvas [..., S, S] under the tile."""
        return canvas[..., self.y, self.x]

    def replaced(self, canvas: Float[Tensor, "3 S S"], drawn: Float[Tensor, "3 s s"]) -> Float[Tensor, "3 S S"]:
        """A copy of the canvas with a drawn tile on it."""
        result = canvas.clone()
        result[:, self.y, self.x] = drawn
        return result

    def crop_latents(self, latents: Tensor, cell_px: int) -> Tensor:
        """The part of latents [..., S / cell_px, S / cell_px] under the tile."""
        rows, columns = (slice(edge.start // cell_px, edge.stop // cell_px) for edge in (self.y, self.x))
        return latents[..., rows, columns]


def whole_tile(side: int) -> Tile:
    """The tile that is all of a canvas of this side, in pixels."""
    return Tile(y=slice(0, side), x=slice(0, side))


def tiles_over(mask: Float[Tensor, "1 S S"], *, tile_px: int, cell_px: int) -> list[Tile]:
    """The tiles of a square canvas that touch its mask, aligned to the cells of the latents.

    mask: 0 or 1. tile_px, cell_px: sides of a tile and of a cell, in pixels.
    """
    starts = tile_starts(mask.shape[1], tile_px, cell_px)
    tiles = [Tile(y=slice(y, y + tile_px), x=slice(x, x + tile_px)) for y in starts for x in starts]
    return [tile for tile in tiles if bool(tile.crop(mask).any())]


def blend_tiles(
    canvas: Float[Tensor, "3 S S"], tiles: Sequence[Tile], drawn: Float[Tensor, "N 3 s s"]
) -> Float[Tensor, "3 S S"]:
    """The canvas with the drawn tiles on it. Overlapping tiles are averaged with weights that fall to their edges."""
    side = drawn.shape[-1]
    ramp = torch.minimum(torch.arange(side) + 1, torch.arange(side, 0, -1)).clamp(max=side // 4)
    fade = (ramp[:, None] * ramp[None, :]).to(torch.float32)
    total, weight = torch.zeros_like(canvas), torch.zeros(canvas.shape[1:])
    for tile, picture in zip(tiles, drawn, strict=True):
        total[:, tile.y, tile.x] += fade * picture
        weight[tile.y, tile.x] += fade
    return torch.where(weight > 0, total / weight.clamp(min=1e-6), canvas)


def tile_starts(side: int, tile: int, cell: int) -> list[int]:
    """The starts of overlapping tiles that cover a side, in pixels, all multiples of `cell`.

    The first tile starts at 0, the last one ends at the end of the side.
    """
    steps = max(1, -(-(side - tile) // int(tile * STRIDE)))
    return sorted({round((side - tile) * step / steps / cell) * cell for step in range(steps + 1)})
