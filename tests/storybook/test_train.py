"""The training command: its arguments and errors, what it bundles, and that every bundled model can be trained on."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from line_task import line_task
from maskless.data.errors import MasklessError
from maskless.storybook import train
from maskless.storybook.train import ASSETS, SHARE_OF_ALL
from maskless.storybook.training import autoencoder
from maskless.storybook.training.loop import Run, Task


def test_the_shares_of_the_parts_make_up_the_whole_time() -> None:
    assert sum(SHARE_OF_ALL.values()) == pytest.approx(1)


@pytest.mark.parametrize("name", [*SHARE_OF_ALL, "refine", "decoder"])
def test_every_part_is_a_task(name: str) -> None:
    part = importlib.import_module(f"maskless.storybook.training.{name}")
    assert isinstance(part, Task) and part.BATCH > 0 and 0 < part.LEARNING_RATE < 0.1


def test_the_help_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        train.parse(["--help"])
    output = capsys.readouterr().out
    assert left.value.code == 0 and "None" not in output
    assert all(f"    {name}" in output for name in (*SHARE_OF_ALL, "refine", "decoder", "all", "bundle"))


def test_arguments_have_defaults_and_unknown_parts_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = train.parse(["clip"])
    assert (arguments.what, arguments.minutes, arguments.output) == ("clip", 9.0, Path("training"))
    with pytest.raises(SystemExit):
        train.parse(["poetry"])
    assert "invalid choice: 'poetry'" in capsys.readouterr().err


def test_bundling_replaces_parts_of_the_same_name_only(tmp_path: Path) -> None:
    models, assets = tmp_path / "models", tmp_path / "assets"
    for folder, name in ((models / "clip", "new"), (assets / "clip", "old"), (assets / "dino", "other")):
        folder.mkdir(parents=True)
        (folder / name).write_text("weights")
    train.bundle(models, assets)
    assert sorted(p.relative_to(assets).as_posix() for p in assets.rglob("*") if p.is_file()) == [
        "clip/new",
        "dino/other",
    ]


def test_a_file_that_is_too_large_is_not_bundled(tmp_path: Path) -> None:
    (tmp_path / "models" / "clip").mkdir(parents=True)
    with (tmp_path / "models" / "clip" / "model.safetensors").open("wb") as file:
        file.truncate(train.LARGEST_FILE + 1)
    with pytest.raises(MasklessError, match="model.safetensors: 15.0 MiB, at most 15 MiB a file"):
        train.bundle(tmp_path / "models", tmp_path / "assets")
    assert not (tmp_path / "assets").exists()


def test_a_part_is_trained_for_its_time_with_its_records_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "maskless.storybook.training.line", line_task())
    arguments = train.parse(["all", "--output", str(tmp_path), "--device", "cpu", "--workers", "0"])
    train.run_one("line", 0.5 / 60, arguments)
    lines = [json.loads(line) for line in (tmp_path / "line" / "log.jsonl").read_text("utf-8").splitlines()]
    assert 0.5 <= lines[-1]["elapsed"] < 10 and lines[0]["progress"] >= 1
    assert f"line step {lines[-1]['step']}: {{'weight':" in capsys.readouterr().out
    assert (tmp_path / "models" / "line" / "line.pt").is_file()


@pytest.mark.parametrize("name", list(SHARE_OF_ALL))
def test_what_is_bundled_can_be_trained_on(tmp_path: Path, name: str) -> None:
    """Restored and exported again, every weight is what it was, and so is the number of every token."""
    task = importlib.import_module(f"maskless.storybook.training.{name}")
    run = Run(name=name, output=tmp_path, minutes=1, device=torch.device("cpu"), workers=0)
    shutil.copytree(ASSETS, run.models)
    model = task.build(run)
    task.restore(model, run.models)
    with torch.no_grad():
        task.export(model, run.models)
    for file in sorted((ASSETS / task.EXPORT).glob("*.safetensors")):
        old, new = load_file(file), load_file(run.models / task.EXPORT / file.name)
        assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    for file in (ASSETS / task.EXPORT).glob("tokenizer.json"):
        old, new = (json.loads(each.read_text()) for each in (file, run.models / task.EXPORT / file.name))
        assert old["model"] == new["model"]
    for file in run.models.rglob("config.json"):
        assert str(tmp_path) not in file.read_text("utf-8"), "an export names no folder of this machine"


@pytest.mark.slow
def test_the_command_is_killed_and_resumed(tmp_path: Path) -> None:
    """The real autoencoder, killed without warning, continues from its last state and exports a loadable model."""
    command = [
        sys.executable,
        "-m",
        "maskless.storybook.train",
        "autoencoder",
        "--output",
        str(tmp_path),
        "--threads",
        "1",
    ]
    command += ["--workers", "0", "--save-every", "0.03"]
    running = subprocess.Popen([*command, "--minutes", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "autoencoder" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    step = torch.load(state, weights_only=True)["step"]
    done = subprocess.run([*command, "--minutes", "0.15", "--resume"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert torch.load(state, weights_only=True)["step"] > step > 0
    assert autoencoder.load(tmp_path / "models").config.latent_channels == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inpainting", "--minutes", "1", "--device", "cpu"], "train the autoencoder and clip first"),
        (["clip", "--minutes", "-1"], "--minutes must be more than 0, got -1"),
        (["clip", "--device", "abacus"], "--device must be auto, cpu or cuda"),
    ],
)
def test_bad_input_is_reported_in_one_line_with_exit_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        assert train.main([*arguments, "--output", str(tmp_path), "--workers", "0"]) == 2
    finally:
        torch.set_flush_denormal(False)
    output = capsys.readouterr().err
    assert output.startswith("error: ") and message in output and output.count("\n") == 1
