"""A part of the answers of `python benchmarks/reliability.py hub`."""

import pytest

from fuzz.hub_answers import attempt


@pytest.mark.parametrize("seed", range(60))
def test_any_answer_is_used_as_it_should_be_or_refused_in_one_line(tmp_path, seed):
    outcome = attempt(tmp_path / "work", seed)
    assert outcome.held, f"{outcome.answers}: {outcome.problem}"
