"""The Ray engine with two workers: killed workers, a killed driver, poisoned rows and signals change nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from batch_tools import PATIENCE_SECONDS, QUICK, records, tree, write_pictures
from maskless.batch import engine, ray_engine

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow
LONG = {"iterations": 3, "epochs": 100}
"""A row that takes long, and whose checkpoint is written after every third iteration."""


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    context = ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Three rows, the second of which takes long, and one whose picture is damaged."""
    monkeypatch.chdir(tmp_path)
    names = write_pictures(tmp_path, 4)
    Path("3.png").write_bytes(Path("3.png").read_bytes()[:99])
    rows = [{"image": name, "caption": "a red square", "prompt": "a house"} for name in names]
    rows[1] |= LONG
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


@pytest.fixture
def command(tiny_models) -> list[str]:
    return ["batch", "rows.jsonl", "--models", str(tiny_models), *QUICK]


def in_mid_picture(output: str, row: str = "1") -> int | None:
    """The process that edits a row of which a few steps are made; None if there is none yet."""
    for run in Path("checkpoints").glob(f"{row}_*/run.json"):
        if json.loads(run.read_text("utf-8"))["step"] >= 7:
            state = json.loads(Path(output, "batch/state/0-of-1.json").read_text("utf-8"))
            return next(
                (int(name.split()[1]) for name, worker in state["workers"].items() if worker["row"] == row), None
            )
    return None


def when_in_mid_picture(output: str, act: Callable[[int], object]) -> threading.Thread:
    """Act once, in a thread, on the process that is in mid picture."""

    def watch() -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                process = in_mid_picture(output)
            except (OSError, ValueError):
                process = None
            if process is not None:
                act(process)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_killed_worker_and_a_poisoned_row(cluster, place, maskless, command):
    local = [*command, "--output-dir", "local"]
    assert maskless(*local)[0] == 3
    watching = when_in_mid_picture("remote", lambda process: os.kill(process, signal.SIGKILL))
    remote = [*command, "--output-dir", "remote", "--engine", "ray", "--workers", "2"]
    status, _out, err = maskless(*remote)
    watching.join()
    assert status == 3 and "is replaced: its worker ended" in err
    assert tree("remote") == tree("local"), "neither the engine nor the number of workers changes anything"
    lines = {line["id"]: line for line in records("remote")}
    assert set(lines) == {"0", "1", "2"} and [line["id"] for line in records("remote", "failed")] == ["3"]
    assert lines["1"]["tries"] == 2 and lines["1"]["continued_at"] >= 3, "another worker went on from its checkpoint"
    assert len({line["worker"] for line in lines.values()}) >= 2


def test_sigterm_and_a_killed_driver(cluster, place, maskless, command):
    assert maskless(*command, "--output-dir", "local", "--quiet")[0] == 3
    remote = [*command, "--output-dir", "remote", "--engine", "ray", "--workers", "2", "--resume"]
    sent = []
    watching = when_in_mid_picture("remote", lambda _process: (sent.append(time.monotonic()), os.kill(os.getpid(), 15)))
    status, _out, err = maskless(*remote)
    took = time.monotonic() - sent[0]
    watching.join()
    assert status == 143 and "--resume" in err and took < 10
    (folder,) = Path("checkpoints").glob("1_*")
    assert json.loads((folder / "run.json").read_text("utf-8"))["state"] == "interrupted"
    shutil.rmtree(folder)  # so that the driver is killed while the row is edited from its beginning

    environment = os.environ | {"RAY_ADDRESS": cluster}
    with subprocess.Popen([sys.executable, "-m", "maskless", *remote], env=environment) as driver:
        when_in_mid_picture("remote", lambda _process: driver.kill()).join()
    assert driver.returncode == -signal.SIGKILL
    assert maskless(*remote)[0] == 3
    assert tree("remote") == tree("local")
    assert {line["id"]: line["continued_at"] for line in records("remote")}["1"] >= 3


def test_a_worker_over_the_time_limit_is_killed_and_replaced(cluster, place, maskless, command, monkeypatch):
    monkeypatch.setattr(ray_engine, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(engine, "TRIES", 1)
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text("utf-8").splitlines()][:2]
    rows[1] |= {"iterations": 1, "epochs": 1, "updates": 100_000}  # a single step that takes minutes
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    status, _out, err = maskless(*command, "--engine", "ray", "--row-timeout", "6")
    assert status == 3 and "is replaced: it took longer than 6 seconds" in err
    assert [line["error"] for line in records("output", "failed")] == ["it took longer than 6 seconds"]
    assert [line["id"] for line in records("output")] == ["0"]


def test_workers_that_cannot_load_the_models_stop_the_batch(cluster, place, maskless, command, tiny_models):
    copy = Path(shutil.copytree(tiny_models, "models"))
    (copy / "clip" / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    status, out, err = maskless("batch", "rows.jsonl", "--models", copy, *QUICK, "--engine", "ray")
    assert (status, out) == (2, "") and err.splitlines()[-1].startswith("maskless: ") and "clip" in err.lower()
    assert not list(Path("output/batch").glob("failed/*"))
