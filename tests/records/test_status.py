"""How a run stands, told from folders in every condition; live and killed processes are in tests/interfaces."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from maskless.records.checkpoints import CheckpointKeeper
from maskless.records.outputs import save_edit
from maskless.records.run_file import RunFile, process_start, read_run_file
from maskless.records.status import read_status

RUN = {"models": {"dino": "a/folder"}, "image": "scene.png", "caption": "a car", "prompt": "a house"}


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    return {"output_dir": tmp_path / "output", "checkpoint_dir": tmp_path / "checkpoints"}


@pytest.fixture
def run(editor, picture):
    """An edit of two epochs of two iterations, not yet iterated."""
    request = editor.request(picture, caption="a red square", prompt="a blue house")
    return editor.start(request, anchors=2, iterations=2, epochs=2, checkpoint_interval=1)


@pytest.fixture
def edited(make_result, folders):
    """A folder with a complete edit."""
    scene = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return save_edit(make_result(scene), folders["output_dir"])


def dead_process() -> tuple[int, str]:
    """Number and start of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    process.communicate(b"\n")
    assert start
    return process.pid, start


def rewrite(run_file: RunFile, **changes) -> None:
    run_file.path.write_text(json.dumps(asdict(run_file.record) | changes))


class TestFolders:
    def test_nothing_there(self, folders):
        status = read_status(**folders)
        assert (status.started, status.state, status.percent) == (False, "not started", None)
        assert (status.checkpoints, status.results, status.problems) == ((), (), ())

    def test_empty_folders(self, folders):
        for folder in folders.values():
            folder.mkdir()
        assert read_status(**folders).state == "not started"

    def test_files_in_their_place_are_told(self, folders):
        for folder in folders.values():
            folder.write_text("a file")
        status = read_status(**folders)
        assert len(status.problems) == 2 and status.state == "unknown"

    def test_it_reads_no_model_and_no_torch_without_a_checkpoint(self, tmp_path):
        script = "import sys; from maskless.records.status import read_status; print(read_status('a', 'b').state);"
        script += "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
        told = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert told.stdout == "not started\n[]\n"


class TestARun:
    def test_from_its_start_to_its_end(self, run, folders):
        keeper = CheckpointKeeper(folders["checkpoint_dir"], run)
        status = read_status(**folders)
        assert (status.state, status.iteration, status.total_iterations) == ("running", 0, 4)
        for record in run:
            keeper.after(record)
            status = read_status(**folders)
            assert (status.state, status.iteration, status.percent) == (
                "running",
                record.iteration,
                25 * record.iteration,
            )
        assert status.mode == "single process" and status.models == run.models.names
        assert status.run is not None and status.run.prompt == "a blue house"
        keeper.complete()
        status = read_status(**folders)
        assert (status.state, status.percent, status.problems) == ("complete", 100.0, ())
        assert [entry.file for entry in status.checkpoints] == [
            "last.pth", "transformer_epoch_1.pth", "transformer_epoch_2.pth"
        ]  # fmt: skip
        assert [entry.iteration for entry in status.checkpoints] == [4, 2, 4]
        last = status.checkpoints[0]
        assert last.parts["anchor_net"] == 1678 and set(last.parts) == {"anchor_net", "projection", "dino"}
        assert last.size_bytes == (folders["checkpoint_dir"] / "last.pth").stat().st_size
        assert json.loads(json.dumps(status.to_dict(), allow_nan=False))["percent"] == 100.0

    def test_stopped_by_the_user(self, run, folders):
        CheckpointKeeper(folders["checkpoint_dir"], run).interrupted()
        assert read_status(**folders).state == "interrupted"

    def test_its_process_is_gone(self, folders):
        pid, start = dead_process()
        rewrite(
            RunFile(folders["checkpoint_dir"], iteration=17, total_iterations=20, **RUN), pid=pid, process_start=start
        )
        status = read_status(**folders)
        assert (status.state, status.iteration, status.percent) == ("interrupted", 17, 85.0)

    def test_its_number_belongs_to_another_process_now(self, folders):
        run_file = RunFile(folders["checkpoint_dir"], iteration=1, total_iterations=2, **RUN)
        assert run_file.record.pid == os.getpid() and read_status(**folders).state == "running"
        rewrite(run_file, process_start=dead_process()[1])
        assert read_status(**folders).state == "interrupted"

    def test_a_killed_process_that_nobody_waited_for(self, folders):
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        start = process_start(process.pid)
        rewrite(
            RunFile(folders["checkpoint_dir"], iteration=1, total_iterations=2, **RUN),
            pid=process.pid,
            process_start=start,
        )
        assert read_status(**folders).state == "running"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table of processes
        assert read_status(**folders).state == "interrupted"
        process.wait()

    def test_of_another_host(self, folders):
        rewrite(
            RunFile(folders["checkpoint_dir"], iteration=1, total_iterations=2, **RUN), host=socket.gethostname() + "x"
        )
        status = read_status(**folders)
        assert status.started and status.state == "unknown" and "cannot be seen from here" in status.problems[0]

    def test_of_several_processes(self, folders):
        RunFile(folders["checkpoint_dir"], iteration=0, total_iterations=2, processes=4, **RUN)
        assert read_status(**folders).mode == "distributed, 4 processes"

    def test_without_its_run_file_the_checkpoints_tell(self, run, folders):
        keeper = CheckpointKeeper(folders["checkpoint_dir"], run)
        steps = iter(run)
        keeper.after(next(steps))
        keeper.after(next(steps))
        (folders["checkpoint_dir"] / "run.json").unlink()
        status = read_status(**folders)
        assert (status.state, status.iteration, status.mode) == ("interrupted", 2, None)
        assert status.models == run.models.names
        for record in steps:
            keeper.after(record)
        (folders["checkpoint_dir"] / "run.json").unlink()
        assert read_status(**folders).state == "complete"


