"""run.json, beside the checkpoints: what a run is and how far it has come, for whoever asks while it goes on.

A run that was killed cannot say so. It is told by its process: run.json still says "running", the process is gone.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from maskless.data.errors import MasklessError
from maskless.data.files import written_whole

RUN_FILE = "run.json"
RUNNING, INTERRUPTED, COMPLETE = "running", "interrupted", "complete"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What run.json holds.

    state: running, interrupted or complete, as the run itself last said. processes: that share the work; 1 for an edit
    of one picture. process_start: see the function of that name. started, updated: ISO 8601 in UTC.
    models: folder or hub id by part.
    """

    state: str
    iteration: int
    total_iterations: int
    pid: int
    host: str
    process_start: str
    processes: int
    started: str
    updated: str
    models: Mapping[str, str]
    image: str | None
    caption: str
    prompt: str


class RunFile:
    """Keeps a folder's run.json true while a run of this process goes on."""

    def __init__(
        self,
        folder: str | Path,
        *,
        iteration: int,
        total_iterations: int,
        models: Mapping[str, str],
        image: str | None,
        caption: str,
        prompt: str,
        processes: int = 1,
    ) -> None:
        """Writes the first run.json.

        Raises:
            MasklessError: the folder cannot be written to.
        """
        self.path = Path(folder) / RUN_FILE
        self.record = RunRecord(
            state=RUNNING, iteration=iteration, total_iterations=total_iterations, pid=os.getpid(),
            host=socket.gethostname(), process_start=process_start(os.getpid()) or "", processes=processes,
            started=_now(), updated=_now(), models=dict(models), image=image, caption=caption, prompt=prompt,
        )  # fmt: skip
        self._write()

    def update(self, *, iteration: int | None = None, state: str = RUNNING) -> None:
        """Write how far the run has come."""
        done = self.record.iteration if iteration is None else iteration
        self.record = replace(self.record, iteration=done, state=state, updated=_now())
        self._write()

    def _write(self) -> None:
        # Not through write_bytes: waiting for the disk after every iteration would cost more than a power cut could.
        with written_whole(self.path) as temporary:
            temporary.write_text(json.dumps(asdict(self.record), indent=2) + "\n", "utf-8")


def read_run_file(folder: str | Path) -> RunRecord | None:
    """The record in a folder's run.json; None where there is none.

    Raises:
        MasklessError: the file is damaged or not what this package writes; it names the file.
    """
    path = Path(folder) / RUN_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise MasklessError(f"cannot read {path}: it is damaged ({_first_line(error)})") from error
    if not _is_record(content):
        raise MasklessError(f"cannot read {path}: it does not hold what a run writes")
    return RunRecord(**content)


def _is_record(content: object) -> bool:
    """Whether a value read from JSON is a dict with every field of a RunRecord, each of its type and in range."""
    if not isinstance(content, dict) or content.keys() != {field.name for field in fields(RunRecord)}:
        return False
    models, image = content["models"], content["image"]
    if not isinstance(models, dict) or content["state"] not in (RUNNING, INTERRUPTED, COMPLETE):
        return False
    whole = [content[name] for name in ("iteration", "total_iterations", "pid", "processes")]
    texts = [content[name] for name in ("host", "process_start", "started", "updated", "caption", "prompt")]
    texts += [*models.values(), "" if image is None else image]
    return all(type(number) is int and 0 <= number < 2**63 for number in whole) and all(
        isinstance(text, str) for text in texts
    )


def still_lives(record: RunRecord) -> bool | None:
    """Whether the process that wrote the record lives; None where that cannot be told from here (another host)."""
    if record.host != socket.gethostname() or not record.process_start:
        return None
    return process_start(record.pid) == record.process_start


def process_start(pid: int) -> str | None:
    """A text that differs between two processes that had the same number; None where there is no such process, or no
    way to tell. A process that is dead but not yet waited for (a zombie) is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return None if after_name[0] in "ZX" else f"{boot} {after_name[19]}"  # field 22 of proc(5), in clock ticks
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.split(maxsplit=1)
    except (OSError, subprocess.SubprocessError):
        return None
    return told[1].strip() if len(told) == 2 and not told[0].startswith("Z") else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
