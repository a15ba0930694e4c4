"""What the command line prints: progress on stderr, results on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from maskless.data.errors import MasklessError
from maskless.interfaces.checks import json_text
from maskless.interfaces.tables import print_rows, printable
from maskless.records.names import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from maskless.data.model_options import ModelOptions
    from maskless.data.result import EditResult, StepRecord
    from maskless.engine.run import Run
    from maskless.interfaces.gallery import FinishedExhibit
    from maskless.models.pretrained import EditModels
    from maskless.records.outputs import SavedEdit


class Interrupted(Exception):
    """Ctrl-C in the middle of work. The message says how the user can continue."""


PLAIN_LINES = 20
"""How many progress lines at most go to a log, where a bar cannot be drawn."""


class EditConsole:
    """Reports an edit: its progress on stderr, its result on stdout."""

    def __init__(self, *, quiet: bool = False, json_only: bool = False) -> None:
        """quiet: print nothing. json_only: print the edit's record as JSON on stdout in place of the result."""
        self._quiet, self._json = quiet, json_only
        self._err = Console(stderr=True, quiet=quiet, highlight=False, emoji=False, soft_wrap=True)
        self._out = Console(quiet=quiet or json_only, highlight=False, emoji=False, soft_wrap=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Show a spinner on a terminal while work is done that has no steps."""
        if self._quiet or not self._err.is_terminal:
            yield
            return
        with self._err.status(what):
            yield

    def fetching(self, models: ModelOptions) -> None:
        """Download the models that are not on this disk yet; a terminal shows progress bars."""
        from maskless.models.sources import fetch_models

        fetch_models(models, progress=not self._quiet and self._err.is_terminal)

    def models_loaded(self, models: EditModels, seconds: float) -> None:
        """Print what was loaded, where it runs, and what its memory level does."""
        size = models.inpainter.native_px
        dtype = str(models.dtype).removeprefix("torch.")
        self._err.print(f"[bold]Models[/]   {size} × {size} pixels, on {models.device}, {dtype}, in {seconds:.1f} s")
        if models.placement:
            self._err.print(f"[bold]Memory[/]   {models.memory}: {printable(models.placement)}")

    @contextmanager
    def progress(self, run: Run, resumed: str | None) -> Iterator[_Progress]:
        """Give what reports the steps of a run (x/N, loss, time left): a bar on a terminal, else at most PLAIN_LINES
        lines.

        resumed: which checkpoint the run continues from, and from how much of it; None for a new run.
        """
        if resumed:
            self._err.print(f"[bold]Resumed[/]  {printable(resumed)}")
        progress = _Progress(self._err, run)
        try:
            yield progress
        finally:
            progress.stop()

    def finished(self, result: EditResult, saved: SavedEdit) -> None:
        """Print what was found and where the pictures are, or with json_only the whole record."""
        if self._json:
            record = {**saved.record, "folder": str(saved.folder)}
            print(json_text(record))
            return
        best = result.order[0]
        x0, y0, x1, y1 = result.best.box_xyxy
        learned, cost = result.anchor_net, result.cost
        around = f", around anchor {int(result.candidates.regions.anchor_index[best])}," if learned else ""
        rows = [
            ("Found", f"the {x1 - x0} × {y1 - y0} box at ({x0}, {y0}){around} is the best of "
                      f"{len(result.candidates)}: score {float(result.scores[best]):.3f}"),
            *([] if result.placement is None else [("Placed", result.placement.reason)]),
            *([] if learned is None else [("Learned",
                f"expected loss with location cost {learned.expected_loss_before:.4f} → "
                f"{learned.expected_loss_after:.4f} over {counted(len(result.drawn_steps), 'iteration')}")]),
            ("Cost", f"{counted(cost.inpaintings, 'inpainting')}, {counted(cost.unet_forwards, 'UNet forward')}, "
                     f"{sum(cost.seconds.values()):.1f} s, {cost.peak_memory_mb:.0f} MB"),
            ("Best", str(saved.final)),
            ("All", f"{saved.folder / 'results'}"),
            ("Overview", str(saved.overview)),
            ("Report", str(saved.report)),
        ]  # fmt: skip
        for name, text in rows:
            self._out.print(f"[bold]{name:<9}[/]", end="")
            self._out.print(printable(text))


class _Progress:
    """Reports the steps of a run: a spinner while the picture is read, then a bar or lines.

    Steps that an earlier run has made are not reported: they come before this run has read the picture.
    """

    def __init__(self, console: Console, run: Run) -> None:
        self._console, self._run = console, run
        self._made_before = len(run.history)
        self._began, self._first = time.monotonic(), 0
        self._region_printed = False
        self._work = "Search" if run.request.searches or run.request.task == "creative" else "Drawing"
        self._bar: Progress | None = None
        self._spinner = console.status("Looking at the picture") if console.is_terminal and not console.quiet else None
        if self._spinner is not None:
            self._spinner.start()

    def update(self, step: StepRecord) -> None:
        """Report a step that is complete; before the first one, the regions that the run chooses from."""
        if self._made_before:
            self._made_before -= 1
            return
        if not self._region_printed:
            self._begin(step)
        if self._bar is not None:
            self._bar.update(self._task, completed=step.step, loss=_loss(step))
            return
        total = step.total_steps
        if not step.step or step.step % max(1, total // PLAIN_LINES) and step.step != total:
            return
        left = (time.monotonic() - self._began) / max(step.step - self._first, 1) * (total - step.step)
        self._console.print(f"{self._work:<9}{step.step}/{total}  loss {_loss(step)}  {left:.0f} s left")

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._spinner is not None:
            self._spinner.stop()
        if self._bar is not None:
            self._bar.stop()

    def _begin(self, step: StepRecord) -> None:
        """Print the regions, and start the bar. step: the first one of this run, which is the look at the picture, or
        in a run that continues a step that drew something."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if self._spinner is not None:
            self._spinner.stop()
        self._console.print(_region_line(self._run))
        self._region_printed = True
        self._began, self._first = time.monotonic(), step.step
        if step.step:
            self._began, self._first = self._began - step.seconds, step.step - 1
        if self._spinner is not None and step.total_steps:
            self._bar = Progress(
                TextColumn(f"[bold]{self._work:<8}[/]"), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn(compact=True), TextColumn("left"),
                console=self._console, speed_estimate_period=600,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("search", total=step.total_steps, completed=self._first, loss="–")


def _loss(step: StepRecord) -> str:
    values = step.to_dict()
    return f"{values['loss']:.4f}" if "loss" in values else "–"


def _region_line(run: Run) -> str:
    """The regions that a search chooses from; for a fill, what it draws in its region. The picture has been read."""
    from maskless.engine.search_run import SearchRun

    if isinstance(run, SearchRun) and run.probabilities is None:
        return f"[bold]Regions[/]  {len(run.regions)} boxes to choose from"
    if run.probabilities is not None:
        anchors, sizes = run.probabilities.shape
        return f"[bold]Regions[/]  {anchors} anchors × {sizes} sizes = {anchors * sizes} boxes to choose from"
    prompt = run.request.prompt.strip()
    shown = f"drawn as “{printable(prompt)}”" if prompt else "filled with a continuation of its surroundings"
    return f"[bold]Region[/]   {shown}, {counted(run.total_steps, 'candidate')}"


class GalleryConsole:
    """Reports a gallery: its progress on stderr, the path of its page on stdout."""

    def __init__(self, *, json_only: bool = False) -> None:
        """json_only: print a JSON list of what was made on stdout in place of the path."""
        self._json = json_only
        self._err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """Show a spinner on a terminal while work is done that has no steps."""
        return self._err.status(what) if self._err.is_terminal else nullcontext()

    def show(self, gallery: Iterator[FinishedExhibit], titles: Sequence[str], folder: Path) -> None:
        """Print a line for every picture when it is finished, and at the end where the page is.

        Raises:
            MasklessError: some edits were not possible; raised after all others are finished.
        """
        finished: list[FinishedExhibit] = []
        while True:
            number = min(len(finished) + 1, len(titles))
            with self.waiting(f"{number}/{len(titles)} {printable(titles[number - 1])}"):
                latest = next(gallery, None)
            if latest is None:
                break
            finished.append(latest)
            outcome = "made before" if latest.kept else f"{latest.facts.get('seconds', 0):.1f} s"
            if latest.problem is not None:
                outcome = f"[yellow]not possible:[/] {printable(latest.problem)}"
            self._err.print(f"{len(finished):>2}/{len(titles)}  {latest.exhibit.file:<25} {outcome}")
        if self._json:
            entries = [self._entry(each) for each in finished]
            print(json_text(entries))
        else:
            print(f"Page     {folder / 'index.html'}")
        failed = [each.exhibit.task for each in finished if each.problem is not None]
        if failed:
            raise MasklessError(f"{len(failed)} of {len(finished)} edits were not possible: {', '.join(failed)}")

    @staticmethod
    def _entry(finished: FinishedExhibit) -> dict[str, Any]:
        exhibit, left_out = finished.exhibit, ("asked", "mask", "prompt")
        facts = {name: value for name, value in finished.facts.items() if name not in left_out}
        request = {"task": exhibit.task, "caption": exhibit.caption, "prompt": exhibit.prompt}
        return {"file": str(finished.path), **request, **facts, "problem": finished.problem}


class EvaluationConsole:
    """Reports an evaluation: its progress and its files on stderr, its rows on stdout."""

    def __init__(self, *, json_only: bool = False) -> None:
        """json_only: print the rows as a JSON list in place of a table."""
        self._json = json_only
        self._err = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

    @contextmanager
    def measuring(self, suite: str) -> Iterator[Callable[[int, int], None]]:
        """Give the function that a suite reports its progress to, progress(done, total): it moves a bar on a terminal,
        and else prints at most PLAIN_LINES lines."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        lines_printed = 0

        def as_lines(done: int, total: int) -> None:
            nonlocal lines_printed
            lines_due = done * PLAIN_LINES // max(total, 1)
            if done == total or lines_due > lines_printed:
                lines_printed = lines_due
                self._err.print(f"{printable(suite)}  {done}/{total} measured")

        if not self._err.is_terminal:
            yield as_lines
            return
        bar = Progress(
            TextColumn(f"[bold]{printable(suite)}[/]"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), TextColumn("left"), console=self._err, speed_estimate_period=3600,
        )  # fmt: skip
        with bar:
            task = bar.add_task(suite, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def note(self, line: str) -> None:
        """Print a remark about the figures."""
        self._err.print(printable(line))

    def measured(self, rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> None:
        """Print the rows, and the files that hold them."""
        print_rows(rows, as_json=self._json)
        for file in files:
            self._err.print(f"[bold]Written[/]  {printable(str(file))}")