class TestDamage:
    """It is named, and never stops the reading."""

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "{}", "null", '{"pid": 1}', "\udcff", "[" * 100_000, '{"a": NaN}'], ids=range(9)
    )
    def test_of_the_run_file(self, folders, content):
        folders["checkpoint_dir"].mkdir()
        (folders["checkpoint_dir"] / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        status = read_status(**folders)
        assert status.state == "unknown" and status.run is None
        assert len(status.problems) == 1 and "run.json" in status.problems[0]

    @pytest.mark.parametrize(
        "changes", [{"pid": -1}, {"iteration": 2**70}, {"state": "odd"}, {"models": {"a": 1}}, {"caption": None}]
    )
    def test_of_what_the_run_file_holds(self, folders, changes):
        rewrite(RunFile(folders["checkpoint_dir"], iteration=1, total_iterations=2, **RUN), **changes)
        status = read_status(**folders)
        assert status.state == "unknown" and "does not hold what a run writes" in status.problems[0]

    def test_of_a_checkpoint(self, run, folders):
        keeper = CheckpointKeeper(folders["checkpoint_dir"], run)
        whole = keeper.last.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        cases = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "flipped": bytes(flipped)}
        for name, content in cases.items():
            (keeper.last.parent / f"{name}.pth").write_bytes(content)
        torch.save([1, 2], keeper.last.parent / "list.pth")
        parts = ("projection", "dino", "run", "optimizer", "config", "progress", "models")
        odd = {"format": "maskless", "version": 1, "anchor_net": {"a": 3}} | {name: {} for name in parts}
        torch.save(odd, keeper.last.parent / "odd.pth")
        (keeper.last.parent / "folder.pth").mkdir()
        status = read_status(**folders)
        assert status.state == "running"  # run.json is whole
        problems = {entry.file: entry.problem for entry in status.checkpoints}
        assert problems.pop("last.pth") is None
        assert set(problems) == {f"{name}.pth" for name in [*cases, "list", "odd", "folder"]}
        assert all(problems.values()) and len(status.problems) == len(problems)
        assert "not what was written" in problems["flipped.pth"]

    def test_of_every_checkpoint(self, folders):
        folders["checkpoint_dir"].mkdir()
        (folders["checkpoint_dir"] / "last.pth").write_bytes(b"PK\x03\x04 and no more")
        status = read_status(**folders)
        assert (status.started, status.state, status.percent) == (True, "unknown", None)

    def test_any_byte_of_a_checkpoint(self, editor, picture, folders):
        run = editor.start(editor.request(picture, prompt="x"), anchors=2, iterations=1, slim_checkpoint=True)
        path = CheckpointKeeper(folders["checkpoint_dir"], run).last
        (path.parent / "run.json").unlink()
        whole, generator = path.read_bytes(), np.random.default_rng(0)
        for _ in range(60):
            spoilt = bytearray(whole)
            spoilt[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
            path.write_bytes(spoilt[: generator.integers(len(whole))] if generator.random() < 0.3 else spoilt)
            read_status(**folders)

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", '{"request": {}}', '{"request": {"image": 1, "caption": "", "prompt": ""}, "candidates": [], '
         '"order": [3]}', "\0", "[" * 100_000],
        ids=range(7),
    )  # fmt: skip
    def test_of_a_record(self, edited, folders, content):
        (edited.folder / "result.json").write_text(content)
        status = read_status(**folders)
        assert status.results[0].problem and "damaged" in status.results[0].problem
        assert status.started and status.state == "unknown"


class TestResults:
    def test_scores_best_first(self, edited, folders):
        status = read_status(**folders)
        assert status.state == "complete"
        (found,) = status.results
        assert (found.folder, found.caption, found.prompt, found.problem) == ("0_trees", "trees", "a big tree", None)
        assert found.scores == tuple(edited.record["candidates"][index]["score"] for index in edited.record["order"])
        assert list(found.scores) == sorted(found.scores, reverse=True)

    def test_a_score_that_is_no_number(self, edited, folders):
        record = json.loads((edited.folder / "result.json").read_text("utf-8"))
        record["candidates"][record["order"][0]]["score"] = None
        (edited.folder / "result.json").write_text(json.dumps(record))
        assert read_status(**folders).results[0].scores[0] is None

    def test_one_without_its_record_is_not_complete(self, edited, folders):
        (edited.folder / "result.json").unlink()
        status = read_status(**folders)
        assert "no result.json" in status.results[0].problem and status.state == "unknown"

    def test_one_whose_pictures_are_gone(self, edited, folders):
        edited.candidates[2].unlink()
        assert "1 of its pictures are missing" in read_status(**folders).results[0].problem

    def test_other_folders_are_none(self, folders):
        for name in (".tmp-x", "tensorboard", "editing_results"):
            (folders["output_dir"] / name).mkdir(parents=True)
        assert read_status(**folders).results == ()


def test_the_run_file_appears_whole(folders):
    run_file = RunFile(folders["checkpoint_dir"], iteration=0, total_iterations=2, **RUN)
    run_file.update(iteration=1)
    assert [path.name for path in folders["checkpoint_dir"].iterdir()] == ["run.json"]
    read = read_run_file(folders["checkpoint_dir"])
    assert read == run_file.record and read.iteration == 1


def test_two_processes_have_different_starts():
    assert process_start(os.getpid()) == process_start(os.getpid()) != dead_process()[1]
    assert process_start(dead_process()[0]) is None
