"""The queue of edits, and the one thread that makes them in turn with one set of models."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import re
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import EditCancelled, MasklessError
from maskless.data.files import one_line_write_errors, write_bytes
from maskless.data.keep_options import KeepOptions
from maskless.data.provenance import ProvenanceOptions
from maskless.data.result import EditResult, StepRecord
from maskless.engine.editor import Editor
from maskless.engine.run import Run
from maskless.interfaces.jobs.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Job
from maskless.interfaces.jobs.outcome import keep_outcome
from maskless.interfaces.jobs.spec import EditSpec, loaded
from maskless.interfaces.jobs.uploads import Upload
from maskless.locating.view import PictureView
from maskless.models.inpainters.denoising import watched
from maskless.models.memory import is_out_of_memory
from maskless.records.checkpoints import LAST, load_checkpoint, resume
from maskless.records.keeping import kept
from maskless.records.outputs import save_edit

LOG = logging.getLogger("maskless.jobs")
SLIM = KeepOptions(slim_checkpoint=True)
JOB_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")
MAX_ATTEMPTS = 2
DRAWING_SECONDS = 0.5
"""Least time between two pictures of a drawing, so that showing them costs a fast model little."""
TYPICAL_SECONDS = 10.0
"""The guess of how long an edit takes until one has been made."""


class Busy(MasklessError):
    """The queue is full, or the server is stopping. retry_after: seconds after which another try makes sense."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True)
class JobLimits:
    """waiting: how many jobs may wait. keep_seconds: how long a finished job's files are kept. job_seconds: how long
    one job may take."""

    waiting: int = 16
    keep_seconds: float = 3600.0
    job_seconds: float = 1800.0


