"""One row of a manifest: what it may have, and what it must have."""

import pytest

from maskless.batch.rows import checked_row
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError


def row(**values):
    return checked_row(4, "name", {"image": "a.png", "caption": "a car", "prompt": "a tent"} | values, EditConfig())


def test_fields_and_options_become_a_row():
    made = row(seed="7", fit_edges="no", lr=0.5, box="1, 2,30,40", extend=None, prompt="a 帐篷")
    assert (made.line, made.id, made.folder, made.task) == (4, "name", "name_a car", "replace")
    assert made.prompt == "a 帐篷" and made.box == (1, 2, 30, 40) and made.extend is None
    assert dict(made.options) == {"seed": 7, "fit_edges": False, "lr": 0.5}
    assert row(box=[1, 2, 30, 40]).box == (1, 2, 30, 40) and row(id=12).id == "12"


def test_an_instruction_gives_what_the_row_lacks():
    made = checked_row(1, "name", {"image": "a.png", "instruction": "remove the cat"}, EditConfig())
    assert (made.task, made.caption, made.prompt, made.folder) == ("remove", "the cat", "", "name_the cat")
    assert row(instruction="remove the cat", caption="a dog", prompt=None).caption == "a dog"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image": ""}, "must have an image"),
        ({"colour": "red"}, "'colour' is not known"),
        ({"device": "cpu"}, "'device' belongs to the command"),
        ({"output_dir": "x"}, "belongs to the command"),
        ({"caption": 3}, "caption must be a text"),
        ({"prompt": ""}, "needs a prompt"),
        ({"task": "paint"}, "task must be one of"),
        ({"task": "remove", "caption": "", "prompt": ""}, "needs a location"),
        ({"instruction": "do something nice"}, "remove A"),
        ({"seed": "many"}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be from 0"),
        ({"anchors": True}, "anchors must be a whole number"),
        ({"min_window_size": 16}, "min_window_size must be at most"),
        ({"box": "1,2,3"}, "box must be"),
        ({"box": [5, 0, 5, 9]}, "box must be"),
        ({"box": "1,2,3,4", "mask": "m.png"}, "not both"),
        ({"extend": "0.5"}, "only the task extend"),
    ],
)
def test_bad_rows_are_refused(values, words):
    with pytest.raises(MasklessError, match=words):
        row(**values)
