"""What the commands print of checkpoints, runs, models and figures: every fact, aligned, and safe for a terminal."""

import json
import math
from dataclasses import replace

import pytest

from maskless.interfaces.tables import json_text, print_checkpoint, print_presets, print_rows, print_status, printable
from maskless.models.presets import PRESETS
from maskless.records.checkpoints import load_checkpoint
from maskless.records.keeping import kept
from maskless.records.run_file import RunRecord
from maskless.records.status import CheckpointStatus, ResultStatus, Status

ESCAPE = "\x1b[31m"


@pytest.fixture(scope="module")
def checkpoint(editor, tmp_path_factory):
    """A real checkpoint, as of the look at a picture with an awkward negative prompt."""
    import torch

    request = editor.request(torch.full((3, 32, 32), 0.5), prompt="a house")
    run = editor.start(request, anchors=2, iterations=2, search="learned", negative_prompt="[/] [grey] :car:")
    folder = tmp_path_factory.mktemp("[x]")
    steps = kept(run, folder)
    next(steps)
    steps.close()
    return load_checkpoint(folder / "last.pth")


@pytest.fixture
def status() -> Status:
    """A run under way, with a good and a damaged checkpoint and a result of many candidates."""
    run = RunRecord(
        state="running", step=3, total_steps=12, pid=4711, host="somewhere", process_start="1",
        started="2026-01-01T00:00:00+00:00", updated="2026-01-01T00:01:00+00:00", models={}, image="scene.png",
        caption="", prompt=f"a [bold]house{ESCAPE}",
    )  # fmt: skip
    good = CheckpointStatus(
        file="0_x/last.pth", size_bytes=2_340_000, step=3, total_steps=12, parts={"anchor_net": 1678}, models={}
    )
    damaged = CheckpointStatus(file="0_x/old.pth", size_bytes=10, parts={}, models={}, problem="it is damaged")
    result = ResultStatus(folder="0_x", prompt="a house", scores=(0.51239, None, 0.3, 0.2, 0.1, 0.05))
    return Status(
        output_dir="out", checkpoint_dir="check", started=True, state="running", step=3, total_steps=12,
        models={"dino": "a/folder", "clip": "a/hub-id"}, run=run, checkpoints=(good, damaged), results=(result,),
        problems=("0_x/old.pth:\nit is damaged",),
    )  # fmt: skip


class TestCheckpoint:
    def test_as_a_table(self, checkpoint, capsys):
        print_checkpoint(checkpoint, as_json=False)
        out = capsys.readouterr().out
        plain = " ".join(out.split())
        assert "a checkpoint of Maskless, 6 box sizes" in plain
        assert "anchor_net trained 8 1,678 layers.0.weight" in plain
        assert "iteration 0, total_iterations 2" in plain and "anchors 2" in plain

    def test_paths_and_texts_are_printed_as_they_are(self, checkpoint, capsys):
        """What looks like the markup of the terminal library is none: it is neither swallowed nor an error."""
        print_checkpoint(checkpoint, as_json=False)
        plain = "".join(capsys.readouterr().out.split())
        assert str(checkpoint.path) in plain and "[x]" in plain and "negative_prompt[/][grey]:car:" in plain

    def test_a_part_that_was_left_out(self, checkpoint, capsys):
        print_checkpoint(replace(checkpoint, dino={}), as_json=False)
        assert "dino frozen 0 0 left out" in " ".join(capsys.readouterr().out.split())

    def test_as_json(self, checkpoint, capsys):
        print_checkpoint(checkpoint, as_json=True)
        record = json.loads(capsys.readouterr().out)
        assert record["path"] == str(checkpoint.path) and record["config"]["negative_prompt"] == "[/] [grey] :car:"
        part = record["parts"]["anchor_net"]
        assert part["parameters"] == sum(math.prod(shape) for shape in part["keys"].values()) == 1678