class Jobs:
    """Edits of many clients, made one after the other.

    A failure in a job ends that job and nothing else. Jobs that were waiting or running when an earlier server with
    the same folder stopped are made first; a search continues from its checkpoint.
    """

    def __init__(
        self,
        editor: Editor,
        folder: str | Path,
        limits: JobLimits | None = None,
        provenance: ProvenanceOptions | None = None,
    ) -> None:
        """folder: of this server alone; created if it is missing. provenance: what edited pictures say about where
        they come from.

        Raises:
            MasklessError: the folder cannot be written to, or another server uses it.
        """
        self.editor, self.folder, self.limits = editor, Path(folder), limits or JobLimits()
        self.provenance = provenance or ProvenanceOptions()
        self._lock_file = _locked(self.folder)
        self._jobs: dict[str, Job] = {}
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._running: Job | None = None
        self._stopping = False
        self._seconds: deque[float] = deque(maxlen=20)
        self._view: tuple[str, PictureView] | None = None
        self.total_seconds, self.inpaintings = 0.0, 0
        self.totals = {DONE: 0, FAILED: 0, CANCELLED: 0, "refused": 0}
        self._read_back()
        self._thread = threading.Thread(target=self._work, name="maskless-worker", daemon=True)
        self._thread.start()

    def submit(self, spec: EditSpec, image: Upload, mask: Upload | None = None) -> Job:
        """Check an edit completely, and put it at the end of the queue.

        Raises:
            Busy: the queue is full or the server is stopping. MasklessError: what the client gave makes no edit.
        """
        self._require_room()
        name = secrets.token_urlsafe(18)
        job = Job(name, self.folder / name, spec, suffix=image.suffix, mask_suffix=mask.suffix if mask else None)
        try:
            write_bytes(job.image, image.content)
            if job.mask is not None and mask is not None:
                write_bytes(job.mask, mask.content)
            spec.request(
                loaded(job.image), job.mask
            )  # only checked here, so that a waiting job holds no decoded picture
            with self._changed:
                self._require_room()
                job.save()
                self._jobs[name] = job
                self._waiting.append(job)
                self._changed.notify_all()
        except BaseException:
            shutil.rmtree(job.folder, ignore_errors=True)
            raise
        return job

    def get(self, name: str) -> Job | None:
        """The job of this name; None if there is none, or its time is over."""
        return self._jobs.get(name)

    def cancel(self, job: Job) -> None:
        """Cancel a job: a waiting one at once, a running one between two denoising steps. A finished one stays."""
        with self._changed:
            job.cancel_requested.set()
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, CANCELLED)

    def remove(self, job: Job) -> None:
        """Forget a finished job, and delete its files."""
        self._jobs.pop(job.name, None)
        shutil.rmtree(job.folder, ignore_errors=True)

    def position(self, job: Job) -> int:
        """How many jobs are made before this one; 0 for the one that is running."""
        with self._changed:
            return self._waiting.index(job) + (self._running is not None) if job in self._waiting else 0

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def is_running(self) -> bool:
        """Whether a job is being made."""
        return self._running is not None

    @property
    def is_stopping(self) -> bool:
        """Whether no more jobs are accepted."""
        return self._stopping

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Accept no more jobs, and wait for the running one.

        If that takes longer than grace_seconds, it stops between two denoising steps; its checkpoint and the jobs that
        wait stay in the folder, where the next server finds them.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(grace_seconds)
        running = self._running
        if running is not None:
            running.cancel_requested.set()
        self._thread.join()
        self._lock_file.close()

    def retry_after(self) -> int:
        """The seconds until there is probably room in the queue."""
        typical = sum(self._seconds) / len(self._seconds) if self._seconds else TYPICAL_SECONDS
        return max(1, min(600, round(typical)))

    def _require_room(self) -> None:
        if self._stopping:
            raise Busy("the server is stopping; try again later", 30)
        if len(self._waiting) >= self.limits.waiting:
            self.totals["refused"] += 1
            after = self.retry_after()
            raise Busy(f"{len(self._waiting)} edits are waiting already; try again in {after} s", after)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait(timeout=5.0)
                    self._remove_expired()
                if self._stopping:
                    return
                job = self._running = self._waiting.popleft()
            try:
                self._make(job)
            finally:
                self._running = None
            self._remove_expired()

    def _make(self, job: Job) -> None:
        """Make one edit. Whatever goes wrong becomes the job's error."""
        try:
            job.attempts += 1
            job.change(RUNNING)
            run = self._start(job)
            state = self._iterate(job, run)
            if state == QUEUED:  # the server is stopping; the next one continues
                job.attempts -= 1
                job.change(QUEUED)
                return
            self._finish(job, state)
        except MasklessError as error:
            self._finish(job, FAILED, str(error))
        except BaseException as error:
            if is_out_of_memory(error):
                self._finish(job, FAILED, "the edit needs more memory than the server has")
            else:
                LOG.exception("job %s failed", job.name)
                self._finish(job, FAILED, "internal error; the server's log has the details")

    def _start(self, job: Job) -> Run:
        """The run of a job; it continues from the checkpoint that an earlier server left."""
        view = self._view_of(job)
        request = job.spec.request(view.source, job.mask)
        options: dict[str, Any] = dict(job.spec.options)
        run = self.editor.start(request, view=view, **options)
        checkpoint = job.folder / "checkpoint" / LAST
        if checkpoint.exists():
            resume(run, load_checkpoint(checkpoint))
        return run

    def _view_of(self, job: Job) -> PictureView:
        """The view of the job's picture; an edit of the same picture as the last one shares its features."""
        digest = hashlib.sha256(job.image.read_bytes()).hexdigest()
        if self._view is None or self._view[0] != digest:
            self._view = None
            self._view = digest, self.editor.look(loaded(job.image))
        return self._view[1]

    def _iterate(self, job: Job, run: Run) -> str:
        """Make the steps of a run, and return the state that the job has then."""
        began = time.monotonic()

        def save(result: EditResult) -> None:
            command = job.spec.command(mask=job.mask is not None)
            saved = save_edit(result, job.folder, image_id="edit", command=command, provenance=self.provenance)
            job.outcome = keep_outcome(result, saved, job.folder)

        shown_at = -math.inf

        def stops(step: int = 0, total: int = 1) -> bool:
            nonlocal shown_at
            if step and time.monotonic() - shown_at >= DRAWING_SECONDS:
                drawing = _png(run.drawing())
                if drawing is not None:
                    job.show(drawing, step / total)
                    shown_at = time.monotonic()
            return job.cancel_requested.is_set() or time.monotonic() - began > self.limits.job_seconds

        steps = kept(run, job.folder / "checkpoint", keep=SLIM, save=save)
        try:
            with watched(stops), closing(cast(Generator[StepRecord, None, None], steps)):
                for step in steps:
                    job.add_step(step, _png(run.preview()))
                    if stops():
                        return self._state_of_stopped(job)
        except EditCancelled:
            return self._state_of_stopped(job)
        self._seconds.append(time.monotonic() - began)
        self.total_seconds += self._seconds[-1]
        self.inpaintings += job.steps[-1].inpaintings if job.steps else 0
        return DONE

    def _state_of_stopped(self, job: Job) -> str:
        """The state of a job that was stopped before its end.

        Raises:
            MasklessError: it was stopped because it took too long.
        """
        if not job.cancel_requested.is_set():
            raise MasklessError(f"the edit took longer than the {self.limits.job_seconds / 60:g} minutes allowed")
        return QUEUED if self._stopping else CANCELLED

    def _finish(self, job: Job, state: str, error: str = "") -> None:
        self.totals[state] += 1
        shutil.rmtree(job.folder / "checkpoint", ignore_errors=True)
        try:
            job.change(state, error)
        except MasklessError as write_error:  # a full disk: the client still learns the state
            LOG.error("job %s: %s", job.name, write_error)
            job.state, job.error, job.finished = state, error, time.time()
            job.version += 1

    def _remove_expired(self) -> None:
        now = time.time()
        for job in list(self._jobs.values()):
            if job.is_finished and now - job.finished > self.limits.keep_seconds:
                self.remove(job)

    def _read_back(self) -> None:
        """Take over the jobs of an earlier server; those that were not finished wait again, oldest first."""
        found = [Job.read(folder) for folder in self.folder.iterdir() if JOB_NAME.fullmatch(folder.name)]
        for job in sorted((job for job in found if job is not None), key=lambda job: job.created):
            self._jobs[job.name] = job
            if job.is_finished:
                continue
            if job.attempts >= MAX_ATTEMPTS:
                self._finish(job, FAILED, "the server ended twice while it made this edit")
                continue
            job.state = QUEUED
            self._waiting.append(job)
        self._remove_expired()


def _png(picture: Float[Tensor, "3 h w"] | None) -> bytes | None:
    """A small picture in [0, 1] as a PNG file."""
    if picture is None:
        return None
    from PIL import Image

    pixels = (picture.clamp(0, 1) * 255).round().byte().movedim(0, -1).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def _locked(folder: Path) -> IO[Any]:
    """An open file that locks the folder for this process; it is created if it is missing."""
    with one_line_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    try:
        import fcntl
    except ImportError:  # Windows: two servers with one folder are the owner's responsibility there
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise MasklessError(f"another server uses the folder {folder}; name another with --folder") from None
    os.chmod(folder, 0o700)
    return file
