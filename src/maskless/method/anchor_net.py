"""AnchorNet, the only trained part, and the region features that it reads. Method steps 4 and 5."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from maskless.data.errors import MasklessError

PROJECTED = 12
POOLED = 8
SAMPLES = 2
"""Bilinear samples per side of a pooled cell."""
PROJECTION_SEED = 0
"""The projection is the same for every image and run: it is frozen, and saved with every checkpoint (mistake 8)."""


def frozen_projection(channels: int) -> Float[Tensor, "12 D 1 1"]:
    """The seeded 1x1 projection D -> 12, with entries of variance 1/D."""
    generator = torch.Generator().manual_seed(PROJECTION_SEED)
    return torch.randn(PROJECTED, channels, 1, 1, generator=generator) / math.sqrt(channels)


def roi_align(
    features: Float[Tensor, "C h w"], boxes_xyxy: Float[Tensor, "N 4"], size: int = POOLED
) -> Float[Tensor, "N C s s"]:
    """Each box of a feature map averaged into size x size cells.

    Args:
        boxes_xyxy: in cells of the map: cell i covers [i, i + 1) and its value sits at i + 0.5. There is no other
            scale, so no scale to get wrong (mistake 4).
    Returns:
        The mean of 2 x 2 bilinear samples in every cell, as torchvision's roi_align(aligned=True, sampling_ratio=2).
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
    """What AnchorNet sees of every anchor, method step 4.

    Args:
        boxes_xyxy: in cells of the grid, anchor-major: row k * M + m is size m around anchor k.
        anchors: K.
    Returns:
        [K, M * 12, 8, 8]; channels m * 12 to m * 12 + 11 of row k are region (k, m) and no other (mistake 5).
    """
    if boxes_xyxy.shape[0] % anchors:
        raise MasklessError(f"boxes must be K * M with K = {anchors}, got {boxes_xyxy.shape[0]}")
    projected = F.conv2d(features[None], projection.to(features))[0]
    pooled = roi_align(projected, boxes_xyxy)
    return pooled.reshape(anchors, -1, POOLED, POOLED)


def standardised(regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K C 8 8"]:
    """Region features less their mean over the anchors, in units of their spread.

    Most of a patch feature is the same all over a picture. Without it the four hidden units can tell anchors apart:
    with another best size planted at every anchor, AnchorNet then finds 96 % of them instead of 85 %.
    """
    centred = regions - regions.mean(dim=0, keepdim=True)
    return centred / centred.std(correction=0).clamp(min=1e-6)


class AnchorNet(nn.Module):
    """pi(m|k): how good each of M sizes is around an anchor, method step 5.

    Conv1x1(12 M -> 8), ReLU, Conv1x1(8 -> 4), ReLU, Flatten, Linear(256 -> 4), ReLU, Linear(4 -> M), LogSoftmax.
    """

    def __init__(self, sizes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation, replaced below, draws globally
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
        """He-normal hidden layers. The four hidden units start alive (bias 1) and the last layer at zero, so that
        training begins at the uniform policy pi = 1/M instead of at a size that chance preferred."""
        for layer in self.layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        hidden, last = self.layers[5], self.layers[7]
        assert isinstance(hidden, nn.Linear) and isinstance(last, nn.Linear)
        nn.init.ones_(hidden.bias)
        nn.init.zeros_(last.weight)

    @property
    def parameter_count(self) -> int:
        """1,678 for M = 6."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K M"]:
        """log pi(m|k) for K anchors."""
        return self.layers(regions)
