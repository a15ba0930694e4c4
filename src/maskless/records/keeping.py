"""The one driver of runs: it iterates a run and writes checkpoints, run.json and a log on the way.

for step in kept(run, folder): ...      the command line updates a progress bar, a page shows run.preview()
for _ in kept(run, folder): ...         a batch
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import EditCancelled, MasklessError, one_line
from maskless.data.files import one_line_write_errors, write_bytes
from maskless.data.keep_options import KeepOptions
from maskless.data.result import EditResult, StepRecord
from maskless.engine.run import Run
from maskless.method.search import State
from maskless.records.checkpoints import LAST, checkpoint_content
from maskless.records.run_file import COMPLETE, INTERRUPTED, RunFile, read_run_file, record_of

LOCK = ".lock"
"""The file that a run locks in its folder."""
SAVE_EVERY_SECONDS = 30.0
"""Between epochs, last.pth is written again when it is older than this."""


@runtime_checkable
class Log(Protocol):
    """A log that is written step by step, such as curves for TensorBoard."""

    def after(self, step: StepRecord, probabilities: Float[Tensor, "K M"] | None) -> None:
        """Log a complete step. probabilities: pi(m|k) after this step; None if they are not known."""


def kept(
    run: Run,
    folder: str | Path,
    *,
    keep: KeepOptions | None = None,
    log: Log | None = None,
    save: Callable[[EditResult], object] | None = None,
) -> Generator[StepRecord, None, None]:
    """Iterate a run, and write its checkpoints and run.json to a folder that no other run uses.

    If the run can be continued, last.pth is written after its first step, after every epoch, and between epochs when it
    is older than SAVE_EVERY_SECONDS; run.json is written after every step. So a run that is killed loses little. An
    interrupted run loses nothing, because last.pth is then written with the state after the last complete step.

    Args:
        run: a new or a resumed run.
        folder: created if it is missing.
        keep: how often numbered checkpoints are written, and whether checkpoints contain DINO.
        log: called after every step.
        save: called with the result after the last step; run.json says "complete" only when it has returned.
    Raises:
        MasklessError: the folder cannot be written to, or another run is writing to it.
    """
    with _locked(Path(folder)):
        yield from _kept(run, _Keeper(run, Path(folder), keep or KeepOptions()), log, save)


def _kept(
    run: Run, keeper: _Keeper, log: Log | None, save: Callable[[EditResult], object] | None
) -> Iterator[StepRecord]:
    """See `kept`."""
    replayed = len(run.history)  # a resumed run yields the earlier steps again; these are saved already
    try:
        for position, step in enumerate(run):
            if position >= replayed:
                keeper.after(step)
            if log is not None:
                log.after(step, run.probabilities if position >= replayed else None)
            yield step
        if save is not None:
            save(run.result())
    except (KeyboardInterrupt, GeneratorExit, EditCancelled):
        keeper.interrupted()
        raise
    keeper.complete()


def continues_from(run: Run, folder: str | Path) -> Path | None:
    """The checkpoint that `kept` wrote for an interrupted run; None if the run cannot be continued."""
    return None if run.state() is None else Path(folder) / LAST


def require_free(folder: str | Path) -> None:
    """Check that no other run is writing to a folder, before the models are loaded.

    Raises:
        MasklessError: one is; the message names its process.
    """
    if Path(folder).is_dir():
        with _locked(Path(folder)):
            pass


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder. The system releases the lock of a process that is killed."""
    with one_line_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise MasklessError(f"another run is writing to {folder}{_by_whom(folder)}; wait for it, or choose another "
                            "--checkpoint-dir or --image-id") from None  # fmt: skip
    except (OSError, NotImplementedError):  # read only, or no locks on this file system; writing says what is wrong
        yield
        return
    try:
        yield
    finally:
        # Whoever waits for the file finds that it is gone, and makes a new one.
        with suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()


def _by_whom(folder: Path) -> str:
    """The process that writes to a folder according to its run.json, in brackets; empty if that does not tell."""
    try:
        record = read_run_file(folder)
    except MasklessError:
        return ""
    return "" if record is None else f" (process {record.pid} on {one_line(record.host)})"


class _Keeper:
    """Writes a run's checkpoints and run.json."""

    def __init__(self, run: Run, folder: Path, keep: KeepOptions) -> None:
        self._run, self._folder, self._keep = run, folder, keep
        self._dino: dict[str, Tensor] | None = None
        self._content: State | None = None
        self._saved_at = float("-inf")
        self._run_file = RunFile(folder, record_of(run))

    def after(self, step: StepRecord) -> None:
        """Write the files that are due after a complete step."""
        self._remember()
        iterations = max(1, self._run.used.iterations)
        epoch, inside = divmod(step.step, iterations)
        if not inside and epoch and epoch % self._keep.checkpoint_interval == 0:
            self._write(f"transformer_epoch_{epoch}.pth")
        if not inside or time.monotonic() - self._saved_at > SAVE_EVERY_SECONDS:
            self._save()
        self._run_file.update(step=step.step)

    def interrupted(self) -> None:
        """Write a checkpoint of the last complete step, and "interrupted" to run.json."""
        self._save()
        self._run_file.update(state=INTERRUPTED)

    def complete(self) -> None:
        """Write "complete" to run.json."""
        self._run_file.update(state=COMPLETE)

    def _remember(self) -> None:
        """Keep the content of a checkpoint in memory, for an interruption in the middle of the next step."""
        if self._dino is None:
            state = {} if self._keep.slim_checkpoint else self._run.models.dino.model.state_dict()
            self._dino = {name: value.cpu() for name, value in state.items()}  # DINO is frozen, so one copy is enough
        self._content = checkpoint_content(self._run, dino=self._dino)

    def _save(self) -> None:
        self._write(LAST)
        self._saved_at = time.monotonic()

    def _write(self, name: str) -> None:
        if self._content is None:
            return
        # Through memory, because the error of torch's own writer on a full disk does not name the cause.
        file = io.BytesIO()
        torch.save(self._content, file)
        write_bytes(self._folder / name, file.getvalue())
