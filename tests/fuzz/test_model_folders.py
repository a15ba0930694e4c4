"""A few of the folders of `python benchmarks/reliability.py folders`."""

import pytest

from fuzz.model_folders import attempt


@pytest.mark.parametrize("seed", range(24))
def test_a_folder_of_others_works_or_is_refused_in_one_line(tiny_models, tmp_path, unchecked, seed):
    outcome = attempt(tiny_models, tmp_path, seed)
    assert outcome.held, f"{outcome.mutation}: {outcome.problem}"
