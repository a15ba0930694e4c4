"""The queue: how often a row is tried, and what becomes of it."""

import pytest

from batch_tools import records, write_pictures
from maskless.batch.engine import TRIES, Queue
from maskless.batch.journal import Journal
from maskless.batch.keys import Keys
from maskless.batch.rows import checked_row
from maskless.batch.state import RunState, StateFile
from maskless.batch.stores import open_store
from maskless.batch.worker import Outcome, base_record
from maskless.data.config import EditConfig
from maskless.interfaces.batch_console import BatchConsole


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [checked_row(1, n[0], {"image": n, "prompt": "x"}, EditConfig()) for n in write_pictures(tmp_path, 2)]


@pytest.fixture
def queue(rows):
    store = open_store("output")
    state = StateFile(store, RunState(engine="local", shard="0-of-1", rows=4, total=2))
    shown = BatchConsole(quiet=True)
    return Queue(rows, journal=Journal(store), keys=Keys(base="b"), state=state, reporter=shown, tries={"1": 2})


def outcome(row, *, may_retry):
    record = base_record(row, "k", "failed", 0.1, worker="w") | {"error": "it broke"}
    return Outcome(row=row, record=record, may_retry=may_retry)


def test_a_row_is_tried_three_times_if_that_may_help(queue, rows):
    for attempt in range(1, TRIES + 1):
        assert queue.next() == rows[0]
        queue.begin("w", rows[0])
        assert queue.end("w", outcome(rows[0], may_retry=True)) == (attempt == TRIES)
    assert records("output", "failed")[0]["tries"] == TRIES and queue.next() == rows[1]


def test_bad_input_is_tried_once(queue, rows):
    queue.begin("w", rows[0])
    assert queue.end("w", outcome(rows[0], may_retry=False))


def test_deaths_of_earlier_runs_count(queue, rows):
    queue.put_back(rows[1])
    assert queue.next() == rows[1]
    queue.begin("w", rows[1])
    assert queue.died(rows[1], "w", "it is gone")
    assert records("output", "failed")[0]["error"] == "it is gone"
    assert [queue.next(), queue.next(), queue.next()] == [rows[0], None, None] and not queue
    assert len(records("output", "failed")) == 2, "the other copy of the row has no try left"
