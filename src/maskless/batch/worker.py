"""A worker: it holds the models and edits one row at a time, from the picture's bytes to the published folder.

Every engine uses it, in this process or in others. A worker publishes what it made and writes the marker; what to do
next, and when to give up, is the engine's business.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from maskless.batch.commands import edit_command
from maskless.batch.contact_sheet import SHEETS, strip
from maskless.batch.journal import DONE, FAILED, Journal, Record
from maskless.batch.keys import Content, Keys, content_of, row_name
from maskless.batch.places import is_url, read_bytes
from maskless.batch.rows import Row
from maskless.batch.stores import StorageError, open_store
from maskless.data.choices import LEARNING_SEARCHES
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError, first_line
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.picture import SourceImage, load_image, output_suffix
from maskless.data.result import EditResult, StepRecord
from maskless.data.types import EditRequest
from maskless.engine.editor import Editor
from maskless.engine.requests import make_request
from maskless.engine.run import Run
from maskless.engine.search_run import SearchRun
from maskless.models.memory import is_out_of_memory
from maskless.models.pretrained import EditModels, load_models
from maskless.records.checkpoints import LAST, Checkpoint, load_checkpoint, resume, start_from
from maskless.records.keeping import kept
from maskless.records.outputs import SavedEdit, save_edit
from maskless.records.tensorboard import TensorBoardLog


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Everything that a worker needs, as plain values that can be sent to another machine.

    output: folder or URL of the outputs. keys: gives the rows' keys. owner: name of the shard, for its staging folder.
    threads: CPU threads of torch; the last bits of a picture depend on it. row_seconds: time limit of a row; None is
    none. anchor_net: a checkpoint whose AnchorNet every search starts from.
    """

    output: str
    models: ModelOptions
    config: EditConfig
    keep: KeepOptions
    keys: Keys
    owner: str = "0-of-1"
    threads: int = 1
    row_seconds: float | None = None
    anchor_net: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A row whose picture is decoded. key, content: of the files at that moment. request: None if it failed.
    error: why it failed. may_retry: whether another try may succeed."""

    row: Row
    key: str
    content: Content
    request: EditRequest | None = None
    error: str = ""
    may_retry: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The end of one try. record: for the journal; the marker of a finished row has been written, that of a failed one
    has not. may_retry: whether another try may succeed."""

    row: Row
    record: Record
    may_retry: bool = False

    @property
    def failed(self) -> bool:
        """Whether the row was not edited."""
        return bool(self.record["status"] == FAILED)


class Stopped(Exception):
    """The batch is being stopped; the row's progress is in its checkpoint."""


class _TooLong(Exception):
    """The row took longer than its time limit."""


def never() -> bool:
    """A worker's `stopping` where nothing but a signal stops it."""
    return False


