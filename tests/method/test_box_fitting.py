"""The edges of a region: they go where a score is best, by single moves, and stay in the picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskless.data.boxes import box_iou
from maskless.method.box_fitting import LEAST_SHARE, Box, Score, fit_edges, with_room

SIZE_YX = (96, 128)


def _iou_with(truth: Box) -> tuple[list[int], Score]:
    asked: list[int] = []

    def score(boxes: Tensor) -> Tensor:
        asked.append(len(boxes))
        return box_iou(boxes, truth)

    return asked, score


@pytest.mark.parametrize("truth", [(40, 30, 100, 55), (50, 10, 70, 80), (0, 0, 40, 40)])
def test_a_square_takes_on_the_things_proportions(truth: Box) -> None:
    square = (36, 24, 76, 64) if truth[0] else (5, 6, 45, 46)
    asked, score = _iou_with(truth)
    has = float(score(torch.tensor([square])))
    fitted, found = fit_edges(square, has, score, SIZE_YX)
    before, after = box_iou(torch.tensor([square, fitted]), truth).tolist()
    assert found == pytest.approx(after) and after > before == pytest.approx(has)
    assert fitted[2] - fitted[0] != fitted[3] - fitted[1] or truth == (0, 0, 40, 40)
    assert sum(asked) <= 1 + 4 * 8, "at most four rounds of eight moves, and the square's own"


def test_a_box_that_fits_stays_and_is_given_the_margin() -> None:
    _asked, score = _iou_with((30, 20, 70, 50))
    margin = round(96 / 64)
    assert fit_edges((30, 20, 70, 50), 1.0, score, SIZE_YX) == ((30, 20, 70, 50), 1.0)
    assert with_room((30, 20, 70, 50), None, SIZE_YX) == (30 - margin, 20 - margin, 70 + margin, 50 + margin)


def test_an_outline_just_outside_is_taken_over_and_one_far_off_is_not() -> None:
    margin = round(96 / 64)
    roomy = with_room((30, 20, 70, 50), (26, 22, 90, 55), SIZE_YX)
    assert roomy == (26 - margin, 20 - margin, 70 + margin, 55 + margin), "left and bottom; the right is too far off"


@pytest.mark.parametrize("wanted", ["large", "small"])
def test_it_stays_in_the_picture_and_in_a_square_of_the_shorter_side(wanted: str) -> None:
    def score(boxes: Tensor) -> Tensor:
        x0, y0, x1, y1 = boxes.to(torch.float32).unbind(1)
        return (x1 - x0) * (y1 - y0) * (1 if wanted == "large" else -1)

    fitted, _ = fit_edges((20, 4, 110, 94), float(score(torch.tensor([(20, 4, 110, 94)]))), score, SIZE_YX)
    x0, y0, x1, y1 = with_room(fitted, (fitted[0] - 3, 0, 128, 96), SIZE_YX)
    assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 96
    assert LEAST_SHARE * 96 <= min(x1 - x0, y1 - y0) and max(x1 - x0, y1 - y0) <= 96
