"""The status of a run from folders in every condition; tests/interfaces has those with runs that are really killed."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskless.data.keep_options import KeepOptions
from maskless.data.processes import owner, process_start
from maskless.records.keeping import kept
from maskless.records.outputs import save_edit
from maskless.records.run_file import RunFile, RunRecord
from maskless.records.status import read_status


def run_file(folder: Path, **changes) -> RunFile:
    """A run.json of this process, in a picture's folder, after one of two steps."""
    record = RunRecord(
        state="running", step=1, total_steps=2, pid=os.getpid(), host=socket.gethostname(),
        process_start=process_start(os.getpid()) or "", started="2026-01-01T00:00:00+00:00",
        updated="2026-01-01T00:00:00+00:00", models={"dino": "a/folder"}, image="scene.png", caption="a car",
        prompt="a house",
    )  # fmt: skip
    return RunFile(folder / "0_a car", replace(record, **changes))


def keep(run, folders, steps: int, interrupt: bool = False):
    """Make this many steps of a run, including the first one, which analyses the picture."""
    driver = kept(run, folders["checkpoint_dir"] / "0_a red square", keep=KeepOptions(checkpoint_interval=1))
    made = [step for _, step in zip(range(steps), driver, strict=False)]
    if interrupt:
        driver.close()
    return driver, made


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    return {"output_dir": tmp_path / "output", "checkpoint_dir": tmp_path / "checkpoints"}


@pytest.fixture
def run(editor, picture):
    """A run of two epochs of two iterations, before its first step."""
    request = editor.request(picture, caption="a red square", prompt="a blue house")
    return editor.start(request, anchors=2, iterations=2, epochs=2, search="learned")


@pytest.fixture
def edited(make_result, folders):
    """A folder with a complete edit."""
    scene = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return save_edit(make_result(scene), folders["output_dir"])


