"""The edges of a region are moved one at a time to where a score is best, and stay inside the picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskless.data.boxes import box_iou
from maskless.method.box_fitting import MIN_SIDE_SHARE, PROMISING, Box, Score, extend_fitted_box, fit_edges

SIZE_YX = (96, 128)


def _iou_with(truth: Box) -> tuple[list[int], Score]:
    """The number of boxes of each call, and a score: the IoU with the true box."""
    box_counts: list[int] = []

    def score(boxes: Tensor) -> Tensor:
        box_counts.append(len(boxes))
        return box_iou(boxes, truth)

    return box_counts, score


@pytest.mark.parametrize("truth", [(40, 30, 100, 55), (50, 10, 70, 80), (0, 0, 40, 40)])
def test_a_square_is_fitted_to_the_objects_proportions(truth: Box) -> None:
    square = (36, 24, 76, 64) if truth[0] else (5, 6, 45, 46)
    box_counts, score = _iou_with(truth)
    square_score = float(score(torch.tensor([square])))
    cheap_counts, cheap_score = _iou_with(truth)
    fitted, fitted_score = fit_edges(square, square_score, score, SIZE_YX, cheap_score=cheap_score)
    before, after = box_iou(torch.tensor([square, fitted]), truth).tolist()
    assert fitted_score == pytest.approx(after) and after > before == pytest.approx(square_score)
    assert fitted[2] - fitted[0] != fitted[3] - fitted[1] or truth == (0, 0, 40, 40)
    assert sum(box_counts) <= 1 + 4 * PROMISING, "the square, and the promising moves of at most four rounds"
    assert sum(cheap_counts) <= 4 * 8, "at most four rounds of eight moves"


def test_only_promising_moves_are_scored() -> None:
    _counts, score = _iou_with((40, 24, 76, 64))
    _counts, misleading = _iou_with((36, 24, 90, 64))
    fitted, fitted_score = fit_edges((36, 24, 76, 64), 0.9, score, SIZE_YX, cheap_score=misleading)
    assert (fitted, fitted_score) == ((36, 24, 76, 64), 0.9), "the best move was not among the promising ones"


def test_a_box_that_fits_is_not_moved_and_gets_the_margin() -> None:
    _box_counts, score = _iou_with((30, 20, 70, 50))
    margin = round(96 / 64)
    assert fit_edges((30, 20, 70, 50), 1.0, score, SIZE_YX, cheap_score=score) == ((30, 20, 70, 50), 1.0)
    assert extend_fitted_box((30, 20, 70, 50), None, SIZE_YX) == (30 - margin, 20 - margin, 70 + margin, 50 + margin)


def test_the_box_is_extended_to_a_near_outline_and_not_to_a_distant_one() -> None:
    margin = round(96 / 64)
    extended = extend_fitted_box((30, 20, 70, 50), (26, 22, 90, 55), SIZE_YX)
    expected = (26 - margin, 20 - margin, 70 + margin, 55 + margin)
    assert extended == expected, "the left and the bottom edge are near; the right one is too far away"


@pytest.mark.parametrize("preferred", ["large", "small"])
def test_it_stays_in_the_picture_and_in_a_square_of_the_shorter_side(preferred: str) -> None:
    def score(boxes: Tensor) -> Tensor:
        x0, y0, x1, y1 = boxes.to(torch.float32).unbind(1)
        return (x1 - x0) * (y1 - y0) * (1 if preferred == "large" else -1)

    whole = (20, 4, 110, 94)
    fitted, _ = fit_edges(whole, float(score(torch.tensor([whole]))), score, SIZE_YX, cheap_score=score)
    x0, y0, x1, y1 = extend_fitted_box(fitted, (fitted[0] - 3, 0, 128, 96), SIZE_YX)
    assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 96
    assert MIN_SIDE_SHARE * 96 <= min(x1 - x0, y1 - y0) and max(x1 - x0, y1 - y0) <= 96
