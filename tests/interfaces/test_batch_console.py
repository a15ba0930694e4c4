"""What a batch prints in a log: a line now and then, every failure, and the counts at the end."""

import json

import pytest

from maskless.batch.journal import Plan
from maskless.batch.manifest import Manifest
from maskless.batch.rows import checked_row
from maskless.batch.worker import Outcome, base_record
from maskless.data.config import EditConfig
from maskless.interfaces.batch_console import PLAIN_LINES, BatchConsole


@pytest.fixture
def rows():
    return tuple(
        checked_row(n, f"[b]{n}\x1b", {"image": "a.png", "prompt": "x"}, EditConfig()) for n in range(3 * PLAIN_LINES)
    )


def outcome(row, status):
    return Outcome(row=row, record=base_record(row, "k", status, 1.0, worker="w") | {"error": "it [b]broke\n"})


def test_a_log_has_few_lines_and_every_failure(rows, capsys):
    console = BatchConsole()
    console.checked(Manifest(source="rows.csv", rows=rows, problems=()), len(rows))
    console.skipped(0, 0)
    for number, row in enumerate(rows):
        console.took("w", row)
        console.finished(outcome(row, "failed" if number in (4, 7) else "done"))
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert sum(line.startswith("Rows ") for line in lines) == PLAIN_LINES
    assert [line for line in lines if line.startswith("Failed")][0] == "Failed   line 4, [b]4 : it [b]broke "
    assert lines[-1].startswith(f"Rows     {len(rows)}/{len(rows)}, 2 failed, ") and "\x1b" not in err


def test_the_summary(rows, capsys):
    plan = Plan(todo=(), done={"0": {}, "1": {}}, failed={"2": {}})
    BatchConsole().summary(plan, "output")
    captured = capsys.readouterr()
    assert captured.out == "Sheet    output/index.html\n" and "2 rows edited, 1 failed" in captured.err
    BatchConsole(json_only=True).summary(plan, "output")
    assert json.loads(capsys.readouterr().out) == {"done": 2, "failed": 1, "left": 0, "output": "output"}
