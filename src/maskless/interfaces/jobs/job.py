"""One edit of a client: its state, its progress, and its folder, from which it can be read back after a restart."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from maskless.data.files import written_whole
from maskless.data.result import StepRecord
from maskless.interfaces.jobs.outcome import Outcome
from maskless.interfaces.jobs.spec import EditSpec

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
FINISHED = (DONE, FAILED, CANCELLED)
MAX_PREVIEWS = 12
JOB_FILE = "job.json"


class Job:
    """An edit from its request to its end.

    Only the worker changes a job; everybody may read it at any time. `version` grows with every change, so whoever
    reports the progress compares it with the last version reported.

    image, mask: the client's files in the job's folder. error: one line for the client, of a failed job.
    previews: PNG files of the best candidates so far, each a new one, the latest last. drawing: a PNG file of what is
    being drawn at this moment; None between drawings, and without a preview autoencoder. drawings: how many of these
    there were. drawn_share: how much of the present step is drawn, 0 to 1. attempts: how often the worker
    has begun this job; a job that ended the whole process twice is not tried again.
    """

    def __init__(self, name: str, folder: Path, spec: EditSpec, *, suffix: str, mask_suffix: str | None) -> None:
        """name: the job's identifier, which cannot be guessed. folder: of this job alone. suffix, mask_suffix: of the
        client's files."""
        self.name, self.folder, self.spec = name, folder, spec
        self.image = folder / f"source{suffix}"
        self.mask = None if mask_suffix is None else folder / f"mask{mask_suffix}"
        self.state, self.error = QUEUED, ""
        self.created, self.began, self.finished = time.time(), 0.0, 0.0
        self.attempts = self.version = 0
        self.steps: list[StepRecord] = []
        self.previews: list[bytes] = []
        self.drawing: bytes | None = None
        self.drawings, self.drawn_share = 0, 0.0
        self.outcome: Outcome | None = None
        self.cancel_requested = threading.Event()

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in FINISHED

    def change(self, state: str, error: str = "") -> None:
        """Set the state, and write it to the folder."""
        self.state, self.error = state, error
        if state == RUNNING:
            self.began = time.time()
        if state in FINISHED:
            self.finished = time.time()
        self.save()
        self.version += 1

    def add_step(self, step: StepRecord, preview: bytes | None) -> None:
        """Report a complete step. preview: a PNG file of the best candidate so far."""
        self.steps.append(step)
        self.drawing, self.drawn_share = None, 0.0
        if preview is not None and (not self.previews or self.previews[-1] != preview):
            self.previews = [*self.previews, preview][-MAX_PREVIEWS:]
        self.version += 1

    def show(self, drawing: bytes, share: float) -> None:
        """Report what is being drawn. drawing: a PNG file. share: how much of the present step is drawn, 0 to 1."""
        self.drawing, self.drawn_share = drawing, share
        self.drawings += 1
        self.version += 1

    @property
    def seconds_left(self) -> float | None:
        """An estimate of the remaining seconds of a running job; None before its first drawn step."""
        if not self.steps or self.state != RUNNING:
            return None
        done, total = self.steps[-1].step, self.steps[-1].total_steps
        drawn = [step.seconds for step in self.steps if step.step]
        return sum(drawn) / len(drawn) * (total - done) if drawn else None

    def progress(self) -> dict[str, Any]:
        """How far the job is. step and total_steps are 0 until the picture has been analysed."""
        last = self.steps[-1] if self.steps else None
        left = self.seconds_left
        return {
            "step": last.step if last else 0,
            "total_steps": last.total_steps if last else 0,
            "inpaintings": last.inpaintings if last else 0,
            "previews": len(self.previews),
            "drawings": self.drawings,
            "seconds_left": None if left is None else round(left, 1),
        }

    def save(self) -> None:
        """Write what is needed to read the job back."""
        content = {
            "name": self.name,
            "spec": self.spec.to_dict(),
            "suffix": self.image.suffix,
            "mask_suffix": None if self.mask is None else self.mask.suffix,
            "state": self.state,
            "error": self.error,
            "created": self.created,
            "finished": self.finished,
            "attempts": self.attempts,
            "outcome": None if self.outcome is None else _relative(self.outcome, self.folder),
        }
        with written_whole(self.folder / JOB_FILE) as temporary:
            temporary.write_text(json.dumps(content), "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """The job of a folder that an earlier server left; None if the folder is not a complete one."""
        try:
            content = json.loads((folder / JOB_FILE).read_text("utf-8"))
            job = cls(
                content["name"],
                folder,
                EditSpec.from_dict(content["spec"]),
                suffix=content["suffix"],
                mask_suffix=content["mask_suffix"],
            )
            job.state, job.error = content["state"], content["error"]
            job.created, job.finished, job.attempts = content["created"], content["finished"], content["attempts"]
            if content["outcome"] is not None:
                job.outcome = _absolute(content["outcome"], folder)
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return job


def _relative(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """The outcome as JSON, with paths relative to the job's folder."""

    def plain(value: Any) -> Any:
        if isinstance(value, Path):
            return value.relative_to(folder).as_posix()
        if isinstance(value, tuple):
            return [plain(each) for each in value]
        return {name: plain(each) for name, each in value.items()} if isinstance(value, dict) else value

    return {name: plain(value) for name, value in asdict(outcome).items()}


def _absolute(content: dict[str, Any], folder: Path) -> Outcome:
    """The inverse of `_relative`."""
    return Outcome(
        facts=content["facts"],
        pictures=tuple(folder / name for name in content["pictures"]),
        masks=tuple(folder / name for name in content["masks"]),
        maps={name: folder / path for name, path in content["maps"].items()},
        report=folder / content["report"],
        overview=folder / content["overview"],
        folder=folder / content["folder"],
    )
