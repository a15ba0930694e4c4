"""Known changes of a whole picture, as editors make them unasked, to measure the registration with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from maskless.method.registration import Matrix


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A shift (right, down) in pixels, an enlargement around the picture's middle, a gain and an offset of each channel
    of values in [0, 1], and a Gaussian blur (standard deviation in pixels)."""

    shift_xy_px: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    gain_rgb: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset_rgb: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur_px: float = 0.0

    def matrix(self, size_yx: tuple[int, ...]) -> Matrix:
        """From pixels (x, y, 1) of a picture of this size to where the drift puts them."""
        middle = (size_yx[1] - 1) / 2, (size_yx[0] - 1) / 2
        shift = [at * (1 - self.scale) + by for at, by in zip(middle, self.shift_xy_px, strict=True)]
        return np.array([[self.scale, 0, shift[0]], [0, self.scale, shift[1]], [0, 0, 1.0]])

    def __call__(self, picture: Float[Tensor, "3 H W"]) -> Float[Tensor, "3 H W"]:
        """The picture, in [0, 1], after the drift, rounded to 8 bits. What comes in at the border mirrors the rest."""
        import cv2

        array = np.ascontiguousarray(picture.movedim(0, -1).numpy(), dtype=np.float32)
        matrix, size = self.matrix(array.shape), (array.shape[1], array.shape[0])
        if not np.array_equal(matrix, np.eye(3)):
            array = cv2.warpPerspective(array, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        if self.blur_px:
            array = cv2.GaussianBlur(array, (0, 0), self.blur_px)
        changed = array * np.array(self.gain_rgb, np.float32) + np.array(self.offset_rgb, np.float32)
        return torch.from_numpy((changed.clip(0, 1) * 255).round() / 255).to(torch.float32).movedim(-1, 0).contiguous()
