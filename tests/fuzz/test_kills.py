"""A few of the kills of `python benchmarks/reliability.py kills`."""

import pytest

from fuzz.kills import attempt, reference


@pytest.fixture(scope="module")
def expected(tiny_models, tmp_path_factory):
    return reference(tiny_models, tmp_path_factory.mktemp("reference") / "edit")


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_edit_ends_as_one_that_was_not_and_leaves_nothing(tiny_models, tmp_path, expected, seed):
    outcome = attempt(tiny_models, tmp_path / "edit", expected, seed)
    assert outcome.held, f"killed after {outcome.seconds:.2f} s: {outcome.problem}"