def dead_process() -> tuple[int, str]:
    """Number and start of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = process_start(process.pid)
    process.communicate(b"\n")
    assert start
    return process.pid, start


def rewrite(run_file: RunFile, **changes) -> None:
    run_file.path.write_text(json.dumps(asdict(run_file.record) | changes))


class TestFolders:
    def test_missing_folders(self, folders):
        status = read_status(**folders)
        assert (status.started, status.state, status.percent) == (False, "not started", None)
        assert (status.checkpoints, status.results, status.problems) == ((), (), ())

    def test_empty_folders(self, folders):
        for folder in folders.values():
            folder.mkdir()
        assert read_status(**folders).state == "not started"

    def test_files_in_place_of_the_folders_are_reported(self, folders):
        for folder in folders.values():
            folder.write_text("a file")
        status = read_status(**folders)
        assert len(status.problems) == 2 and status.state == "unknown"

    def test_without_a_checkpoint_neither_torch_nor_a_model_is_loaded(self, tmp_path):
        script = "import sys; from maskless.records.status import read_status; print(read_status('a', 'b').state);"
        script += "print([name for name in ('torch', 'numpy', 'transformers') if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "not started\n[]\n"


class TestRuns:
    def test_a_run_from_its_start_to_its_end(self, run, folders):
        folder = folders["checkpoint_dir"] / "0_a red square"
        for step in kept(run, folder, keep=KeepOptions(checkpoint_interval=1)):
            status = read_status(**folders)
            assert (status.state, status.step, status.total_steps, status.percent) == (
                "running", step.step, 4, 25 * step.step
            )  # fmt: skip
        assert status.models == run.models.names
        assert status.run is not None and status.run.prompt == "a blue house"
        status = read_status(**folders)
        assert (status.state, status.percent, status.problems) == ("complete", 100.0, ())
        names = [entry.file.removeprefix("0_a red square/") for entry in status.checkpoints]
        assert names == ["last.pth", "transformer_epoch_1.pth", "transformer_epoch_2.pth"]
        assert [entry.step for entry in status.checkpoints] == [4, 2, 4]
        last = status.checkpoints[0]
        assert last.parts["anchor_net"] == 1678 and set(last.parts) == {"anchor_net", "projection", "dino"}
        assert last.size_bytes == (folder / "last.pth").stat().st_size
        assert json.loads(json.dumps(status.to_dict(), allow_nan=False))["percent"] == 100.0

    def test_interrupted_by_the_user(self, run, folders):
        keep(run, folders, 2, interrupt=True)
        assert read_status(**folders).state == "interrupted"

    def test_without_its_process_a_run_is_interrupted(self, folders):
        pid, start = dead_process()
        run_file(folders["checkpoint_dir"], step=17, total_steps=20, pid=pid, process_start=start)
        status = read_status(**folders)
        assert (status.state, status.step, status.percent) == ("interrupted", 17, 85.0)

    def test_another_process_with_the_same_number_is_not_the_run(self, folders):
        run_file(folders["checkpoint_dir"])
        assert read_status(**folders).state == "running"
        run_file(folders["checkpoint_dir"], process_start=dead_process()[1])
        assert read_status(**folders).state == "interrupted"

    def test_a_zombie_counts_as_interrupted(self, folders):
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        run_file(folders["checkpoint_dir"], pid=process.pid, process_start=process_start(process.pid))
        assert read_status(**folders).state == "running"
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but stays in the process table
        assert read_status(**folders).state == "interrupted"
        process.wait()

    def test_the_state_of_a_run_on_another_host_is_unknown(self, folders):
        run_file(folders["checkpoint_dir"], host=socket.gethostname() + "x")
        status = read_status(**folders)
        assert status.started and status.state == "unknown" and "from here it is not known" in status.problems[0]

    def test_of_several_runs_the_latest_is_reported(self, run, folders):
        run_file(folders["checkpoint_dir"], state="interrupted")
        keep(run, folders, 5)
        status = read_status(**folders)
        assert status.run.caption == "a red square" and status.step == 4
        assert {entry.file.split("/")[0] for entry in status.checkpoints} == {"0_a red square"}

    def test_without_a_run_file_the_checkpoints_decide(self, run, folders):
        driver, _made = keep(run, folders, 3)
        (folders["checkpoint_dir"] / "0_a red square" / "run.json").unlink()
        status = read_status(**folders)
        assert (status.state, status.step) == ("interrupted", 2)
        assert status.models == run.models.names
        for _step in driver:
            pass
        (folders["checkpoint_dir"] / "0_a red square" / "run.json").unlink()
        assert read_status(**folders).state == "complete"


class TestDamage:
    """Damage is reported, and never makes the reading fail."""

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "{}", "null", '{"pid": 1}', "\udcff", "[" * 100_000, '{"a": NaN}'], ids=range(9)
    )
    def test_a_damaged_run_file(self, folders, content):
        folders["checkpoint_dir"].mkdir()
        (folders["checkpoint_dir"] / "run.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        status = read_status(**folders)
        assert status.state == "unknown" and status.run is None
        assert len(status.problems) == 1 and "run.json" in status.problems[0]

    @pytest.mark.parametrize(
        "changes", [{"pid": -1}, {"step": 2**70}, {"state": "odd"}, {"models": {"a": 1}}, {"caption": None}]
    )
    def test_invalid_values_in_the_run_file(self, folders, changes):
        rewrite(run_file(folders["checkpoint_dir"]), **changes)
        status = read_status(**folders)
        assert status.state == "unknown" and "its content is not that of a run" in status.problems[0]

    def test_damaged_checkpoints(self, run, folders):
        driver, _made = keep(run, folders, 2)  # kept in a variable, because deleting the iterator interrupts the run
        folder = folders["checkpoint_dir"] / "0_a red square"
        whole = (folder / "last.pth").read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0xFF
        cases = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello", "flipped": bytes(flipped)}
        for name, content in cases.items():
            (folder / f"{name}.pth").write_bytes(content)
        torch.save([1, 2], folder / "list.pth")
        parts = ("projection", "dino", "run", "optimizer", "config", "progress", "models")
        odd = {"format": "maskless", "version": 2, "anchor_net": {"a": 3}} | {name: {} for name in parts}
        torch.save(odd, folder / "odd.pth")
        (folder / "folder.pth").mkdir()
        status = read_status(**folders)
        assert status.state == "running" and driver is not None  # run.json is intact
        problems = {entry.file.removeprefix("0_a red square/"): entry.problem for entry in status.checkpoints}
        assert problems.pop("last.pth") is None
        assert set(problems) == {f"{name}.pth" for name in [*cases, "list", "odd", "folder"]}
        assert all(problems.values()) and len(status.problems) == len(problems)
        assert "does not match its checksums" in problems["flipped.pth"]

    def test_no_intact_checkpoint(self, folders):
        folders["checkpoint_dir"].mkdir()
        (folders["checkpoint_dir"] / "last.pth").write_bytes(b"PK\x03\x04 and no more")
        status = read_status(**folders)
        assert (status.started, status.state, status.percent) == (True, "unknown", None)

    def test_a_checkpoint_with_any_byte_changed(self, editor, picture, folders):
        run = editor.start(editor.request(picture, prompt="x"), anchors=2, iterations=1, search="learned")
        path = folders["checkpoint_dir"] / "last.pth"
        next(kept(run, path.parent, keep=KeepOptions(slim_checkpoint=True)))
        (path.parent / "run.json").unlink()
        whole, generator = path.read_bytes(), np.random.default_rng(0)
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
            path.write_bytes(damaged[: generator.integers(len(whole))] if generator.random() < 0.3 else damaged)
            read_status(**folders)

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", '{"request": {}}', '{"request": {"image": 1, "caption": "", "prompt": ""}, "candidates": [], '
         '"order": [3]}', "\0", "[" * 100_000],
        ids=range(7),
    )  # fmt: skip
    def test_a_damaged_record(self, edited, folders, content):
        (edited.folder / "result.json").write_text(content)
        status = read_status(**folders)
        assert status.results[0].problem and "damaged" in status.results[0].problem
        assert status.started and status.state == "unknown"


class TestResults:
    def test_scores_are_listed_best_first(self, edited, folders):
        status = read_status(**folders)
        assert status.state == "complete"
        (found,) = status.results
        assert (found.folder, found.caption, found.prompt, found.problem) == ("0_trees", "trees", "a big tree", None)
        assert found.scores == tuple(edited.record["candidates"][index]["score"] for index in edited.record["order"])
        assert list(found.scores) == sorted(found.scores, reverse=True)

    def test_a_score_that_was_not_finite(self, edited, folders):
        record = json.loads((edited.folder / "result.json").read_text("utf-8"))
        record["candidates"][record["order"][0]]["score"] = None
        (edited.folder / "result.json").write_text(json.dumps(record))
        assert read_status(**folders).results[0].scores[0] is None

    def test_an_edit_without_its_record_is_not_complete(self, edited, folders):
        (edited.folder / "result.json").unlink()
        status = read_status(**folders)
        assert "no result.json" in status.results[0].problem and status.state == "unknown"

    def test_missing_pictures_are_reported(self, edited, folders):
        edited.candidates[2].unlink()
        assert "1 of its pictures are missing" in read_status(**folders).results[0].problem

    def test_other_folders_are_not_results(self, folders):
        for name in (".tmp-x", "tensorboard", "editing_results"):
            (folders["output_dir"] / name).mkdir(parents=True)
        assert read_status(**folders).results == ()


def test_what_killed_runs_left_is_removed(folders):
    dead = "-".join([*owner().split("-")[:2], "0" * 8])
    left = [Path(folders[name]) / "0_cars" / f".tmp-{dead}-01.pth" for name in ("checkpoint_dir", "output_dir")]
    left.append(Path(folders["output_dir"]) / f".tmp-{dead}-abc")
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    read_status(**folders)
    assert not any(path.exists() for path in left)