class TestStatus:
    def test_says_how_far_it_is_and_what_is_there(self, status, capsys):
        print_status(status, as_json=False)
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        for expected in (
            "State running, 3/12 steps (25 %)",
            "Models dino a/folder",
            "clip a/hub-id",
            "Checkpoints 2 in check",
            "0_x/last.pth 2.3 MB 3/12 anchor_net 1,678",
            "0_x/old.pth 0.0 MB – damaged",
            "Results 1 in out",
            "0_x a house 0.5124 – 0.3 0.2 0.1 …",
            "Problem 0_x/old.pth: it is damaged",
        ):
            assert expected in lines

    def test_texts_of_files_cannot_command_the_terminal(self, status, capsys):
        print_status(status, as_json=False)
        out = capsys.readouterr().out
        assert "\x1b" not in out and "scene.png: no caption → a [bold]house" in out

    def test_a_removal_shows_no_empty_prompt(self, status, capsys):
        removal = replace(status, run=replace(status.run, caption="a cat", prompt=""))
        print_status(removal, as_json=False)
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Edit"))
        assert line.rstrip().endswith(": a cat") and "→" not in line

    def test_of_nothing(self, status, capsys):
        nothing = replace(
            status, state="not started", step=None, total_steps=None, run=None, checkpoints=(), results=(), problems=()
        )
        print_status(nothing, as_json=False)
        out = capsys.readouterr().out
        assert "not started" in out and "none in check" in out and "none in out" in out and "%" not in out

    def test_as_json(self, status, capsys):
        print_status(status, as_json=True)
        record = json.loads(capsys.readouterr().out)
        assert record["percent"] == 25.0 and record["run"]["prompt"] == status.run.prompt
        assert [entry["problem"] for entry in record["checkpoints"]] == [None, "it is damaged"]


@pytest.mark.parametrize("text", ["[bold]x[/]", "a [b", "ünïcode 🌳", "\\[x]", ":car:"])
def test_printable_text_comes_out_of_the_terminal_as_it_went_in(text, capsys):
    from rich.console import Console

    Console(soft_wrap=True, emoji=False).print(printable(text))
    assert capsys.readouterr().out == f"{text}\n"


def test_letters_that_cannot_be_printed_become_spaces():
    assert printable("a\x1b[31mb\nc\u202ed") == "a [31mb c d"


def test_json_has_no_letter_that_a_terminal_obeys():
    value = {"caption": "a\x1b[31m \x9b2J \u202e\ud800 ünïcode 🌳", "n": [1.5, None]}
    text = json_text(value)
    assert text.isprintable() and json.loads(text) == value and "ünïcode 🌳" in text


def test_rows_with_markup_are_printed_as_they_are(capsys):
    print_rows([{"task": "[/] [bold]x \x1b[2J", "[/b]": "a", "value": 0.5}], as_json=False)
    out = capsys.readouterr().out
    assert "[/] [bold]x" in out and "[/b]" in out and "\x1b" not in out


class TestPresets:
    def test_every_preset_has_a_row(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        print_presets([(preset, preset.name == "storybook") for preset in PRESETS], as_json=False)
        rows = {line.split()[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
        for preset in PRESETS:
            row = rows[preset.name]
            assert f"{preset.name} {preset.native_px} " in row and f"{preset.memory_gb:.1f} GB" in row
            assert (" yes " in row) == (preset.name == "storybook") and ("gated" in row) == preset.gated
            assert ("edits by instruction" in row) == (preset.kind == "instruction")

    def test_as_json(self, capsys):
        print_presets([(preset, False) for preset in PRESETS], as_json=True)
        records = json.loads(capsys.readouterr().out)
        assert [record["name"] for record in records] == [preset.name for preset in PRESETS]
        assert records[0]["inpainting"] is None and not any(record["on_disk"] for record in records)


class TestRows:
    """What `maskless evaluate` prints of the rows that a suite gives."""

    NAMES = {"suite": "models", "method": "storybook", "task": "clip"}
    ROWS = [
        NAMES | {"metric": "recall", "value": 0.91234, "low": 0.88, "high": 0.93, "n": 200},
        NAMES | {"metric": "psnr", "value": 33.1, "low": None, "high": None, "n": 64},
    ]

    def test_as_a_table(self, capsys):
        print_rows(self.ROWS, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split() == ["suite", "method", "task", "metric", "value", "low", "high", "n"]
        assert lines[1].split() == ["models", "storybook", "clip", "recall", "0.9123", "0.88", "0.93", "200"]
        assert lines[2].split() == ["models", "storybook", "clip", "psnr", "33.1", "–", "–", "64"]

    def test_as_json(self, capsys):
        print_rows(self.ROWS, as_json=True)
        assert json.loads(capsys.readouterr().out) == self.ROWS

    def test_none(self, capsys):
        print_rows([], as_json=True)
        assert json.loads(capsys.readouterr().out) == []

    def test_numbers_that_json_has_no_word_for(self, capsys):
        print_rows([{"metric": "psnr", "value": math.inf, "low": math.nan, "n": 3}], as_json=True)
        assert json.loads(capsys.readouterr().out) == [{"metric": "psnr", "value": None, "low": None, "n": 3}]
