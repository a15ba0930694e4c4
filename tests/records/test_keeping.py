"""The driver of runs: which files it writes, when, and which are there after an interruption."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.keep_options import KeepOptions
from maskless.records import keeping
from maskless.records.checkpoints import load_checkpoint, resume
from maskless.records.keeping import LOCK, continues_from, kept, require_free
from maskless.records.run_file import read_run_file

SEARCH = {"search": "learned", "anchors": 3, "iterations": 2, "epochs": 5, "updates": 5}


@pytest.fixture
def start(editor, picture):
    return lambda: editor.start(editor.request(picture, caption="a red square", prompt="a house"), **SEARCH)


@pytest.fixture
def fill(editor, picture):
    return editor.start(editor.request(picture, prompt="a house", box=(10, 10, 60, 50)))


def test_checkpoints_are_written_at_epochs_and_intervals(start, tmp_path):
    epochs_done = []
    for step in kept(start(), tmp_path, keep=KeepOptions(checkpoint_interval=2)):
        epochs_done.append(load_checkpoint(tmp_path / "last.pth").progress["epochs_done"])
        record = read_run_file(tmp_path)
        assert record.state == "running" and record.step == step.step
    assert epochs_done == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert sorted(os.listdir(tmp_path)) == [
        "last.pth",
        "run.json",
        "transformer_epoch_2.pth",
        "transformer_epoch_4.pth",
    ]
    assert load_checkpoint(tmp_path / "transformer_epoch_4.pth").progress["epochs_done"] == 4
    assert read_run_file(tmp_path).state == "complete"


def test_between_epochs_last_is_written_when_it_is_old(start, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "SAVE_EVERY_SECONDS", 0.0)
    steps = kept(start(), tmp_path)
    next(steps), next(steps)
    assert load_checkpoint(tmp_path / "last.pth").progress["iteration"] == 1


def test_a_consumer_that_stops_leaves_the_last_complete_step(start, tmp_path):
    run = start()
    for step in kept(run, tmp_path):
        if step.step == 3:
            break
    assert read_run_file(tmp_path).state == "interrupted"
    path = continues_from(run, tmp_path)
    assert path == tmp_path / "last.pth" and load_checkpoint(path).progress["iteration"] == 3


def test_an_interruption_during_a_step_leaves_the_step_before(start, editor, tmp_path, monkeypatch):
    run = start()
    expected = start().result()
    steps = kept(run, tmp_path)
    next(steps), next(steps)

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(editor.models.clip, "encode_views", interrupted)
        for _step in steps:
            pass
    assert read_run_file(tmp_path).state == "interrupted"
    again = start()
    assert "after iteration 1" in resume(again, load_checkpoint(tmp_path / "last.pth"))
    replayed = [step.step for step in kept(again, tmp_path)]
    assert replayed == list(range(11)) and again.result().order == expected.order
    assert torch.equal(again.result().candidates.crops, expected.candidates.crops)


def test_the_result_is_saved_before_the_run_counts_as_complete(fill, tmp_path):
    states, steps = [], []
    for step in kept(fill, tmp_path, save=lambda _result: states.append(read_run_file(tmp_path).state)):
        steps.append(step.step)
    assert steps == [0, 1, 2, 3, 4] and states == ["running"] and read_run_file(tmp_path).state == "complete"
    assert os.listdir(tmp_path) == ["run.json"] and continues_from(fill, tmp_path) is None


def test_every_step_is_logged(start, tmp_path):
    class Log:
        def __init__(self):
            self.steps, self.shapes = [], set()

        def after(self, step, probabilities):
            self.steps.append(step.step)
            self.shapes.add(tuple(np.shape(probabilities)))

    log = Log()
    for _step in kept(start(), tmp_path, log=log):
        pass
    assert log.steps == list(range(11)) and log.shapes == {(3, 6)}


def test_a_folder_that_cannot_be_written_is_refused(start, tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(MasklessError, match="cannot write .*checkpoints: File exists"):
        next(kept(start(), tmp_path / "checkpoints"))


def test_two_runs_cannot_write_to_one_folder(fill, start, tmp_path):
    first = kept(fill, tmp_path)
    next(first)
    message = rf"another run is writing to .* \(process {os.getpid()} on .*\); wait for it, or choose another"
    with pytest.raises(MasklessError, match=message):
        next(kept(start(), tmp_path))
    with pytest.raises(MasklessError, match=message):
        require_free(tmp_path)
    first.close()
    require_free(tmp_path)
    assert LOCK not in os.listdir(tmp_path)


def test_the_lock_of_a_killed_process_is_free(fill, tmp_path):
    code = f"""
import os, sys
from filelock import FileLock
lock = FileLock({str(tmp_path / LOCK)!r})
lock.acquire()
print("locked", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "locked\n"
    with pytest.raises(MasklessError, match="another run is writing to"):
        next(kept(fill, tmp_path))
    process.kill()
    process.wait()
    require_free(tmp_path)


def test_looking_for_a_run_creates_nothing(tmp_path):
    require_free(tmp_path / "nothing")
    assert os.listdir(tmp_path) == []
