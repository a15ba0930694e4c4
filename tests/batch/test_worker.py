"""One row: what it publishes, and which of its failures another try may mend."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from batch_tools import write_pictures
from maskless.batch.keys import Keys, row_name
from maskless.batch.rows import checked_row
from maskless.batch.worker import Stopped, Worker, WorkerSettings
from maskless.data.config import EditConfig
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions

CONFIG = EditConfig(search="learned", steps=1, anchors=1, iterations=2, views=1)


@pytest.fixture(scope="module")
def loaded(tiny_models) -> Worker:
    models = ModelOptions(models=str(tiny_models), device="cpu", dtype="float32")
    settings = WorkerSettings(output="output", models=models, config=CONFIG, keep=KeepOptions(), keys=Keys(base="b"))
    return Worker(settings)


@pytest.fixture
def worker(loaded, tmp_path, monkeypatch) -> Worker:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path, 1)
    return loaded


def row(**values):
    return checked_row(1, "0", {"image": "0.png", "caption": "a car", "prompt": "a tent"} | values, CONFIG)


def test_a_published_row_has_its_files_and_no_timings(worker):
    steps = []
    outcome = worker.attempt(worker.prepare(row(seed=5)), on_step=steps.append)
    assert not outcome.failed and [step.step for step in steps] == [0, 1, 2]
    record = json.loads(Path("output/0_a car/result.json").read_text("utf-8"))
    assert record["cost"]["seconds"] == {} and record["cost"]["peak_memory_mb"] == 0
    assert record["request"]["seed"] == 5 and {step["seconds"] for step in record["history"]} == {0.0}
    assert outcome.record["cost"]["seconds"] and outcome.record["box_xyxy"]
    report = Path("output/0_a car/report.html").read_text("utf-8")
    assert "--seed 5" in report and "maskless edit 0.png" in report and " s, at most" not in report
    with Image.open(f"output/batch/sheets/{row_name('0')}.jpg") as sheet:
        assert sheet.width > 2 * sheet.height


def test_every_kind_of_edit_is_a_row(worker):
    mask = Image.new("L", (64, 48))
    mask.paste(255, (8, 8, 30, 30))
    mask.save("mask.png")
    for number, values in enumerate([{"box": "4,4,40,40"}, {"mask": "mask.png", "caption": ""}, {"task": "style"},
                                     {"instruction": "extend the picture to the left", "prompt": None}]):  # fmt: skip
        outcome = worker.attempt(worker.prepare(row(id=str(number), **values)))
        assert not outcome.failed, outcome.record["error"]


def test_a_row_that_is_stopped_continues_from_its_checkpoint(worker):
    whole = worker.attempt(worker.prepare(row()))
    first = Path("output/0_a car/result.json").read_bytes()
    shutil.rmtree("output")
    with pytest.raises(Stopped):
        worker.attempt(worker.prepare(row()), stopping=lambda: True)
    (folder,) = Path("checkpoints").iterdir()
    assert (folder / "last.pth").is_file()
    steps = []
    again = worker.attempt(worker.prepare(row()), on_step=steps.append)
    assert again.record["key"] == whole.record["key"] and not folder.exists()
    assert Path("output/0_a car/result.json").read_bytes() == first


def test_a_damaged_checkpoint_is_not_used(worker):
    with pytest.raises(Stopped):
        worker.attempt(worker.prepare(row()), stopping=lambda: True)
    (folder,) = Path("checkpoints").iterdir()
    (folder / "last.pth").write_bytes(b"PK\x03\x04")
    assert not worker.attempt(worker.prepare(row())).failed


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "MemoryError"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("CUDA out of memory"), "CUDA out"),
    ],
)
def test_which_errors_another_try_may_mend(worker, monkeypatch, error, words):
    def edited(*_arguments):
        raise error

    monkeypatch.setattr(worker, "_edited", edited)
    outcome = worker.attempt(worker.prepare(row()))
    assert outcome.failed and outcome.may_retry and words in outcome.record["error"]
    Path("0.png").write_bytes(b"no picture")
    outcome = worker.attempt(worker.prepare(row()))
    assert outcome.failed and not outcome.may_retry and "0.png" in outcome.record["error"]


def test_a_given_anchor_net_starts_every_search(worker, monkeypatch):
    with pytest.raises(Stopped):
        worker.attempt(worker.prepare(row(prompt="a house")), stopping=lambda: True)
    (folder,) = Path("checkpoints").iterdir()
    shutil.move(folder / "last.pth", "shared.pth")
    monkeypatch.setattr(worker, "settings", replace(worker.settings, anchor_net="shared.pth"))
    from maskless.records.checkpoints import load_checkpoint

    monkeypatch.setattr(worker, "_shared", load_checkpoint("shared.pth"))
    began = []
    from maskless.batch import worker as module

    monkeypatch.setattr(module, "start_from", lambda run, checkpoint: began.append(checkpoint.path))
    assert not worker.attempt(worker.prepare(row())).failed
    assert not worker.attempt(worker.prepare(row(id="1", box="4,4,40,40"))).failed, "a fill learns nothing"
    assert began == [Path("shared.pth")]
