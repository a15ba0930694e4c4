"""What a run says of itself, and what can be seen of a run that was killed."""

import json
from dataclasses import asdict

import pytest

from maskless.batch.shards import Shard
from maskless.batch.state import RunState, StateFile, begin_state, read_states
from maskless.batch.stores import open_store


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path))


def test_a_run_counts_its_rows(store):
    file = StateFile(store, RunState(engine="local", shard="0-of-1", rows=4, total=4, done=1))
    file.took("w", "7", 1)
    file.finished("w", failed=False)
    file.took("w", "8", 2)
    file.finished("w", failed=True)
    file.took("w", "9", 1)
    (state,) = read_states(store)
    assert (state.done, state.failed, state.left, state.made) == (2, 1, 1, 2) and state.is_alive()
    assert state.workers["w"].row == "9" and state.per_minute is not None
    file.ended(complete=True)
    (state,) = read_states(store)
    assert not state.is_alive() and state.workers["w"].row is None


def test_the_next_run_knows_which_row_a_dead_one_was_at(store):
    file = StateFile(store, RunState(engine="local", shard="0-of-1", rows=4, total=4, process_start="another"))
    file.took("w", "7", 2)
    assert not read_states(store)[0].is_alive()
    new = RunState(engine="local", shard="0-of-2", rows=4, total=2)
    _file, tries = begin_state(store, new, Shard(index=0, count=2))
    assert tries == {"7": 2}
    assert [state.shard for state in read_states(store)] == ["0-of-2"], "states of another division are removed"


def test_damaged_states_are_left_out(store):
    good = asdict(RunState(engine="local", shard="0-of-1", rows=4, total=4))
    for number, content in enumerate([b"", b"[]", b"{}", json.dumps(good | {"x": 1}).encode()]):
        store.write(f"batch/state/{number}.json", content)
    assert read_states(store) == []
