"""The facts about the kinds of edit, and that every other list of the kinds agrees with them."""

from maskless.data.tasks import FACTS, TASKS
from maskless.engine.tasks import REDRAWS, RUNS


def test_every_kind_of_edit_has_facts_and_a_function():
    assert tuple(FACTS) == TASKS and set(RUNS) == set(TASKS) and set(REDRAWS) < set(TASKS)
    assert all(FACTS[name].name == name and FACTS[name].title for name in TASKS)


def test_edits_that_continue_the_picture_need_no_prompt():
    without = {name for name in TASKS if not FACTS[name].needs_prompt}
    assert without == {"complete", "extend", "repair", "remove"}
