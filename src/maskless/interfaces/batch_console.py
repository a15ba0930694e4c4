"""What `maskless batch` prints: progress on stderr, the place of the results on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from maskless.interfaces.tables import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from maskless.batch.journal import Plan
    from maskless.batch.manifest import Manifest
    from maskless.batch.rows import Row
    from maskless.batch.worker import Outcome, Worker
    from maskless.data.result import StepRecord

PLAIN_LINES = 20
"""How many progress lines at most go to a log, where a bar cannot be drawn; failures are always printed."""


class BatchConsole:
    """Reports a batch: bars for all rows and for the present picture on a terminal, a line now and then in a log."""

    def __init__(self, *, quiet: bool = False, json_only: bool = False) -> None:
        """quiet: print only errors. json_only: print the counts as JSON on stdout in place of the summary."""
        self._quiet, self._json = quiet, json_only
        self._err = Console(stderr=True, quiet=quiet, highlight=False, emoji=False, soft_wrap=True)
        self._bars: Progress | None = None
        self._all: TaskID | None = None
        self._row: TaskID | None = None
        self._training: TaskID | None = None
        self._total, self._ended, self._failed, self._lines = 0, 0, 0, 0
        self._began: float | None = None

    def checked(self, manifest: Manifest, rows: int) -> None:
        """Print how large the manifest is. rows: how many of its rows are this process's own."""
        share = "" if rows == len(manifest.rows) else f", {rows:,} of them in this shard"
        left_out = f", {len(manifest.problems):,} left out" if manifest.problems else ""
        self._err.print(f"[bold]Batch[/]    {len(manifest.rows):,} rows{share}{left_out}")
        self._total = rows

    @contextmanager
    def running(self) -> Iterator[None]:
        """Show the bars while the batch runs."""
        if self._err.is_terminal and not self._quiet:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("[bold]{task.description:<9}[/]"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"), TimeRemainingColumn(compact=True), TextColumn("left"),
                console=self._err, speed_estimate_period=3600,
            )  # fmt: skip
            self._all = self._bars.add_task("Rows", total=self._total, rate="")
            self._bars.start()
        try:
            yield
        finally:
            if self._bars is not None:
                self._bars.stop()

    def loaded(self, worker: Worker) -> None:
        """Print what the models run on."""
        models = worker.models
        dtype = str(models.dtype).removeprefix("torch.")
        self._err.print(f"[bold]Models[/]   on {models.device}, {dtype}, {worker.settings.threads} CPU threads")

    def skipped(self, done: int, failed: int) -> None:
        """Print how many rows are finished already."""
        if done or failed:
            before = f"{done:,} rows were edited before" + (f", {failed:,} failed before" if failed else "")
            self._err.print(f"[bold]Resumed[/]  {before}")
            self._total -= done + failed
            if self._bars is not None and self._all is not None:
                self._bars.update(self._all, total=self._total)

    def took(self, worker: str, row: Row) -> None:
        """A worker begins a row."""
        self._began = time.monotonic() if self._began is None else self._began
        if self._bars is not None and self._row is None:
            self._row = self._bars.add_task("Picture", total=None, rate="", visible=False)

    def step(self, row: Row, step: StepRecord) -> None:
        """The present picture has made a step."""
        if self._bars is not None and self._row is not None:
            self._bars.update(self._row, completed=step.step, total=step.total_steps, rate=row.id[:24], visible=True)

    def finished(self, outcome: Outcome) -> None:
        """A row is finished for good."""
        self._ended, self._failed = self._ended + 1, self._failed + outcome.failed
        rate = 60 * self._ended / max(time.monotonic() - (self._began or 0.0), 1.0)
        failed = f", {self._failed} failed" if self._failed else ""
        if outcome.failed:
            row, error = outcome.row, outcome.record["error"]
            self._err.print(f"[yellow]Failed[/]   line {row.line}, {printable(row.id)}: {printable(error)}")
        if self._bars is not None and self._all is not None:
            self._bars.update(self._all, completed=self._ended, rate=f"{rate:.1f} a minute{failed}")
            return
        due = self._ended * PLAIN_LINES // max(self._total, 1)
        if due > self._lines or self._ended == self._total:
            self._lines = due
            left = (self._total - self._ended) / rate
            self._err.print(
                f"Rows     {self._ended}/{self._total}{failed}, {rate:.1f} a minute, {left:.0f} minutes left"
            )

    def training(self, done: int, total: int) -> None:
        """So many pictures have been searched for the training of an AnchorNet."""
        if self._bars is not None:
            if self._training is None:
                self._training = self._bars.add_task("Lessons", total=total, rate="")
            self._bars.update(self._training, completed=done)
        elif done and (done == total or done * PLAIN_LINES // total > (done - 1) * PLAIN_LINES // total):
            self._err.print(f"Lessons  {done}/{total}")

    def note(self, line: str) -> None:
        """Print something that the user should know."""
        self._err.print(f"[bold]Note[/]     {escape(line)}")

    def summary(self, plan: Plan, place: str) -> None:
        """Print how the batch ended, and where its results are."""
        if self._json:
            counts = {"done": len(plan.done), "failed": len(plan.failed), "left": len(plan.todo), "output": place}
            print(json.dumps(counts, ensure_ascii=False))
            return
        failed = f", {len(plan.failed):,} failed (see {place}/batch/failed.jsonl)" if plan.failed else ""
        self._err.print(f"[bold]Done[/]     {len(plan.done):,} rows edited{failed}")
        if not self._quiet:
            print(f"Sheet    {place.rstrip('/')}/index.html")
