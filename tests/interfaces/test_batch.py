"""maskless batch at the command line: bad rows are listed, bad options refused, before a model is loaded."""

import json
from pathlib import Path

import pytest

from batch_tools import QUICK, records, write_manifest
from maskless.batch.worker import Worker


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_manifest(tmp_path, 2)


def test_every_bad_row_is_listed_before_a_model_is_loaded(maskless, monkeypatch):
    with Path("rows.jsonl").open("a") as file:
        file.write('{"image": "none.png", "prompt": "x"}\n{"image": "0.png", "prompt": "x", "steps": 0}\n')
    monkeypatch.setattr(Worker, "__init__", pytest.fail)
    status, out, err = maskless("batch", "rows.jsonl")
    assert (status, out) == (2, "") and err.splitlines() == [
        "rows.jsonl:3: its image must be a file, got none.png",
        "rows.jsonl:4: steps must be from 1 to 1000, got 0",
        "maskless: 2 of 4 rows of rows.jsonl are not valid; mend them, or leave them out with --skip-invalid",
    ]
    assert not Path("output").exists()


def test_the_good_rows_go_on_without_the_bad_ones(maskless, tiny_models):
    with Path("rows.jsonl").open("a") as file:
        file.write("{\n")
    options = ["--models", tiny_models, *QUICK, "--skip_invalid", "--output_dir", "out", "--draw_box", "--json"]
    status, out, err = maskless("batch", "rows.jsonl", *options)
    assert status == 0 and json.loads(out) == {"done": 2, "failed": 0, "left": 0, "output": "out"}
    assert "rows.jsonl:3: it must be a JSON object" in err and "2 rows, 1 left out" in err
    assert list(Path("out/0_a red square/boxes").iterdir()), "underscores are accepted in place of dashes"
    assert json.loads(Path("out/batch/summary.json").read_text("utf-8"))["invalid"][0]["line"] == 3


def test_a_folder_with_one_caption_and_prompt(maskless, tiny_models):
    texts = ["--caption", "a red square", "--prompt", "a tent", "--models", tiny_models, *QUICK, "--quiet"]
    status, out, err = maskless("batch", ".", *texts)
    assert (status, out, err) == (0, "", "") and [line["prompt"] for line in records("output")] == ["a tent"] * 2


def test_what_is_refused(maskless):
    def refused(*arguments: object) -> str:
        status, out, err = maskless("batch", *arguments)
        assert (status, out) == (2, "") and err.count("\n") == 1 and "Traceback" not in err
        assert not Path("output").exists()
        return err

    assert "no such file: none.jsonl" in refused("none.jsonl")
    assert "have the same problem: the task replace needs a prompt" in refused(".")
    assert "shard must be i/n" in refused("rows.jsonl", "--shard", "2/2")
    assert "workers and address belong to --engine ray" in refused("rows.jsonl", "--workers", "2")
    assert "engine must be one of local, ray" in refused("rows.jsonl", "--engine", "slurm")
    assert "no such checkpoint" in refused("rows.jsonl", "--load-checkpoint", "none.pth")
    assert "is a file, not a folder" in refused("rows.jsonl", "--output-dir", "0.png")


def test_the_help_groups_its_options(maskless):
    status, out, _err = maskless("batch", "--help")
    assert status == 0 and "--skip-invalid" in out and "--anchors" in out and "--draw-box" in out
