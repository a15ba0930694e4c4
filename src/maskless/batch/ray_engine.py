"""The Ray engine: a worker for each GPU of a cluster, each with its models, and one loop that hands out rows.

A worker has at most two rows: one that it edits, and one that it has only decoded. A worker that dies or takes too long
is replaced, and its row waits again. Ray Core alone is used: a row, not a block of rows, is the unit of work, of time
limits and of failure.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from maskless.batch.engine import Queue, Reporter
from maskless.batch.options import BatchOptions
from maskless.batch.rows import Row
from maskless.batch.state import StateFile
from maskless.batch.stores import StorageError
from maskless.batch.worker import Outcome, Prepared, Stopped, Worker, WorkerSettings
from maskless.data.errors import MasklessError

WAIT_SECONDS = 0.5
LOOK_EVERY_SECONDS = 5.0
"""How often the loop looks for new nodes."""
GRACE_SECONDS = 5.0
"""A worker that is over the time limit of a row by this much is killed. Before that, it stops between two steps."""
STOP_SECONDS = 7.0
"""How long the workers have to write their checkpoints when the batch is stopped."""
FAILED_STARTS = 3
"""After so many workers in a row have died while they loaded the models, the batch stops."""
SIDE = "side"
"""The group of methods that run beside an edit."""


class RowActor:
    """A worker in a process of its own."""

    def __init__(self, settings: WorkerSettings, folder: str) -> None:
        """folder: the working directory of the driver, which relative paths are relative to."""
        if not os.path.isdir(folder):
            raise MasklessError(f"every machine must have the folder {folder}, as the paths are relative to it")
        os.chdir(folder)
        self._settings, self._stop = settings, threading.Event()
        self._worker: Worker | None = None
        self._ahead: dict[str, Prepared] = {}

    def load(self) -> str:
        """Load the models; gives the worker's name."""
        self._worker = Worker(self._settings)
        return self._worker.name

    def decode(self, row: Row) -> None:
        """Decode the picture of the row that comes next."""
        assert self._worker is not None, "the worker has loaded its models"
        self._ahead = {row.id: self._worker.prepare(row)}

    def edit(self, row: Row) -> Outcome | None:
        """Try a row; None if the batch is being stopped."""
        assert self._worker is not None, "the worker has loaded its models"
        prepared = self._ahead.pop(row.id, None) or self._worker.prepare(row)
        try:
            return self._worker.attempt(prepared, stopping=self._stop.is_set)
        except Stopped:
            return None

    def stop(self) -> None:
        """Let the present row stop after its next step."""
        self._stop.set()


@dataclass(eq=False)
class _Slot:
    """One worker and what it has. pending: its answer that is awaited. deadline: when it is killed."""

    actor: Any
    pending: Any = None
    name: str = ""
    row: Row | None = None
    ahead: Row | None = None
    deadline: float | None = field(default=None)


def run_ray(
    queue: Queue, settings: WorkerSettings, reporter: Reporter, *, options: BatchOptions, state: StateFile
) -> None:
    """Edit all rows of a queue on a Ray cluster, or on this machine if no cluster is named.

    Raises:
        MasklessError: Ray is not installed, the cluster cannot be reached, or the workers cannot load the models.
        StorageError: the outputs cannot be written. Everything that is finished stays.
        KeyboardInterrupt: the user stopped the batch; the workers were asked to write their checkpoints.
    """
    with _cluster(options, settings.threads) as ray:
        pool = _Pool(ray, queue, settings, reporter, options=options, state=state)
        try:
            pool.run()
        except KeyboardInterrupt:
            pool.stop()
            raise


