"""Pictures as tensors, and sheets of them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from maskless.storybook.world.sheets import sheet, to_tensor


def test_a_picture_becomes_channels_rows_columns_in_0_to_1() -> None:
    image = Image.new("RGB", (3, 2), (255, 0, 51))
    image.putpixel((2, 0), (0, 255, 0))
    tensor = to_tensor(image)
    assert tensor.shape == (3, 2, 3) and tensor.dtype == torch.float32
    assert torch.allclose(tensor[:, 1, 0], torch.tensor([1.0, 0.0, 0.2])) and tensor[:, 0, 2].tolist() == [0, 1, 0]


def test_a_sheet_shows_its_rows_at_twice_their_size_on_white() -> None:
    red, blue = (torch.tensor(colour)[None, :, None, None].expand(1, 3, 8, 10) for colour in ([1.0, 0, 0], [0, 0, 1.0]))
    page = np.asarray(sheet([torch.cat([red, blue]), blue], gap=4))
    assert page.shape == (2 * 2 * (8 + 4), 2 * 2 * (10 + 4), 3)
    assert (page[:16, :20] == (255, 0, 0)).all() and (page[:16, 28:48] == (0, 0, 255)).all()
    assert (page[24:40, :20] == (0, 0, 255)).all()
    assert (page[16:24] == 255).all() and (page[24:, 28:] == 255).all(), "gaps and missing pictures are white"


def test_values_out_of_range_are_clipped() -> None:
    page = np.asarray(sheet([torch.tensor([-1.0, 2.0, 0.5])[None, :, None, None].expand(1, 3, 2, 2)], gap=0))
    assert page.shape == (4, 4, 3) and (page == (0, 255, 128)).all()
