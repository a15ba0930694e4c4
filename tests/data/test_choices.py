"""The values that options can have: each is one of its own option, and the two sets of defaults name the same ones."""

from dataclasses import fields

from maskless.data import choices
from maskless.data.config import EditConfig
from maskless.data.model_options import ModelOptions


def test_every_list_of_choices_belongs_to_an_option():
    lists = {value for name, value in vars(choices).items() if name.isupper() and isinstance(value, tuple)}
    used = {option.metadata["choices"] for kind in (EditConfig, ModelOptions) for option in fields(kind)}
    assert {choices.SEARCHES, choices.RANKINGS, choices.SCHEDULERS} <= lists & used


def test_the_paper_changes_the_options_that_this_package_adds_and_no_others():
    assert set(choices.OURS) == set(choices.AS_IN_THE_PAPER)
    assert all(choices.OURS[name] != value for name, value in choices.AS_IN_THE_PAPER.items())
    assert all(getattr(EditConfig(), name) is None for name in choices.OURS)
