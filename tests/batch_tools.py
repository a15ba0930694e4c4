"""What the tests of batches share: a small manifest, the command in a child process that can be killed, and trees."""

import hashlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from maskless.interfaces.cli import main

QUICK = ["--search", "learned", "--steps", "1", "--anchors", "1", "--iterations", "1", "--views", "1", "--updates", "5"]
QUICK += ["--device", "cpu", "--dtype", "float32"]
PATIENCE_SECONDS = 120.0


def write_pictures(folder: Path, count: int) -> list[str]:
    """Small pictures that all differ; gives their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        noise = torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(number))
        Image.fromarray((noise * 90 + 20 * number).byte().numpy()).save(folder / name)
    return names


def write_manifest(folder: Path, count: int) -> Path:
    """rows.jsonl with so many pictures beside it."""
    rows = [
        {"image": name, "caption": "a red square", "prompt": f"a blue house {name[0]}"}
        for name in write_pictures(folder, count)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def tree(folder: str | Path) -> dict[str, str]:
    """The hash of every file of a batch's outputs but those in batch/, which has the timings."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(named.items())
        if not name.startswith("batch/")
    }


def records(folder: str | Path, table: str = "manifest") -> list[dict]:
    """The lines of batch/manifest.jsonl or another table."""
    return [json.loads(line) for line in (Path(folder) / f"batch/{table}.jsonl").read_text("utf-8").splitlines()]


class Child:
    """The command in a child process, which can be killed as a user's would be."""

    def __init__(self, arguments: Sequence[object], prepare: Callable[[], object] | None = None) -> None:
        """prepare: called in the child first, such as to let it die at a certain point."""
        self.pid = os.fork()
        if self.pid:
            return
        status = 99
        try:
            torch.set_num_threads(1)
            if prepare is not None:
                prepare()
            main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(status)

    def wait(self) -> int:
        """The exit status; minus the number of the signal that killed it."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("the child did not end")

    def signalled(self, number: int, when: Callable[[], bool]) -> tuple[int, float]:
        """Send a signal as soon as something is so; gives the exit status, and how long the end took in seconds."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not when() and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(self.pid, number)
        sent = time.monotonic()
        return self.wait(), time.monotonic() - sent


def die() -> None:
    """End this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)
