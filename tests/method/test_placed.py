"""The placed search: which regions it considers, and how many it inpaints."""

import pytest
import torch

from maskless.data.config import EditConfig
from maskless.data.result import DrawnStep
from maskless.method.placed import CONSIDERED, WIDENED, best_different, place, placed_search
from planted import K, M, planted_search


@pytest.fixture
def planted():
    """A search with a prior that falls from the first region to the last."""
    state, regions, evaluate = planted_search(best=2)
    state.prior = -torch.arange(K * M, dtype=torch.float32).reshape(K, M)
    return state, regions, evaluate


def counted(evaluate):
    asked = []
    return asked, lambda cells: asked.append(cells) or evaluate(cells)


def test_regions_that_overlap_count_as_one_place():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5], [20, 20, 30, 30]])
    score = torch.tensor([1.0, 3.0, 2.0, 0.0])
    assert best_different(score, boxes, 4) == [1, 2, 3], "the first box is nearly the second one"
    assert best_different(score, boxes, 1) == [1]
    assert best_different(score, boxes[:2].repeat(2, 1), 4) == [1]


def test_the_best_regions_are_inpainted_in_one_batch(planted):
    state, regions, evaluate = planted
    asked, counting = counted(evaluate)
    steps = list(placed_search(state, regions, counting, EditConfig(budget=3)))
    assert asked == [[0, 1, 2]] and len(steps) == 1 and isinstance(steps[0], DrawnStep)
    assert (steps[0].step, steps[0].total_steps, steps[0].inpaintings) == (1, 1, 3)
    assert steps[0].loss == pytest.approx(float(evaluate([0, 1, 2]).mean()))
    assert list(placed_search(state, regions, counting, EditConfig(budget=3))) == [] and len(asked) == 1


def test_one_is_enough_where_it_is_clearly_the_right_one(planted):
    planted[0].clear = True
    placement, cells = place(planted[0], 3)
    assert cells == [0] and placement.drawn == 1 and "so one was enough" in placement.reason
    assert torch.equal(placement.boxes_xyxy, planted[0].boxes_xyxy[:CONSIDERED])
    assert placement.score[0] > placement.score[1]


@pytest.mark.parametrize(("budget", "reason"), [(1, "the budget is one region"), (3, "so 3 were compared")])
def test_the_budget_limits_how_many_are_compared(planted, budget, reason):
    placement, cells = place(planted[0], budget)
    assert cells == list(range(budget)) and placement.drawn == budget and reason in placement.reason
    assert len(placement.score) == CONSIDERED


def test_more_regions_are_compared_where_nothing_looks_like_the_caption(planted):
    state, _, _ = planted
    state.found = False
    placement, cells = place(state, 1)
    assert cells == list(range(WIDENED)) and placement.drawn == WIDENED and "looks like the caption" in placement.reason
    assert len(place(state, 20)[1]) == 20


def test_the_reason_says_that_there_are_no_more_regions(planted):
    state, _, _ = planted
    state.boxes_xyxy = state.boxes_xyxy[:1].repeat(K * M, 1)
    assert place(state, 3)[0].reason == "there is only one region" and place(state, 3)[1] == [0]
