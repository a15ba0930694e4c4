"""Edits that are killed at a random moment and started again: nothing is lost, and nothing is left behind.

Each edit runs in a fork of this process, which has loaded the libraries already, and is killed by SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from quick_edit import timeless

EDIT = [
    "edit", "a.png", "--caption", "a red square", "--prompt", "a blue house", "--steps", "1", "--anchors", "2",
    "--iterations", "3", "--epochs", "3", "--views", "1", "--device", "cpu", "--dtype", "float32", "--quiet",
    "--models",
]  # fmt: skip
CHECKPOINT = Path("checkpoints/0_a red square/last.pth")
OUTPUT = Path("output/0_a red square")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one killed edit. problem: what was lost or left; empty if nothing was."""

    seconds: float
    message: str
    problem: str = ""

    @property
    def held(self) -> bool:
        return not self.problem


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The edit as it is without a kill. pictures: by name. record: result.json without times."""

    seconds: float
    pictures: dict[str, bytes]
    record: dict[str, Any]


def reference(models: Path, work: Path) -> Reference:
    """Run the edit once without a kill."""
    _picture(work)
    began = time.monotonic()
    status = _wait(_start(models, work))
    assert status == 0, f"the edit itself failed with status {status}"
    return Reference(seconds=time.monotonic() - began, pictures=_pictures(work), record=_record(work))


def attempt(models: Path, work: Path, expected: Reference, seed: int) -> Outcome:
    """Kill the edit at a moment that the seed chooses, start it again, and compare its files with the expected ones."""
    _picture(work)
    moment = random.Random(seed).uniform(0, expected.seconds * 1.1)
    process = _start(models, work)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    killed = _wait(process) < 0
    status = _wait(_start(models, work, resumed=killed and (work / CHECKPOINT).is_file()))
    return Outcome(seconds=moment, message="killed" if killed else "had ended", problem=_judged(work, status, expected))


def _judged(work: Path, status: int, expected: Reference) -> str:
    if status != 0:
        return f"the edit could not be continued: status {status}"
    left = [str(path.relative_to(work)) for path in work.rglob("*") if path.name.startswith((".tmp-", ".lock"))]
    if left:
        return f"left behind: {left}"
    if _pictures(work) != expected.pictures:
        return "the pictures differ"
    if _record(work) != expected.record:
        return "the record differs"
    state = json.loads((work / CHECKPOINT.parent / "run.json").read_text("utf-8"))["state"]
    return "" if state == "complete" else f"the run is {state}"


def _picture(work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    picture = Image.new("RGB", (72, 48), (40, 80, 120))
    picture.paste((230, 30, 20), (40, 10, 60, 30))
    picture.save(work / "a.png")


def _start(models: Path, work: Path, *, resumed: bool = False) -> int:
    """Start the edit in a fork, and return its process number."""
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        import torch

        from maskless.interfaces.cli import main

        torch.set_num_threads(1)  # the threads of the parent do not exist here
        os.chdir(work)
        main([*EDIT, str(models), *(["--load-checkpoint", str(CHECKPOINT)] if resumed else [])])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    finally:
        os._exit(status)


def _wait(process: int) -> int:
    """The exit status of a process; the number of its signal, negative, if one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _pictures(work: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted((work / OUTPUT).rglob("*.png")) if path.parent.name == "results"
    }


def _record(work: Path) -> dict[str, Any]:
    record = timeless(json.loads((work / OUTPUT / "result.json").read_text("utf-8")))
    # What a resumed run has not done again costs nothing, so its counts are lower. The versions of the libraries belong
    # to the machine, where they may be updated during a long campaign.
    return {name: value for name, value in record.items() if name not in ("cost", "versions")}
