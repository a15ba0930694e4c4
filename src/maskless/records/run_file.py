"""run.json, next to the checkpoints: a description of a run and its progress, which others can read while it runs.

A run that was killed cannot record this: its run.json still says "running". Readers notice it because the process does
not exist any more.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from maskless.data.errors import MasklessError, first_line
from maskless.data.files import written_whole
from maskless.data.processes import process_start
from maskless.records.folders import RUN_FILE, identity

if TYPE_CHECKING:
    from maskless.engine.run import Run

RUNNING, INTERRUPTED, COMPLETE = "running", "interrupted", "complete"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of run.json.

    state: running, interrupted or complete, as the run itself last wrote it. step, total_steps: its progress.
    pid, host, process_start: they identify the process, see `maskless.data.processes`.
    started, updated: ISO 8601 in UTC. models: folder or hub id of each model. image: path of the picture, or None.
    identity: see `folders.identity`; empty in files of earlier versions.
    """

    state: str
    step: int
    total_steps: int
    pid: int
    host: str
    process_start: str
    started: str
    updated: str
    models: Mapping[str, str]
    image: str | None
    caption: str
    prompt: str
    identity: str = ""


def record_of(run: Run) -> RunRecord:
    """The record of a run that starts or continues now, in this process."""
    request, now = run.request, _now()
    path = request.source.path
    return RunRecord(
        state=RUNNING,
        step=run.history[-1].step if run.history else 0,
        total_steps=run.total_steps,
        pid=os.getpid(),
        host=socket.gethostname(),
        process_start=process_start(os.getpid()) or "",
        started=now,
        updated=now,
        models=dict(run.models.names),
        image=None if path is None else str(path),
        caption=request.caption,
        prompt=request.prompt,
        identity=identity(request, run.config, run.models.options),
    )


class RunFile:
    """Keeps a folder's run.json up to date during a run of this process."""

    def __init__(self, folder: str | Path, record: RunRecord) -> None:
        """Write the first run.json.

        Raises:
            MasklessError: the folder cannot be written to.
        """
        self.path, self.record = Path(folder) / RUN_FILE, record
        self._write()

    def update(self, *, step: int | None = None, state: str = RUNNING) -> None:
        """Write the progress and the state of the run. step: number of complete steps; None leaves it unchanged."""
        step = self.record.step if step is None else step
        self.record = replace(self.record, step=step, state=state, updated=_now())
        self._write()

    def _write(self) -> None:
        # Without flushing to the disk as write_bytes does: this is written after every step, and has little to lose.
        with written_whole(self.path) as temporary:
            temporary.write_text(json.dumps(asdict(self.record), indent=2) + "\n", "utf-8")


def read_run_file(folder: str | Path) -> RunRecord | None:
    """The record in a folder's run.json; None if there is no such file.

    Raises:
        MasklessError: the file is damaged or was not written by this package. The message names the file.
    """
    path = Path(folder) / RUN_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise MasklessError(f"cannot read {path}: it is damaged ({first_line(error)})") from error
    if not _is_record(content):
        raise MasklessError(f"cannot read {path}: its content is not that of a run")
    return RunRecord(**content)


def _is_record(content: object) -> bool:
    """Whether a value read from JSON is a dict with every field of a RunRecord, each of its type and in range."""
    names = {field.name for field in fields(RunRecord)}
    if not isinstance(content, dict) or content.keys() | {"identity"} != names:
        return False
    models, image = content["models"], content["image"]
    if not isinstance(models, dict) or content["state"] not in (RUNNING, INTERRUPTED, COMPLETE):
        return False
    integers = [content[name] for name in ("step", "total_steps", "pid")]
    texts = [content[name] for name in ("host", "process_start", "started", "updated", "caption", "prompt")]
    texts += [content.get("identity", ""), *models.values(), "" if image is None else image]
    return all(type(number) is int and 0 <= number < 2**63 for number in integers) and all(
        isinstance(text, str) for text in texts
    )


def is_alive(record: RunRecord) -> bool | None:
    """Whether the process that wrote the record still exists; None if this cannot be determined (on another host)."""
    if record.host != socket.gethostname() or not record.process_start:
        return None
    return process_start(record.pid) == record.process_start


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
