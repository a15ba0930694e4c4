"""The journal of a batch: a marker for each finished row, and the tables that are made from the markers.

batch/done/{row}-{key}.json and batch/failed/{row}-{key}.json are the truth: each is written after everything that it
speaks of. batch/manifest.jsonl, batch/failed.jsonl and batch/summary.json repeat them in the order of the manifest, and
can be made again at any time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskless.batch.keys import Keys, content_of, row_name
from maskless.batch.rows import Row
from maskless.batch.stores import Store

DONE, FAILED = "done", "failed"
MANIFEST, FAILURES, SUMMARY = "batch/manifest.jsonl", "batch/failed.jsonl", "batch/summary.json"
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is left to do. todo: rows to edit. done, failed: rows that are finished, with their records."""

    todo: tuple[Row, ...]
    done: Mapping[str, Record]
    failed: Mapping[str, Record]


class Journal:
    """Reads and writes the markers and tables of a batch."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lines: dict[str, Record] = {}
        self._markers: dict[str, set[tuple[str, str]]] = {}

    def refresh(self) -> None:
        """List the markers again, and read the tables, which spare reading every marker."""
        self._markers = {}
        for status in (DONE, FAILED):
            for name in self.store.names(f"batch/{status}"):
                row, _dash, key = name.removesuffix(".json").partition("-")
                self._markers.setdefault(row, set()).add((status, key))
        for table in (MANIFEST, FAILURES):
            for line in (self.store.read(table) or b"").splitlines():
                self._remember(_parsed(line))

    def has_any(self, rows: Iterable[Row]) -> bool:
        """Whether some of the rows are finished."""
        return bool(self._markers) and any(row_name(row.id) in self._markers for row in rows)

    def plan(self, rows: Sequence[Row], keys: Keys, *, retry_failed: bool = False) -> Plan:
        """What is left to do. A row is finished if a marker has the key that its present content gives."""
        todo: list[Row] = []
        finished: dict[str, dict[str, Record]] = {DONE: {}, FAILED: {}}
        for row in rows:
            record = self._record_of(row, keys)
            if record is None or (retry_failed and record["status"] == FAILED):
                todo.append(row)
            else:
                finished[record["status"]][row.id] = record
        return Plan(todo=tuple(todo), done=finished[DONE], failed=finished[FAILED])

    def forget(self, row: Row) -> None:
        """Remove the markers of a row that is about to be made again, because its content has changed or it failed."""
        for status, key in self._markers.pop(row_name(row.id), set()):
            self.store.remove(_marker(status, row, key))

    def finish(self, row: Row, record: Record) -> bool:
        """Write the marker of a published row. Returns False if another worker has written it before."""
        self._remember(record)
        return self.store.create(_marker(DONE, row, record["key"]), _line(record))

    def fail(self, row: Row, record: Record) -> None:
        """Write the marker of a row that failed."""
        self._remember(record)
        self.store.write(_marker(FAILED, row, record["key"]), _line(record))

    def append(self, record: Record) -> None:
        """Add a finished row to its table, for those who read along; `write_tables` brings the rows into order."""
        self.store.append(MANIFEST if record["status"] == DONE else FAILURES, _line(record))

    def write_tables(self, rows: Sequence[Row], keys: Keys) -> Plan:
        """Write manifest.jsonl and failed.jsonl from the markers that are there now; return what is left to do.

        Several shards may do this at the same time: the one that writes last has seen all markers, because each lists
        them again after writing.
        """
        while True:
            self.refresh()
            seen = {row: set(markers) for row, markers in self._markers.items()}
            plan = self.plan(rows, keys)
            for name, table in ((MANIFEST, plan.done), (FAILURES, plan.failed)):
                lines = [table[row.id] for row in rows if row.id in table]
                self.store.write(name, b"".join(_line(record) for record in lines))
            self.refresh()
            if seen == self._markers:
                return plan

    def _record_of(self, row: Row, keys: Keys) -> Record | None:
        """The record of the row's present content; None if it is not finished."""
        markers = self._markers.get(row_name(row.id), set())
        for status, key in sorted(markers):
            record = self._lines.get(f"{status} {row_name(row.id)}-{key}")
            if record is None:
                record = _parsed(self.store.read(_marker(status, row, key)) or b"")
                self._remember(record)
            if record is not None and keys.key(row, content_of(row, record.get("content"))) == key:
                return record
        return None

    def _remember(self, record: Record | None) -> None:
        if record is not None:
            name = f"{record['status']} {row_name(record['id'])}-{record['key']}"
            self._lines[name] = record


def _marker(status: str, row: Row, key: str) -> str:
    return f"batch/{status}/{row_name(row.id)}-{key}.json"


def _line(record: Record) -> bytes:
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")


def _parsed(line: bytes) -> Record | None:
    """The record in a line; None if it is damaged."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and all(isinstance(record.get(name), str) for name in ("id", "status", "key"))
    return record if whole and record["status"] in (DONE, FAILED) else None
