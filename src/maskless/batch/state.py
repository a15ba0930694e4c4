"""batch/state/{shard}.json: what a run of a batch is doing now, for `maskless status` and for the next run.

A run that was killed cannot say so: its state still says "running", and its process does not exist any more.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from maskless.batch.shards import Shard
from maskless.batch.stores import Store
from maskless.records.run_file import COMPLETE, INTERRUPTED, RUNNING, process_start

FOLDER = "batch/state"
LATE_SECONDS = 300.0
"""A run on another host whose state is older than this is taken for dead."""
WRITE_EVERY_SECONDS = 2.0


@dataclass(kw_only=True)
class WorkerState:
    """One worker. row: the id that it edits now, or None. done, failed: rows that it finished in this run."""

    row: str | None = None
    tries: int = 0
    done: int = 0
    failed: int = 0


@dataclass(kw_only=True)
class RunState:
    """One run of a batch: a whole batch, or one shard of it.

    rows: good rows of the whole manifest. total: rows of this shard. done, failed: rows that are finished, those of
    earlier runs included. made: rows that this run finished. invalid: rows that the manifest's check refused. seconds:
    since this run began to edit.
    """

    engine: str
    shard: str
    rows: int
    total: int
    invalid: int = 0
    state: str = RUNNING
    done: int = 0
    failed: int = 0
    made: int = 0
    seconds: float = 0.0
    workers: dict[str, WorkerState] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    process_start: str = field(default_factory=lambda: process_start(os.getpid()) or "")
    started: str = field(default_factory=lambda: _now())
    updated: str = field(default_factory=lambda: _now())

    @property
    def left(self) -> int:
        """Rows that are not finished."""
        return max(0, self.total - self.done - self.failed)

    @property
    def per_minute(self) -> float | None:
        """Rows that this run finished per minute; None before the first."""
        return 60.0 * self.made / self.seconds if self.made and self.seconds > 0 else None

    def is_alive(self) -> bool:
        """Whether the run still runs, as far as it can be seen from here."""
        if self.state != RUNNING:
            return False
        if self.host == socket.gethostname() and self.process_start:
            return process_start(self.pid) == self.process_start
        return (datetime.now(UTC) - datetime.fromisoformat(self.updated)).total_seconds() < LATE_SECONDS


class StateFile:
    """Keeps the state of this run up to date."""

    def __init__(self, store: Store, state: RunState) -> None:
        self._store, self.state = store, state
        self._began = self._written = time.monotonic()
        self.write()

    def took(self, worker: str, row: str, tries: int) -> None:
        """A worker begins a row. Written at once: if the process dies of it, the next run knows the row."""
        entry = self.state.workers.setdefault(worker, WorkerState())
        entry.row, entry.tries = row, tries
        self.write()

    def finished(self, worker: str, *, failed: bool) -> None:
        """A worker has finished its row for good."""
        entry = self.state.workers.setdefault(worker, WorkerState())
        entry.row, entry.tries = None, 0
        entry.done, entry.failed = entry.done + (not failed), entry.failed + failed
        self.state.done, self.state.failed = self.state.done + (not failed), self.state.failed + failed
        self.state.made += 1
        if time.monotonic() - self._written > WRITE_EVERY_SECONDS:
            self.write()

    def lost(self, worker: str) -> None:
        """A worker has died or been replaced."""
        self.state.workers.pop(worker, None)
        self.write()

    def ended(self, *, complete: bool) -> None:
        """The run ends by itself, or is interrupted in an orderly way: no row is in flight any more."""
        self.state.state = COMPLETE if complete else INTERRUPTED
        for entry in self.state.workers.values():
            entry.row, entry.tries = None, 0
        self.write()

    def write(self) -> None:
        """Write the file."""
        self.state.seconds = round(time.monotonic() - self._began, 3)
        self.state.updated, self._written = _now(), time.monotonic()
        content = json.dumps(asdict(self.state), indent=1, ensure_ascii=False) + "\n"
        self._store.write(f"{FOLDER}/{self.state.shard}.json", content.encode("utf-8", "surrogatepass"))


def read_states(store: Store) -> list[RunState]:
    """The states of all shards, in their order; damaged files are left out."""
    found = []
    for name in sorted(store.names(FOLDER)):
        state = _state(store.read(f"{FOLDER}/{name}"))
        if state is not None:
            found.append(state)
    return sorted(found, key=lambda state: int(state.shard.partition("-")[0]))


def begin_state(store: Store, state: RunState, shard: Shard) -> tuple[StateFile, dict[str, int]]:
    """The state file of a run that begins, and how often the rows in flight were tried when an earlier run died.

    States of other shard counts are removed: they are of an earlier division of the manifest.
    """
    tries: dict[str, int] = {}
    for earlier in read_states(store):
        if earlier.state == RUNNING and not earlier.is_alive():
            tries |= {entry.row: entry.tries for entry in earlier.workers.values() if entry.row is not None}
        if not earlier.shard.endswith(f"-of-{shard.count}") and not earlier.is_alive():
            store.remove(f"{FOLDER}/{earlier.shard}.json")
    return StateFile(store, state), tries


def wait_for_others(store: Store, shard: Shard) -> None:
    """Wait until no other shard runs any more. A shard that has not begun is waited for during LATE_SECONDS."""
    began = time.monotonic()
    while True:
        others = [state for state in read_states(store) if state.shard != shard.name]
        begun = len(others) >= shard.count - 1 or time.monotonic() - began > LATE_SECONDS
        if begun and not any(state.is_alive() for state in others):
            return
        time.sleep(1.0)


def _state(content: bytes | None) -> RunState | None:
    try:
        values: Any = json.loads(content or b"")
        known = {entry.name for entry in fields(RunState)}
        if not isinstance(values, Mapping) or not values.keys() <= known:
            return None
        workers = {str(name): WorkerState(**entry) for name, entry in values["workers"].items()}
        state = RunState(**{**values, "workers": workers})
        datetime.fromisoformat(state.updated)
        int(state.shard.partition("-")[0])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return state


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
