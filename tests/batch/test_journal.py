"""Markers and the tables that are made from them."""

import json

import pytest

from batch_tools import write_pictures
from maskless.batch.journal import FAILURES, MANIFEST, Journal
from maskless.batch.keys import Keys, content_of
from maskless.batch.rows import checked_row
from maskless.batch.stores import open_store
from maskless.data.config import EditConfig


@pytest.fixture
def rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = write_pictures(tmp_path, 3)
    return [checked_row(n, str(n), {"image": name, "prompt": "x"}, EditConfig()) for n, name in enumerate(names)]


KEYS = Keys(base="b")


def record(row, status="done", key=None):
    content = content_of(row)
    return {"id": row.id, "status": status, "key": key or KEYS.key(row, content), "content": content.to_dict()}


def test_the_plan_is_what_has_no_marker(rows):
    store = open_store("output")
    journal = Journal(store)
    journal.refresh()
    assert not journal.has_any(rows) and journal.plan(rows, KEYS).todo == tuple(rows)
    assert journal.finish(rows[0], record(rows[0])) and not journal.finish(rows[0], record(rows[0]))
    journal.fail(rows[1], record(rows[1], "failed"))
    again = Journal(store)
    again.refresh()
    plan = again.plan(rows, KEYS)
    assert (plan.todo, list(plan.done), list(plan.failed)) == ((rows[2],), ["0"], ["1"]) and again.has_any(rows)
    assert again.plan(rows, KEYS, retry_failed=True).todo == (rows[1], rows[2])
    assert again.plan(rows, Keys(base="c")).todo == tuple(rows), "other options give other keys"
    again.forget(rows[0])
    again.refresh()
    assert again.plan(rows, KEYS).todo == (rows[0], rows[2])


def test_tables_are_in_the_manifests_order_and_survive_damage(rows):
    store = open_store("output")
    journal = Journal(store)
    for row in (rows[2], rows[0]):
        journal.finish(row, record(row))
        journal.append(record(row))
    store.append(MANIFEST, b'{"id": "1", "sta')
    store.write("batch/done/0000-1111.json", b"{")
    plan = journal.write_tables(rows, KEYS)
    assert [row.id for row in plan.todo] == ["1"]
    lines = (store.read(MANIFEST) or b"").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["0", "2"] and store.read(FAILURES) == b""


def test_a_marker_that_comes_while_the_table_is_written_is_in_it(rows, monkeypatch):
    store = open_store("output")
    journal, other = Journal(store), Journal(store)
    journal.finish(rows[0], record(rows[0]))
    write = store.write

    def with_a_late_marker(name, content):
        write(name, content)
        other.finish(rows[1], record(rows[1]))

    monkeypatch.setattr(store, "write", with_a_late_marker)
    assert set(journal.write_tables(rows, KEYS).done) == {"0", "1"}
    assert len((store.read(MANIFEST) or b"").splitlines()) == 2
