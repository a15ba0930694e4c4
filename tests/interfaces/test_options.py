"""Flags derive from the options: one for each field, and the command gets the dataclasses that they make."""

from dataclasses import fields
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.tasks import TASKS
from maskless.interfaces.options import TaskName, with_options


@pytest.fixture
def command():
    """A command with every kind of option; call it with arguments, and it gives what it got and what was printed."""
    app, got = typer.Typer(), {}

    @app.command()
    @with_options
    def example(
        *, invoked: Any, task: TaskName = None, config: EditConfig, keep: KeepOptions, models: ModelOptions
    ) -> None:
        """What the example does."""
        got.update(invoked=invoked, task=task, config=config, keep=keep, models=models)

    def run(*arguments: str) -> tuple[dict[str, Any], str]:
        got.clear()
        outcome = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "TERM": "dumb"})
        if isinstance(outcome.exception, MasklessError):
            raise outcome.exception
        return dict(got), outcome.output

    return run


def test_without_flags_everything_is_the_default(command):
    got, _ = command()
    assert (got["config"], got["keep"], got["models"]) == (EditConfig(), KeepOptions(), ModelOptions())
    assert got["task"] is None


@pytest.mark.parametrize("kind", [EditConfig, KeepOptions, ModelOptions])
def test_every_field_is_a_flag_with_its_help_and_its_choices(command, kind):
    _, help_text = command("--help")
    plain = " ".join(help_text.replace("│", " ").split())
    for option in fields(kind):
        assert f"--{option.name.replace('_', '-')} " in plain, option.name
        assert f"─ {option.metadata['group']} ─" in help_text
        assert " ".join(option.metadata["help"].split()[:4]) in plain, option.name
        for choice in option.metadata["choices"] or ():
            assert choice in plain
    assert "What the example does." in plain and all(task in plain for task in TASKS)


def test_flags_of_every_type_reach_their_dataclass(command):
    got, _ = command(
        "--task", "add", "--iterations", "3", "--lr", "0.25", "--ranking", "paper", "--no-fit-edges", "--steps", "7",
        "--draw-box", "--image-id", "x", "--device", "cpu", "--offline", "--scheduler", "lcm",
    )  # fmt: skip
    assert got["task"] == "add"
    assert got["config"] == EditConfig(iterations=3, lr=0.25, ranking="paper", fit_edges=False, steps=7)
    assert got["keep"] == KeepOptions(draw_box=True, image_id="x")
    assert got["models"] == ModelOptions(device="cpu", offline=True, scheduler="lcm")


def test_a_switch_that_can_be_on_by_default_has_a_flag_to_turn_it_off_and_no_other_has(command):
    _, help_text = command("--help")
    switches = [option for kind in (EditConfig, KeepOptions, ModelOptions) for option in fields(kind)]
    for option in switches:
        name = option.name.replace("_", "-")
        assert (f"--no-{name}" in help_text) == (option.default is True or option.type == "bool | None")


def test_ranges_are_left_to_the_dataclass_whose_message_says_more(command):
    with pytest.raises(MasklessError, match="anchors must be from 1 to 256, got 0"):
        command("--anchors", "0")


def test_a_word_in_place_of_a_number_is_refused_by_the_flag(command):
    got, printed = command("--anchors", "many")
    assert got == {} and "--anchors" in printed and "valid int" in printed


def test_the_context_knows_the_command_as_it_was_given(command):
    got, _ = command("--anchors", "5")
    assert got["invoked"].params["anchors"] == 5 and got["invoked"].command.name == "example"
    assert {"config", "keep"}.isdisjoint(got["invoked"].params)
