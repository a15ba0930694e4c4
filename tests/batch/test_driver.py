"""Exactly once: whatever ends a batch, the same command with --resume completes the tree of an undisturbed one."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from PIL import Image

from batch_tools import Child, die, records, tree
from maskless.batch.journal import Journal
from maskless.batch.stores import FolderStore
from maskless.batch.worker import Worker


def resumed(maskless, command) -> tuple[int, str]:
    status, _out, err = maskless(*command, "--resume")
    return status, err


def test_the_tree_of_edit_with_the_tables_beside_it(place, maskless, command, undisturbed):
    status, out, err = maskless(*command)
    assert (status, out) == (0, "Sheet    output/index.html\n") and "Rows     3/3" in err
    assert tree("output") == undisturbed
    folders = {name.split("/")[0] for name in undisturbed if "/" in name}
    assert folders == {f"{number}_a red square" for number in range(3)}
    assert {"0_a red square/result.json", "0_a red square/report.html", "index.html"} <= set(undisturbed)
    first = records("output")[0]
    assert (first["id"], first["status"], first["error"], first["tries"]) == ("0", "done", None, 1)
    assert first["best"] == "0_a red square/results/final_output.png" and (Path("output") / first["best"]).is_file()
    assert first["seconds"] > 0 and first["cost"]["inpaintings"] > 0 and len(first["key"]) == 32
    summary = json.loads(Path("output/batch/summary.json").read_text("utf-8"))
    assert (summary["rows"], summary["done"], summary["failed"], summary["left"]) == (3, 3, 0, 0)
    assert not list(Path("checkpoints").iterdir()), "a published row needs no checkpoint"


def test_each_row_is_what_edit_makes_of_it(place, maskless, command, undisturbed):
    maskless("edit", "1.png", "-c", "a red square", "-p", "a blue house 1", "--image-id", "1", *command[2:])
    single = tree("output")
    pictures = [name for name in single if name.endswith(".png") and not name.endswith("overview.png")]
    assert len(pictures) == 3 and all(single[name] == undisturbed[name] for name in pictures)


def test_what_is_finished_is_not_done_again(place, maskless, command, monkeypatch):
    maskless(*command)
    before = tree("output")
    status, out, err = maskless(*command)
    assert (status, out) == (2, "") and "--resume" in err
    monkeypatch.setattr(Worker, "__init__", pytest.fail)
    assert resumed(maskless, command)[0] == 0
    os.utime("0.png")  # another time, the same bytes
    assert resumed(maskless, command)[0] == 0
    assert tree("output") == before


def test_a_changed_row_is_done_again_and_the_others_are_not(place, maskless, command):
    maskless(*command)
    before, times = tree("output"), {line["id"]: line["finished"] for line in records("output")}
    Image.open("2.png").rotate(180).save("1.png")
    status, err = resumed(maskless, command)
    assert status == 0 and "2 rows were edited before" in err
    after = tree("output")
    changed = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert changed == {"1_a red square"}
    assert {line["id"]: line["finished"] for line in records("output") if line["id"] != "1"}.items() <= times.items()
    assert len(list(Path("output/batch/done").iterdir())) == 3, "the marker of the earlier content is removed"


@pytest.mark.parametrize("moment", ["in mid picture", "between picture and marker", "between marker and manifest"])
def test_a_killed_driver_loses_nothing_and_repeats_nothing(place, maskless, command, undisturbed, moment):
    def prepare() -> None:
        if moment == "in mid picture":
            Worker._published = lambda *_arguments: die()
        elif moment == "between picture and marker":
            Journal.finish = lambda *_arguments: die()
        else:
            Journal.append = lambda *_arguments: die()

    assert Child(command, prepare).wait() == -signal.SIGKILL
    done = len(list(Path("output/batch/done").iterdir())) if Path("output/batch/done").is_dir() else 0
    assert done == (moment == "between marker and manifest")
    assert len(list(Path("checkpoints").iterdir())) == 1 - done, "the row that was cut off has a checkpoint"
    assert resumed(maskless, command)[0] == 0
    assert tree("output") == undisturbed
    assert [line["id"] for line in records("output")] == ["0", "1", "2"]
    assert not list(Path("output/batch/staging/0-of-1").glob("*"))


def test_a_row_that_kills_its_process_again_and_again_fails(place, maskless, command):
    def prepare() -> None:
        attempt = Worker.attempt
        Worker.attempt = lambda self, row, **more: die() if row.row.id == "1" else attempt(self, row, **more)

    for _ in range(3):
        assert Child([*command, "--resume"], prepare).wait() == -signal.SIGKILL
    assert resumed(maskless, command)[0] == 3
    (failure,) = records("output", "failed")
    assert failure["id"] == "1" and failure["tries"] == 3 and "process ended" in failure["error"]
    assert [line["id"] for line in records("output")] == ["0", "2"]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_checkpoint_from_which_the_row_continues(
    place, maskless, command, undisturbed, number, expected, monkeypatch
):
    def prepare() -> None:
        import time

        from maskless.interfaces.batch_console import BatchConsole

        signal.signal(signal.SIGINT, signal.default_int_handler)
        BatchConsole.step = lambda self, row, step: (Path("reached").touch(), time.sleep(60)) if step.step else None

    status, seconds = Child(command, prepare).signalled(number, Path("reached").exists)
    assert status == expected and seconds < 10
    (folder,) = Path("checkpoints").iterdir()
    assert json.loads((folder / "run.json").read_text("utf-8"))["state"] == "interrupted"
    assert not Path("output/batch/done").exists()
    began_at = []
    from maskless.interfaces.batch_console import BatchConsole

    monkeypatch.setattr(BatchConsole, "step", lambda self, row, step: began_at.append((row.id, step.step)))
    assert resumed(maskless, command)[0] == 0
    assert tree("output") == undisturbed and not list(Path("checkpoints").iterdir())


def test_bad_pictures_fail_and_the_rest_goes_on(place, maskless, command, undisturbed):
    Path("1.png").write_bytes(Path("1.png").read_bytes()[:200])
    Image.new("RGB", (9000, 40)).save("3.png")
    with Path("rows.jsonl").open("a") as file:
        file.write('{"image": "3.png", "prompt": "a tent"}\n')
    status, _out, err = maskless(*command)
    assert status == 3 and err.count("Failed   line") == 2
    assert {line["id"]: line["tries"] for line in records("output", "failed")} == {"1": 1, "3": 1}
    assert "8000" in records("output", "failed")[1]["error"]
    intact = {name: value for name, value in undisturbed.items() if name[0] in "02"}
    assert {name: value for name, value in tree("output").items() if name[0] in "02"} == intact
    assert resumed(maskless, command)[0] == 3, "a failed row stays failed until --retry-failed"
    assert "Failed" not in resumed(maskless, command)[1]
    status, _out, err = maskless(*command, "--retry-failed")
    assert status == 3 and err.count("Failed   line") == 2
    shutil.copy("0.png", "1.png")
    status, _out, err = maskless(*command, "--resume")
    assert status == 3 and [line["id"] for line in records("output", "failed")] == ["3"]


def test_a_row_without_memory_is_tried_three_times(place, maskless, command, monkeypatch):
    attempts = []
    start = Worker._edited

    def edited(self, prepared, *rest):
        attempts.append(prepared.row.id)
        if prepared.row.id == "1":
            raise RuntimeError("CUDA out of memory")
        return start(self, prepared, *rest)

    monkeypatch.setattr(Worker, "_edited", edited)
    status, _out, err = maskless(*command)
    assert status == 3 and sorted(attempts) == ["0", "1", "1", "1", "2"]
    (failure,) = records("output", "failed")
    assert failure["tries"] == 3 and "out of memory" in failure["error"] and "out of memory" in err


def test_a_full_disk_stops_the_batch_and_it_resumes(place, maskless, command, undisturbed, monkeypatch):
    publish = FolderStore.publish

    def full(self, staged, folder):
        if folder.startswith("1"):
            raise OSError(errno.ENOSPC, "No space left on device")
        publish(self, staged, folder)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "publish", full)
        status, out, err = maskless(*command)
    assert (status, out) == (1, "") and "No space left on device" in err and "--resume" in err
    assert "Traceback" not in err and len(list(Path("output/batch/done").iterdir())) == 1
    assert not Path("output/batch/failed").exists(), "the disk's fault is not the row's"
    assert resumed(maskless, command)[0] == 0 and tree("output") == undisturbed


def test_a_row_has_a_time_limit(place, maskless, command):
    status, _out, _err = maskless(*command, "--row-timeout", "0.001")
    assert status == 3
    assert {line["error"] for line in records("output", "failed")} == {"it took longer than 0.001 seconds"}


def test_shards_side_by_side_give_the_tree_of_one_run(place, maskless, command, undisturbed):
    first = Child([*command, "--shard", "0/2"])
    second = Child([*command, "--shard", "1/2"])
    assert (first.wait(), second.wait()) == (0, 0)
    assert tree("output") == undisturbed
    assert [line["id"] for line in records("output")] == ["0", "1", "2"], "the last shard has written all"
    assert maskless(*command, "--shard", "1/2")[0] == 2


def test_the_second_of_two_runs_is_refused(place, maskless, command):
    def prepare() -> None:
        import time

        from maskless.interfaces.batch_console import BatchConsole

        BatchConsole.step = lambda self, row, step: (Path("reached").touch(), time.sleep(60))

    child = Child(command, prepare)
    while not Path("reached").exists():
        os.sched_yield()
    status, out, err = maskless(*command, "--resume")
    assert (status, out) == (2, "") and "in use by another run" in err
    assert maskless(*command, "--resume", "--shard", "0/2")[0] == 2
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert maskless(*command, "--resume", "--quiet")[0] == 0, "a dead process keeps no lock"
