"""What the engines share: the events that they report, and how often a row is tried."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

from maskless.batch.journal import FAILED, Journal
from maskless.batch.keys import Keys, content_of
from maskless.batch.rows import Row
from maskless.batch.state import StateFile
from maskless.batch.worker import Outcome, base_record
from maskless.data.result import StepRecord

TRIES = 3
"""How often a row is tried before it counts as failed. Bad input fails at once, as another try could not help."""


@runtime_checkable
class Reporter(Protocol):
    """Shows the progress of a batch."""

    def skipped(self, done: int, failed: int) -> None:
        """So many rows were finished by earlier runs."""

    def took(self, worker: str, row: Row) -> None:
        """A worker begins a row."""

    def step(self, row: Row, step: StepRecord) -> None:
        """A row has made a step. Only the local engine reports steps."""

    def finished(self, outcome: Outcome) -> None:
        """A row is finished for good."""

    def training(self, done: int, total: int) -> None:
        """So many pictures have been searched for the training of an AnchorNet."""

    def note(self, line: str) -> None:
        """Something happened that the user should know."""


class Queue:
    """The rows that are left, and the journal of those that are finished."""

    def __init__(
        self, rows: Iterable[Row], *, journal: Journal, keys: Keys, state: StateFile, reporter: Reporter,
        tries: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        """tries: how often a row was tried when an earlier run died of it."""
        self._waiting = deque(rows)
        self._journal, self._keys, self._state, self._reporter = journal, keys, state, reporter
        self._tries = dict(tries or {})

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> Row | None:
        """The next row; None if there is none. A row that was tried often enough fails here."""
        while self._waiting:
            row = self._waiting.popleft()
            if self._tries.get(row.id, 0) < TRIES:
                return row
            self.died(row, "an earlier run", "the process ended while it edited this row")
        return None

    def put_back(self, row: Row) -> None:
        """Give back a row that was not begun."""
        self._waiting.appendleft(row)

    def begin(self, worker: str, row: Row) -> None:
        """A worker begins a row: markers of its other contents no longer hold."""
        self._tries[row.id] = self._tries.get(row.id, 0) + 1
        self._journal.forget(row)
        self._state.took(worker, row.id, self._tries[row.id])
        self._reporter.took(worker, row)

    def end(self, worker: str, outcome: Outcome) -> bool:
        """A worker has tried a row. Returns whether the row is finished for good; otherwise it waits again."""
        tries = self._tries.get(outcome.row.id, 1)
        if outcome.failed and outcome.may_retry and tries < TRIES:
            self._waiting.appendleft(outcome.row)
            return False
        outcome.record["tries"] = tries
        if outcome.failed:
            self._journal.fail(outcome.row, outcome.record)
        self._journal.append(outcome.record)
        self._state.finished(worker, failed=outcome.failed)
        self._reporter.finished(outcome)
        return True

    def died(self, row: Row, worker: str, reason: str) -> bool:
        """A worker died in mid row. Returns whether the row has failed for good; otherwise it waits again."""
        if self._tries.get(row.id, 1) < TRIES:
            self._waiting.appendleft(row)
            return False
        content = content_of(row)
        record = base_record(row, self._keys.key(row, content), FAILED, 0.0, worker=worker)
        record |= {"error": reason, "content": content.to_dict(), "tries": self._tries.get(row.id, TRIES)}
        self._journal.fail(row, record)
        self._journal.append(record)
        self._state.finished(worker, failed=True)
        self._reporter.finished(Outcome(row=row, record=record))
        return True
