"""What a client asks for, read from forms, from JSON and from tools."""

import shlex

import pytest

from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.interfaces.cli import app
from maskless.interfaces.jobs.spec import EditSpec, loaded


def test_values_may_be_text_and_empty_ones_are_left_out():
    spec = EditSpec.read(
        {"caption": "a car", "prompt": "a tent", "seed": "7", "iterations": "3", "delta": "0.5", "fit_edges": "false",
         "box": "[1, 2, 40, 50]", "mask": None, "negative_prompt": ""}
    )  # fmt: skip
    assert spec.options == {"iterations": 3, "delta": 0.5, "fit_edges": False}
    assert (spec.seed, spec.box, spec.task) == (7, (1, 2, 40, 50), "replace")
    assert EditSpec.from_dict(spec.to_dict()) == spec


def test_an_instruction_gives_what_is_not_given():
    spec = EditSpec.read({"instruction": "remove the cat", "seed": 3})
    assert (spec.task, spec.caption, spec.prompt) == ("remove", "the cat", "")
    spec = EditSpec.read({"instruction": "extend the picture to the left", "task": None})
    assert (spec.task, spec.extend) == ("extend", "left=0.25")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"models": "x"}, "unknown field 'models'; the fields are"),
        ({"task": "fly"}, "task must be one of"),
        ({"prompt": "a\0b"}, "prompt must be plain text"),
        ({"prompt": "\ud800"}, "prompt must be plain text"),
        ({"prompt": ["a"]}, "prompt must be a string"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be from 0"),
        ({"steps": 1.5}, "steps must be a whole number"),
        ({"steps": 1000}, "steps must be at most 200 on this server"),
        ({"fit_edges": "maybe"}, "fit_edges must be true or false"),
        ({"box": "1,2,3"}, "box must be x0, y0, x1, y1"),
        ({"box": {"x": 1}}, "box must be x0, y0, x1, y1"),
        ({"box": [1, 2, 3, 1e300]}, "box must"),
        ({"ranking": "best"}, "ranking must be one of"),
        ({"instruction": "x" * 2001}, "instruction must have at most 2000 letters"),
    ],
)
def test_what_is_refused(unchecked, given, words):
    with pytest.raises(MasklessError, match=words):
        EditSpec.read({"prompt": "a tent", **given})


def test_the_command_is_one_that_the_command_line_reads():
    import typer

    spec = EditSpec.read(
        {
            "prompt": 'a "tent"; rm -rf',
            "caption": "-c",
            "box": [0, 1, 40, 50],
            "fit_edges": False,
            "anchors": 2,
            "seed": 3,
        }
    )
    words = shlex.split(spec.command())
    assert words[:3] == ["maskless", "edit", "image.png"]
    context = typer.main.get_command(app).commands["edit"].make_context("edit", words[2:])
    told = context.params
    assert told["prompt"] == 'a "tent"; rm -rf' and told["caption"] == "-c" and told["box"] == "0,1,40,50"
    assert (told["fit_edges"], told["anchors"], told["seed"], told["task"]) == (False, 2, 3, "replace")


def test_no_folder_of_the_server_is_in_a_request_or_a_message(tmp_path, noisy_png):
    (tmp_path / "source.png").write_bytes(noisy_png)
    (tmp_path / "mask.png").write_bytes(noisy_png[:-300])
    request = EditSpec(prompt="a tent").request(loaded(tmp_path / "source.png"))
    assert str(request.source.path) == "source.png"
    assert (request.source.pixels == load_image(tmp_path / "source.png").pixels).all()
    with pytest.raises(MasklessError) as refused:
        EditSpec(prompt="a tent").request(loaded(tmp_path / "source.png"), tmp_path / "mask.png")
    assert str(tmp_path) not in str(refused.value) and "the mask" in str(refused.value)
