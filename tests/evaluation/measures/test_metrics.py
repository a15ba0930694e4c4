"""The metrics against values computed by hand, and against torchmetrics where it has the same one."""

import math

import numpy as np
import pytest
import torch

from maskless.evaluation.measures import metrics

SIDE = 32


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two pictures that differ a little everywhere and much in a box, and the mask of the box."""
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(3, SIDE, SIDE, generator=generator)
    after = (before + 0.05 * torch.randn(3, SIDE, SIDE, generator=generator)).clamp(0, 1)
    after[:, 8:20, 4:28] = 1 - before[:, 8:20, 4:28]
    return before, after, metrics.mask_of_box((4, 8, 28, 20), (SIDE, SIDE))


def test_the_background_is_scored_over_the_whole_frame():
    """A quarter of the frame differs by 0.2; half of the frame is edited and counts as perfect."""
    before = torch.zeros(3, SIDE, SIDE)
    after = before.clone()
    after[:, :8] = 0.2
    edited = metrics.mask_of_box((0, 16, SIDE, SIDE), (SIDE, SIDE))
    assert metrics.background_mse(before, after, edited) == pytest.approx(0.04 / 4)
    assert metrics.background_psnr(before, after, edited) == pytest.approx(20.0)
    assert metrics.mse_outside(before, after, edited) == pytest.approx(0.04 / 2)
    assert metrics.psnr_outside(before, after, edited) == pytest.approx(10 * math.log10(50))
    assert metrics.exact_outside(before, after, edited) == pytest.approx(0.5)


def test_the_edited_part_does_not_count(pictures):
    before, after, edited = pictures
    inside = after.clone()
    inside[:, ~edited] = before[:, ~edited]
    assert metrics.background_mse(before, inside, edited) == 0
    assert metrics.background_psnr(before, inside, edited) == math.inf
    assert metrics.background_ssim(before, inside, edited) == pytest.approx(1)
    assert metrics.exact_outside(before, inside, edited) == 1


def test_without_background_there_is_no_number(pictures):
    before, after, edited = pictures
    everything = torch.ones_like(edited)
    for metric in (metrics.background_mse, metrics.background_psnr, metrics.background_ssim, metrics.psnr_outside):
        assert math.isnan(metric(before, after, everything))


def test_they_are_the_same_as_torchmetrics(pictures):
    torchmetrics = pytest.importorskip("torchmetrics.functional.image")
    before, after, edited = pictures
    masked = (before * ~edited)[None], (after * ~edited)[None]
    psnr = torchmetrics.peak_signal_noise_ratio(masked[1], masked[0], data_range=1.0)
    ssim = torchmetrics.structural_similarity_index_measure(masked[1], masked[0], data_range=1.0)
    assert metrics.background_psnr(before, after, edited) == pytest.approx(float(psnr), abs=1e-4)
    assert metrics.background_ssim(before, after, edited) == pytest.approx(float(ssim), abs=1e-4)


def test_no_difference_counts_as_100_db():
    assert metrics.capped_psnr(math.inf) == metrics.PERFECT_DB == 100
    assert metrics.capped_psnr(31.5) == 31.5 and math.isnan(metrics.capped_psnr(math.nan))


def test_pixels_become_values_from_0_to_1():
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[1, 2] = (255, 51, 0)
    values = metrics.unit(pixels)
    assert values.shape == (3, 2, 3) and values[:, 1, 2].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_a_box_belongs_where_its_centre_lies():
    assert metrics.centre_in((0, 0, 10, 10), (5, 5, 9, 9)), "the centre is (5, 5), and boxes are half-open"
    assert not metrics.centre_in((0, 0, 10, 10), (0, 0, 5, 9))
    assert not metrics.centre_in((20, 0, 30, 10), (0, 0, 25, 5))


def test_overlap_of_known_masks():
    size = (10, 10)
    a, b = metrics.mask_of_box((0, 0, 4, 5), size), metrics.mask_of_box((2, 0, 6, 5), size)
    assert metrics.mask_iou(a, b) == pytest.approx(10 / 30)
    assert metrics.precision_recall(a, b) == (0.5, 0.5)
    nothing = torch.zeros(size, dtype=torch.bool)
    assert metrics.mask_iou(nothing, nothing) == 0 and metrics.precision_recall(nothing, a) == (0, 0)


def test_structure_distance_sees_directions_not_lengths():
    keys = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert metrics.structure_distance(keys, 5 * keys) == pytest.approx(0, abs=1e-12)
    turned = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    assert metrics.structure_distance(keys, turned) == pytest.approx(0.5)


def test_where_the_variance_comes_from():
    regions, noises = torch.arange(12.0), torch.tensor([0.0, 6.0])
    assert metrics.variance_shares(regions.expand(2, 12)) == pytest.approx((1, 0, 0), abs=1e-6)
    assert metrics.variance_shares(noises[:, None].expand(2, 12)) == pytest.approx((0, 1, 0), abs=1e-6)
    # By hand: columns have variance 13, rows 18, and nothing is left: 13/31 and 18/31.
    both = regions[None] + noises[:, None]
    assert metrics.variance_shares(both) == pytest.approx((13 / 31, 18 / 31, 0), abs=1e-6)
    checkered = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    assert metrics.variance_shares(checkered) == pytest.approx((0, 0, 1))
    with pytest.raises(ValueError, match="two rows and two columns"):
        metrics.variance_shares(torch.zeros(1, 4))


def test_planted_components_are_found_again():
    draw = torch.Generator().manual_seed(3)
    column, row = 2 * torch.randn(1, 400, generator=draw), torch.randn(300, 1, generator=draw)
    values = column + row + 1.5 * torch.randn(300, 400, generator=draw)
    total = 4 + 1 + 2.25
    assert metrics.variance_shares(values) == pytest.approx((4 / total, 1 / total, 2.25 / total), abs=0.05)


def test_spearman_by_hand():
    a = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert metrics.spearman(a, a.exp()) == pytest.approx(1) and metrics.spearman(a, -a) == pytest.approx(-1)
    # 1 - 6 * (1 + 1 + 0 + 1 + 1) / (5 * 24)
    assert metrics.spearman(a, torch.tensor([2.0, 1.0, 3.0, 5.0, 4.0])) == pytest.approx(0.8)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert metrics.spearman(torch.tensor([0.0, 7.0, 7.0, 9.0]), a[:4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert math.isnan(metrics.spearman(a, torch.ones(5)))


def test_spearman_is_the_same_as_others():
    regression = pytest.importorskip("torchmetrics.functional.regression")
    a, b = torch.randn(2, 40, generator=torch.Generator().manual_seed(1))
    assert metrics.spearman(a, b) == pytest.approx(float(regression.spearman_corrcoef(a, b)), abs=1e-5)
