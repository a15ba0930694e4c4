"""Region features compared with a naive reference, and the layers of the network."""

import math

import pytest
import torch
from torch import nn

from maskless.data.errors import MasklessError
from maskless.method.anchor_net import AnchorNet, frozen_projection, region_features, roi_align, standardised


def bilinear(features: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """The value of a map at a point, where the value of cell i belongs to i + 0.5 and the border is repeated."""
    height, width = features.shape[1:]
    y, x = min(max(y - 0.5, 0.0), height - 1.0), min(max(x - 0.5, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * features[:, top, left] + across * features[:, top, right]
    lower = (1 - across) * features[:, bottom, left] + across * features[:, bottom, right]
    return (1 - down) * upper + down * lower


def naive_roi_align(features: torch.Tensor, box: list[float], size: int) -> torch.Tensor:
    x0, y0, x1, y1 = box
    result = torch.zeros(features.shape[0], size, size)
    for row in range(size):
        for column in range(size):
            for sample_y in (0.25, 0.75):
                for sample_x in (0.25, 0.75):
                    y = y0 + (row + sample_y) * (y1 - y0) / size
                    x = x0 + (column + sample_x) * (x1 - x0) / size
                    result[:, row, column] += bilinear(features, y, x) / 4
    return result


@pytest.mark.parametrize("box", [[0, 0, 32, 24], [3.5, 2.25, 9.0, 20.5], [28, 20, 32, 24], [10, 10, 10.5, 10.5]])
def test_roi_align_equals_the_naive_sum(box):
    features = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(1))
    fast = roi_align(features, torch.tensor([box], dtype=torch.float32))[0]
    assert torch.allclose(fast, naive_roi_align(features, box, 8), atol=1e-5)


def test_the_projection_is_always_the_same_and_keeps_the_scale():
    assert torch.equal(frozen_projection(96), frozen_projection(96))
    projected = torch.randn(4000, 96) @ frozen_projection(96)[:, :, 0, 0].T
    assert abs(float(projected.std()) - 1) < 0.15


def test_the_number_of_boxes_must_be_a_multiple_of_the_anchors():
    with pytest.raises(MasklessError, match="K \\* M"):
        region_features(torch.zeros(4, 8, 8), torch.ones(5, 4), frozen_projection(4), 2)


def test_standardised_features_have_no_common_part():
    regions = 100 + torch.randn(5, 12, 8, 8)
    assert float(standardised(regions).mean(dim=0).abs().max()) < 1e-3
    assert bool(standardised(regions[:1]).isfinite().all()), "a single anchor has a standard deviation of 0"


def test_the_network_is_the_published_one():
    net = AnchorNet(6, torch.Generator().manual_seed(0))
    kinds = [type(layer) for layer in net.layers]
    assert kinds == [
        nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.LogSoftmax
    ]  # fmt: skip
    assert net.parameter_count == 1678
    shapes = [tuple(layer.weight.shape) for layer in net.layers if hasattr(layer, "weight")]
    assert shapes == [(8, 72, 1, 1), (4, 8, 1, 1), (4, 256), (6, 4)]


def test_the_first_policy_is_uniform_and_the_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = AnchorNet(6, torch.Generator().manual_seed(5))
    torch.manual_seed(2)
    second = AnchorNet(6, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    policy = first(torch.randn(9, 72, 8, 8)).exp()
    assert torch.allclose(policy, torch.full((9, 6), 1 / 6))
