"""The metrics against values computed by hand, and against torchmetrics where it has the same one."""

import math

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
