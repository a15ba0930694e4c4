"""The exhaustive search: every region once, and the best size of each anchor."""

import pytest

from maskless.data.config import EditConfig
from maskless.method.exhaustive import best_of_each_anchor, exhaustive_search
from planted import K, M, planted_search


def test_every_region_is_inpainted_once_and_the_best_of_each_anchor_is_a_candidate():
    state, regions, evaluate = planted_search(best=4)
    asked = []
    steps = list(exhaustive_search(state, regions, lambda cells: asked.extend(cells) or evaluate(cells), EditConfig()))
    assert sorted(asked) == list(range(K * M))
    assert [step.step for step in steps] == list(range(1, M + 1)) and {step.total_steps for step in steps} == {M}
    assert steps[-1].inpaintings == K * M
    assert best_of_each_anchor(state) == [anchor * M + 4 for anchor in range(K)]


def test_it_goes_on_where_it_was_stopped():
    state, regions, evaluate = planted_search(best=1)
    first = next(exhaustive_search(state, regions, evaluate, EditConfig()))
    assert first.step == 1 and first.loss == pytest.approx(float(evaluate(list(range(0, K * M, M))).mean()))
    assert [step.step for step in exhaustive_search(state, regions, evaluate, EditConfig())] == list(range(2, M + 1))
