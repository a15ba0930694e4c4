"""The status of a batch, while it runs and afterwards."""

import json
from pathlib import Path

import pytest

from batch_tools import write_pictures
from maskless.batch.journal import Journal
from maskless.batch.keys import Keys
from maskless.batch.rows import checked_row
from maskless.batch.state import RunState, StateFile
from maskless.batch.status import read_batch_status
from maskless.batch.stores import open_store
from maskless.batch.worker import base_record
from maskless.data.config import EditConfig


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return open_store("output")


def finish(store, number: int, status: str = "done") -> None:
    (name,) = write_pictures(Path(), 1)
    row = checked_row(1, str(number), {"image": name, "prompt": "x"}, EditConfig())
    record = base_record(row, Keys(base="b").base, status, 1.0, worker="w")
    journal = Journal(store)
    journal.finish(row, record) if status == "done" else journal.fail(row, record)


def test_nothing_is_no_batch(store):
    assert read_batch_status("output") is None


def test_a_batch_that_runs_and_then_died(store, maskless):
    first = StateFile(store, RunState(engine="local", shard="0-of-2", rows=9, total=5))
    for number in range(3):
        finish(store, number)
        first.took("here 1", str(number), 1)
        first.finished("here 1", failed=False)
    finish(store, 3, "failed")
    first.took("here 1", "[b]4", 1)
    StateFile(store, RunState(engine="local", shard="1-of-2", rows=9, total=4, process_start="of another"))
    status = read_batch_status("output")
    assert status is not None and status.state == "running"
    assert (status.rows, status.done, status.failed, status.left) == (9, 3, 1, 5)
    assert status.per_minute is not None and status.minutes_left is not None
    code, out, _err = maskless("status")
    assert code == 0 and "running, 44 % of 9 rows" in out and "3 done, 1 failed, 5 left" in out
    assert "[b]4" in out and "0/2" in out and "died" in out
    code, out, _err = maskless("status", "--json")
    found = json.loads(out)
    assert (found["state"], found["runs"][0]["workers"]["here 1"]["row"]) == ("running", "[b]4")
    first.ended(complete=False)
    after = read_batch_status("output")
    assert after is not None and after.state == "interrupted"