@contextmanager
def _cluster(options: BatchOptions, threads: int) -> Iterator[Any]:
    """A connection to the cluster, and Ray's module."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray prints a warning about its future
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MasklessError("--engine ray needs Ray; install it with: pip install 'maskless[batch]'") from error
    if ray.is_initialized():  # the caller's own connection, which it also ends
        yield ray
        return
    more: dict[str, Any] = {}
    if options.address is None and not os.environ.get("RAY_ADDRESS"):
        more = {"num_cpus": max(os.cpu_count() or 1, (options.workers or 1) * threads), "include_dashboard": False}
    main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(address=options.address, logging_level=logging.ERROR, log_to_driver=False, **more)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MasklessError(f"cannot reach the Ray cluster {options.address or ''}: {error}") from error
    try:
        for number, handler in handlers.items() if main else ():  # Ray has set its own, which would end the process
            signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()


class _Pool:
    """The workers, and the loop that hands out rows."""

    def __init__(
        self, ray: Any, queue: Queue, settings: WorkerSettings, reporter: Reporter, *, options: BatchOptions,
        state: StateFile,
    ) -> None:  # fmt: skip
        self._ray, self._queue, self._settings, self._reporter = ray, queue, settings, reporter
        self._options, self._state = options, state
        self._slots: list[_Slot] = []
        self._looked = float("-inf")
        self._wanted, self._gpus_each = 0, 0.0
        self._failed_starts = 0

    def run(self) -> None:
        """Hand out rows until all are finished."""
        while self._grow_and_hand_out():
            pending = {slot.pending: slot for slot in self._slots if slot.pending is not None}
            ready, _rest = self._ray.wait(list(pending), num_returns=1, timeout=WAIT_SECONDS)
            for answer in ready:
                self._answered(pending[answer])
            now = time.monotonic()
            for slot in list(self._slots):
                if slot.deadline is not None and now > slot.deadline and slot.pending is not None:
                    self._replace(slot, f"it took longer than {self._settings.row_seconds:g} seconds")

    def stop(self) -> None:
        """Ask every worker to write its checkpoint, and wait a little for it."""
        busy = [slot for slot in self._slots if slot.row is not None and slot.pending is not None]
        for slot in busy:
            slot.actor.stop.options(concurrency_group=SIDE).remote()
        if busy:
            self._ray.wait([slot.pending for slot in busy], num_returns=len(busy), timeout=STOP_SECONDS)

    def _grow_and_hand_out(self) -> bool:
        """Start the workers that are missing, give rows to those that are free; returns whether anything is awaited."""
        if time.monotonic() - self._looked > LOOK_EVERY_SECONDS:
            self._looked = time.monotonic()
            self._wanted, self._gpus_each = self._size()
        for slot in self._slots:
            if slot.pending is None:
                self._hand_out(slot)
        while len(self._slots) < self._wanted and (row := self._queue.next()) is not None:
            self._queue.put_back(row)
            if sum(slot.row is None for slot in self._slots) >= len(self._queue):
                break  # the workers that are being started are enough for the rows that are left
            self._slots.append(self._started())
        return any(slot.pending is not None for slot in self._slots)

    def _size(self) -> tuple[int, float]:
        """How many workers the cluster should have now, and the GPUs of each."""
        gpus = 0.0 if self._settings.models.device in ("cpu", "mps") else self._ray.cluster_resources().get("GPU", 0.0)
        machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        wanted = self._options.workers or int(gpus) or machines
        return max(1, wanted), min(1.0, gpus / wanted)

    def _started(self) -> _Slot:
        """A new worker that loads its models."""
        kind = self._ray.remote(
            num_cpus=self._settings.threads, num_gpus=self._gpus_each, max_restarts=0, concurrency_groups={SIDE: 1}
        )(RowActor)
        actor = kind.remote(self._settings, os.getcwd())
        return _Slot(actor=actor, pending=actor.load.remote())

    def _hand_out(self, slot: _Slot) -> None:
        """Give a free worker a row to edit and another to decode."""
        row = slot.ahead or self._queue.next() or self._taken_from_another()
        slot.row, slot.ahead = row, None
        if row is None:
            return
        self._queue.begin(slot.name, row)
        slot.pending = slot.actor.edit.remote(row)
        if self._settings.row_seconds is not None:
            slot.deadline = time.monotonic() + self._settings.row_seconds + GRACE_SECONDS
        slot.ahead = self._queue.next()
        if slot.ahead is not None:
            slot.actor.decode.options(concurrency_group=SIDE).remote(slot.ahead)

    def _taken_from_another(self) -> Row | None:
        """A row that another worker has only decoded; at the end nobody waits for a worker that is still busy."""
        for slot in self._slots:
            if slot.ahead is not None:
                row, slot.ahead = slot.ahead, None
                return row
        return None

    def _answered(self, slot: _Slot) -> None:
        """Take the answer of a worker: it is ready, it has tried its row, or it has died."""
        answer, slot.pending, slot.deadline = slot.pending, None, None
        try:
            value = self._ray.get(answer)
        except self._ray.exceptions.RayActorError as error:
            self._died(slot, error)
            return
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, StorageError) or (slot.row is None and isinstance(cause, MasklessError)):
                raise cause from None
            self._replace(slot, f"{type(cause).__name__}: {cause}")
            return
        if slot.row is None:
            slot.name, self._failed_starts = value, 0
            self._reporter.note(f"worker {slot.name} is ready")
        elif value is not None:
            self._queue.end(slot.name, value)
            slot.row = None

    def _died(self, slot: _Slot, error: Exception) -> None:
        cause = getattr(error, "cause", None)  # of an actor whose constructor failed
        if isinstance(cause, MasklessError):
            raise cause
        if slot.row is None:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise MasklessError(
                    f"{FAILED_STARTS} workers in a row ended while they loaded the models; a machine may have too "
                    "little memory for so many workers"
                )
        self._replace(slot, "its worker ended, killed or out of memory")

    def _replace(self, slot: _Slot, reason: str) -> None:
        """Kill a worker and put a new one in its place; its rows wait again, or fail after the last try."""
        self._ray.kill(slot.actor, no_restart=True)
        self._slots.remove(slot)
        if slot.ahead is not None:
            self._queue.put_back(slot.ahead)
        if slot.row is not None:
            self._queue.died(slot.row, slot.name, reason)
            self._reporter.note(f"worker {slot.name} is replaced: {reason}")
        self._state.lost(slot.name)
