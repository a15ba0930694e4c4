"""The table of searches: each name of the option is one of them, and all have one signature."""

import inspect

import pytest

from maskless.data import config
from maskless.data.config import EditConfig
from maskless.method.searches import SEARCHES, Steps
from planted import K, M, planted_search


def test_the_table_has_the_names_of_the_option():
    assert tuple(SEARCHES) == config.SEARCHES
    assert [name for name, search in SEARCHES.items() if search.learns] == ["learned", "paper"]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_has_the_same_signature_and_makes_as_many_steps_as_it_says(name):
    search = SEARCHES[name]
    assert list(inspect.signature(search.steps).parameters) == list(inspect.signature(Steps.__call__).parameters)[1:]
    state, regions, evaluate = planted_search(best=3)
    options = EditConfig(search=name, iterations=7, updates=5)
    steps = list(search.steps(state, regions, evaluate, options))
    assert len(steps) == search.total_steps(options) == steps[-1].step == steps[-1].total_steps
    cells = search.candidates(state, regions, options)
    assert cells and set(cells) <= set(range(K * M))
    if search.learns:
        assert [cell // M for cell in cells] == list(range(K)), "one for each anchor"
