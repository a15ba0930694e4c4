"""Conversion of pictures to tensors, and sheets of many pictures for people to look at."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as [3, H, W] float in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def sheet(rows: list[Tensor], gap: int = 4) -> Image.Image:
    """Rows of images [N, 3, H, W] in [0, 1] on one white page, `gap` pixels apart, at twice their size."""
    height, width = rows[0].shape[-2:]
    columns = max(len(row) for row in rows)
    page = torch.ones(3, len(rows) * (height + gap), columns * (width + gap))
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            page[:, r * (height + gap) : r * (height + gap) + height, c * (width + gap) : c * (width + gap) + width] = (
                picture.cpu()
            )
    array = (page.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((array.shape[1] * 2, array.shape[0] * 2), Image.Resampling.NEAREST)