class Worker:
    """Edits rows with one set of models."""

    def __init__(self, settings: WorkerSettings) -> None:
        """Load the models.

        Raises:
            MasklessError: the models cannot be loaded, or the outputs cannot be opened.
        """
        import torch

        torch.set_num_threads(settings.threads)
        self.settings, self.store = settings, open_store(settings.output)
        self.name = f"{socket.gethostname()} {os.getpid()}"
        self._journal = Journal(self.store)
        self._shared = None if settings.anchor_net is None else load_checkpoint(settings.anchor_net)
        self._editor = Editor(load_models(settings.models), settings.config)

    @property
    def models(self) -> EditModels:
        """The models that the worker has loaded."""
        return self._editor.models

    def prepare(self, row: Row) -> Prepared:
        """Read and decode a row's picture and mask. It can run in a thread beside an edit."""
        content = content_of(row)
        key = self.settings.keys.key(row, content)
        try:
            mask = None if row.mask is None else _picture(row.mask)
            request = make_request(
                _picture(row.image), caption=row.caption, prompt=row.prompt, task=row.task, mask=mask, box=row.box,
                extend=row.extend,
            )  # fmt: skip
        except (MasklessError, MemoryError) as error:
            retry = isinstance(error, MemoryError)
            return Prepared(row=row, key=key, content=content, error=first_line(error), may_retry=retry)
        return Prepared(row=row, key=key, content=content, request=request)

    def start(self, request: EditRequest, row: Row) -> Run:
        """The run of a row, with the row's own options."""
        options: dict[str, Any] = dict(row.options)
        return self._editor.start(request, **options)

    def attempt(
        self,
        prepared: Prepared,
        *,
        on_step: Callable[[StepRecord], None] | None = None,
        stopping: Callable[[], bool] = never,
    ) -> Outcome:
        """Edit a row once, from its last checkpoint if there is one, and publish it.

        Raises:
            Stopped: `stopping` returned True; the progress is in the row's checkpoint.
            StorageError: the outputs cannot be written.
        """
        if prepared.request is None:
            return self._failed(prepared, prepared.error, prepared.may_retry, 0.0)
        began = time.monotonic()
        try:
            record = self._edited(prepared, prepared.request, on_step, stopping)
        except (Stopped, StorageError):
            raise
        except _TooLong:
            text = f"it took longer than {self.settings.row_seconds:g} seconds"
            return self._failed(prepared, text, True, time.monotonic() - began)
        except Exception as error:
            if _is_storage(error):
                raise StorageError(first_line(error)) from error
            retry = not isinstance(error, MasklessError) or is_out_of_memory(error)
            return self._failed(prepared, f"{_kind(error)}{first_line(error)}", retry, time.monotonic() - began)
        self._journal.finish(prepared.row, record)
        self._remove_checkpoint(prepared)
        return Outcome(row=prepared.row, record=record)

    def _edited(
        self,
        prepared: Prepared,
        request: EditRequest,
        on_step: Callable[[StepRecord], None] | None,
        stopping: Callable[[], bool],
    ) -> Record:
        """Edit and publish a row; returns its record. On every exception the progress stays in the checkpoint."""
        row, began = prepared.row, time.monotonic()
        run = self.start(request, row)
        folder = self._checkpoint_folder(prepared)
        continued_at = self._continue(run, folder)
        records: list[Record] = []
        keep = replace(self.settings.keep, slim_checkpoint=True, image_id=row.id)
        with TensorBoardLog.of(run, keep) if keep.tensorboard else nullcontext() as log:

            def publish(result: EditResult) -> None:
                records.append(self._published(prepared, result, began, log))

            with closing(kept(run, folder, keep=keep, log=log, save=publish)) as steps:
                for step in steps:
                    if on_step is not None:
                        on_step(step)
                    if stopping():
                        raise Stopped
                    if self.settings.row_seconds and time.monotonic() - began > self.settings.row_seconds:
                        raise _TooLong
        return records[0] | {"continued_at": continued_at}

    def _continue(self, run: Run, folder: Path) -> int | None:
        """Continue from the row's own checkpoint; without one, start from the given AnchorNet, if there is one.

        Returns the step that the run continues after; None if it starts at the beginning.
        """
        own = _readable(folder / LAST)
        if own is not None and own.difference(run) is None:
            resume(run, own)
            return run.history[-1].step if run.history else 0
        if self._shared is not None and isinstance(run, SearchRun) and run.used.search in LEARNING_SEARCHES:
            start_from(run, self._shared)
        return None

    def _published(self, prepared: Prepared, result: EditResult, began: float, log: Any) -> Record:
        """Write the files of a row to the staging folder, publish them, and return the record."""
        row, settings = prepared.row, self.settings
        result, cost = without_timings(result), result.cost
        command = edit_command(row, settings.models, settings.config, settings.keep)
        with self.store.staging(settings.owner) as staging:
            keep = settings.keep
            suffix = output_suffix(result.request.source, keep.format, keep.quality)
            saved = save_edit(
                result, staging, image_id=row.id, draw_box=keep.draw_box, command=command, suffix=suffix,
                quality=keep.quality, provenance=keep,
            )  # fmt: skip
            if log is not None:
                log.finished(saved.overview, len(result.history))
            self.store.write(f"{SHEETS}/{row_name(row.id)}.jpg", strip(result))
            self.store.publish(saved.folder, row.folder)
        return (
            self._record(prepared, DONE, time.monotonic() - began)
            | _facts(result, saved, row)
            | {
                "cost": {
                    "inpaintings": cost.inpaintings,
                    "unet_forwards": cost.unet_forwards,
                    "seconds": {stage: round(seconds, 3) for stage, seconds in cost.seconds.items()},
                    "peak_memory_mb": round(cost.peak_memory_mb, 1),
                }
            }
        )

    def _failed(self, prepared: Prepared, error: str, may_retry: bool, seconds: float) -> Outcome:
        record = self._record(prepared, FAILED, seconds) | {"error": " ".join(error.split())}
        return Outcome(row=prepared.row, record=record, may_retry=may_retry)

    def _record(self, prepared: Prepared, status: str, seconds: float) -> Record:
        return base_record(prepared.row, prepared.key, status, seconds, worker=self.name) | {
            "content": prepared.content.to_dict()
        }

    def _checkpoint_folder(self, prepared: Prepared) -> Path:
        """The folder of the row's checkpoints, which belongs to its present content alone."""
        name = f"{prepared.row.folder}-{prepared.key[:8]}"
        return Path(self.settings.keep.checkpoint_dir) / name

    def _remove_checkpoint(self, prepared: Prepared) -> None:
        """A published row needs no checkpoint; those of a hundred thousand rows would fill a disk."""
        shutil.rmtree(self._checkpoint_folder(prepared), ignore_errors=True)


