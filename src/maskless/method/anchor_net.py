"""AnchorNet, the only trained network, and the region features that are its input. Method steps 4 and 5."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskless.data.errors import MasklessError

PROJECTED = 12
"""Channels of the projected features."""
POOLED = 8
"""Each region is pooled to this many cells per side."""
SAMPLES = 2
"""Bilinear samples per side of a pooled cell."""
PROJECTION_SEED = 0
"""The projection is the same for every image and run. It is frozen, and saved in every checkpoint (mistake 8)."""


def frozen_projection(channels: int) -> Float[Tensor, "12 D 1 1"]:
    """The weights of the seeded 1x1 projection from D to 12 channels, normal with variance 1/D."""
    generator = torch.Generator().manual_seed(PROJECTION_SEED)
    return torch.randn(PROJECTED, channels, 1, 1, generator=generator) / math.sqrt(channels)


def roi_align(
    features: Float[Tensor, "C h w"], boxes_xyxy: Float[Tensor, "N 4"], size: int = POOLED
) -> Float[Tensor, "N C s s"]:
    """Each box of a feature map averaged to size x size cells.

    Args:
        boxes_xyxy: in cells of the map: cell i covers [i, i + 1) and its value belongs to i + 0.5. There is no scale
            argument, so no scale can be wrong (mistake 4).
    Returns:
        The mean of 2 x 2 bilinear samples in each cell, like torchvision's roi_align(aligned=True, sampling_ratio=2).
    """
    height, width = features.shape[1:]
    steps = (torch.arange(size * SAMPLES, dtype=features.dtype) + 0.5) / (size * SAMPLES)
    x0, y0, x1, y1 = (edge[:, None] for edge in boxes_xyxy.to(features.dtype).unbind(1))
    xs = 2 * (x0 + (x1 - x0) * steps) / width - 1
    ys = 2 * (y0 + (y1 - y0) * steps) / height - 1
    count, points = xs.shape
    grid = torch.stack(
        [xs[:, None, :].expand(count, points, points), ys[:, :, None].expand(count, points, points)], dim=-1
    )
    samples = F.grid_sample(
        features[None].expand(count, -1, -1, -1), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return F.avg_pool2d(samples, SAMPLES)


def region_features(
    features: Float[Tensor, "D h w"],
    boxes_xyxy: Float[Tensor, "N 4"],
    projection: Float[Tensor, "12 D 1 1"],
    anchors: int,
) -> Float[Tensor, "K C 8 8"]:
    """The input of AnchorNet for each anchor (method step 4).

    Args:
        features: DINO's patch features.
        boxes_xyxy: in cells of the grid, anchor-major: row k * M + m has size m and lies around anchor k.
        projection: see `frozen_projection`.
        anchors: K.
    Returns:
        [K, M * 12, 8, 8]; channels m * 12 to m * 12 + 11 of row k belong to region (k, m) alone (mistake 5).
    Raises:
        MasklessError: the number of boxes is not a multiple of K.
    """
    if boxes_xyxy.shape[0] % anchors:
        raise MasklessError(f"the number of boxes must be K * M with K = {anchors}, got {boxes_xyxy.shape[0]}")
    projected = F.conv2d(features[None], projection.to(features))[0]
    pooled = roi_align(projected, boxes_xyxy)
    return pooled.reshape(anchors, -1, POOLED, POOLED)


def standardised(regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K C 8 8"]:
    """Region features minus their mean over the anchors, divided by their standard deviation.

    Most of a patch feature is the same everywhere in a picture. Without this common part the four hidden units
    distinguish anchors much better (docs/search.md).
    """
    centred = regions - regions.mean(dim=0, keepdim=True)
    return centred / centred.std(correction=0).clamp(min=1e-6)


class AnchorNet(nn.Module):
    """pi(m|k): a distribution over M sizes for each anchor (method step 5).

    Conv1x1(12 M -> 8), ReLU, Conv1x1(8 -> 4), ReLU, Flatten, Linear(256 -> 4), ReLU, Linear(4 -> M), LogSoftmax.
    """

    def __init__(self, sizes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation uses the global generator; replaced below
            self.layers = nn.Sequential(
                nn.Conv2d(PROJECTED * sizes, 8, 1),
                nn.ReLU(),
                nn.Conv2d(8, 4, 1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(4 * POOLED * POOLED, 4),
                nn.ReLU(),
                nn.Linear(4, sizes),
                nn.LogSoftmax(dim=1),
            )
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        """Set the first weights: He-normal hidden layers, and zeros in the last layer.

        Zeros make training start at the uniform policy pi = 1/M and not at a size that chance prefers. A bias of 1
        makes the four hidden units start active, because a ReLU that is always zero gets no gradient.
        """
        for layer in self.layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        hidden, last = self.layers[5], self.layers[7]
        assert isinstance(hidden, nn.Linear) and isinstance(last, nn.Linear)
        nn.init.ones_(hidden.bias)
        nn.init.zeros_(last.weight)

    @property
    def parameter_count(self) -> int:
        """The number of trained parameters: 1,678 for M = 6."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K M"]:
        """log pi(m|k) for K anchors."""
        return self.layers(regions)