def base_record(row: Row, key: str, status: str, seconds: float, *, worker: str) -> Record:
    """The fields that every record has."""
    return {
        "id": row.id, "line": row.line, "status": status, "error": None, "seconds": round(seconds, 3), "tries": 1,
        "image": row.image, "caption": row.caption, "prompt": row.prompt, "task": row.task, "folder": row.folder,
        "best": None, "cost": None, "key": key, "worker": worker,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def without_timings(result: EditResult) -> EditResult:
    """The result without what a clock or a memory meter says, so that its files are the same on every machine."""
    history = tuple(replace(step, seconds=0.0) for step in result.history)
    return replace(result, history=history, cost=replace(result.cost, seconds={}, peak_memory_mb=0.0))


def _facts(result: EditResult, saved: SavedEdit, row: Row) -> Record:
    best = result.order[0]
    height, width = result.request.size_yx
    score = saved.record["candidates"][best]["score"]
    return {
        "best": PurePosixPath(row.folder, "results", "final_output.png").as_posix(),
        "box_xyxy": list(result.best.box_xyxy),
        "size_px": [width, height],
        "score": score,
        "candidates": len(result.candidates),
    }


def _picture(place: str) -> SourceImage:
    """The picture of a path or URL, under the name that the manifest gives it."""
    if not is_url(place):
        return load_image(place)
    with tempfile.TemporaryDirectory(prefix="maskless-") as folder:
        path = Path(folder) / PurePosixPath(place).name
        path.write_bytes(read_bytes(place))
        return replace(load_image(path), path=place)


def _readable(path: Path) -> Checkpoint | None:
    """The checkpoint in a file; None if there is none, or if it cannot be read."""
    if not path.is_file():
        return None
    try:
        return load_checkpoint(path)
    except MasklessError:
        return None


def _is_storage(error: BaseException | None) -> bool:
    """Whether a full or read-only disk is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _kind(error: Exception) -> str:
    """The type of an unexpected error, to go before its message."""
    return "" if isinstance(error, MasklessError) or is_out_of_memory(error) else f"{type(error).__name__}: "
