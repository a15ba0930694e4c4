"""What the command line shows: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from maskless.data.errors import MasklessError
from maskless.interfaces.tables import print_rows, printable

if TYPE_CHECKING:
    from maskless.data.config import EditConfig
    from maskless.data.result import EditResult, StepRecord
    from maskless.engine.fill_run import FillRun
    from maskless.engine.sequence_run import SequenceRun
    from maskless.interfaces.gallery import Shown
    from maskless.models.pretrained import EditModels
    from maskless.records.outputs import SavedEdit

PLAIN_LINES = 20
"""How many progress lines at most go to a log, where a bar cannot be drawn."""


class EditConsole:
    """Reports an edit: everything but the result goes to stderr; quiet says nothing; json prints the record alone."""

    def __init__(self, *, quiet: bool = False, json_only: bool = False) -> None:
        self._quiet, self._json = quiet, json_only
        self._err = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._out = Console(quiet=quiet or json_only, highlight=False, soft_wrap=True)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A spinner while something without steps is going on."""
        if self._quiet or not self._err.is_terminal:
            yield
            return
        with self._err.status(what):
            yield

    def fetching(self, models: str, *, config: EditConfig, **parts: str | None) -> None:
        """Download what of the models is not on this disk yet, with bars where somebody sees them. parts: the named
        ones of dino, clip and redraw."""
        from maskless.models.pretrained import fetch_models

        shown = not self._quiet and self._err.is_terminal
        fetch_models(models, **parts, offline=config.offline, allow_pickle=config.allow_pickle, progress=shown)

    def models_loaded(self, models: EditModels, seconds: float) -> None:
        """What was loaded, and onto what."""
        size = models.inpainter.native_px
        dtype = str(models.dtype).removeprefix("torch.")
        self._err.print(f"[bold]Models[/]   {size} × {size} pixels, on {models.device}, {dtype}, in {seconds:.1f} s")
        if models.placement:
            self._err.print(f"[bold]Memory[/]   {models.memory}: {models.placement}")

    def started(self, anchors: int, sizes: int, resumed: str | None) -> None:
        """What the search begins with. resumed: which checkpoint it goes on from, and with how much of it."""
        self._err.print(f"[bold]Regions[/]  {anchors} anchors × {sizes} sizes = {anchors * sizes} boxes to choose from")
        if resumed:
            self._err.print(f"[bold]Resumed[/]  {escape(resumed)}")

    def filling(self, run: FillRun | SequenceRun) -> None:
        """What begins where no single search is made."""
        request = run.request
        share = "" if request.mask is None else f"{100 * float(request.mask.float().mean()):.1f} % of the picture, "
        prompt = f"“{request.prompt}”" if request.prompt.strip() else "what is around it"
        self._err.print(f"[bold]Region[/]   {share}to show {escape(prompt)}: {run.total_iterations} steps")

    @contextmanager
    def progress(self, done: int, total: int) -> Iterator[_Progress]:
        """A bar of iterations (x/N, loss, time left), or some plain lines where stderr is no terminal."""
        progress = _Progress(self._err, done, total)
        try:
            yield progress
        finally:
            progress.stop()

    def finished(self, result: EditResult, saved: SavedEdit) -> None:
        """What was found, and where the pictures are; with json the whole record, and nothing else, on stdout."""
        if self._json:
            print(json.dumps({**saved.record, "folder": str(saved.folder)}, ensure_ascii=False, allow_nan=False))
            return
        best = result.order[0]
        x0, y0, x1, y1 = result.best.box_xyxy
        learned, cost = result.anchor_net, result.cost
        around = f", around anchor {int(result.candidates.regions.anchor_index[best])}," if result.anchors else ""
        rows = [
            ("Found", f"the {x1 - x0} × {y1 - y0} box at ({x0}, {y0}){around} is the best of "
                      f"{len(result.candidates)}: score {float(result.scores[best]):.3f}"),
            *([] if learned is None else [("Learned",
                f"expected loss {learned.expected_loss_before:.4f} → {learned.expected_loss_after:.4f} "
                f"over {len(result.history)} iterations")]),
            ("Cost", f"{cost.inpaintings} inpaintings, {cost.unet_forwards} UNet forwards, "
                     f"{sum(cost.seconds.values()):.1f} s, {cost.peak_memory_mb:.0f} MB"),
            ("Best", str(saved.final)),
            ("All", f"{saved.folder / 'results'}"),
            ("Overview", str(saved.overview)),
            ("Report", str(saved.report)),
        ]  # fmt: skip
        for name, text in rows:
            self._out.print(f"[bold]{name:<9}[/]", end="")
            self._out.print(text, markup=False)


class _Progress:
    """Iterations done, as a bar or as lines."""

    def __init__(self, console: Console, done: int, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console, self._total, self._first = console, total, done
        self._began = time.monotonic()
        self._bar = None
        if console.is_terminal and not console.quiet and total:
            self._bar = Progress(
                TextColumn("[bold]Search[/]  "), BarColumn(), MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn(compact=True), TextColumn("left"),
                console=console, speed_estimate_period=600,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("search", total=total, completed=done, loss="–")

    def update(self, record: StepRecord) -> None:
        """Show an iteration that is complete."""
        if self._bar is not None:
            self._bar.update(self._task, completed=record.iteration, loss=f"{record.loss:.4f}")
            return
        if record.iteration % max(1, self._total // PLAIN_LINES) and record.iteration != self._total:
            return
        each = (time.monotonic() - self._began) / max(record.iteration - self._first, 1)
        left = each * (self._total - record.iteration)
        self._console.print(f"Search   {record.iteration}/{self._total}  loss {record.loss:.4f}  {left:.0f} s left")

    def stop(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.stop()


class GalleryConsole:
    """Reports a gallery: progress on stderr, the page's place on stdout; with json a list of what was made, alone."""

    def __init__(self, *, json_only: bool = False) -> None:
        self._json = json_only
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """A spinner, where a terminal can show one."""
        return self._err.status(what) if self._err.is_terminal else nullcontext()

    def show(self, gallery: Iterator[Shown], titles: Sequence[str], folder: Path) -> None:
        """A line for every picture as it is done, then where the page is.

        Raises:
            MasklessError: when all is done, if some of it was not possible.
        """
        done: list[Shown] = []
        while True:
            number = min(len(done) + 1, len(titles))
            with self.waiting(f"{number}/{len(titles)} {titles[number - 1]}"):
                shown = next(gallery, None)
            if shown is None:
                break
            done.append(shown)
            told = "there already" if shown.kept else f"{shown.facts.get('seconds', 0):.1f} s"
            if shown.problem is not None:
                told = f"[yellow]not possible:[/] {printable(shown.problem)}"
            self._err.print(f"{len(done):>2}/{len(titles)}  {shown.exhibit.file:<25} {told}")
        if self._json:
            print(json.dumps([self._entry(shown) for shown in done], ensure_ascii=False, allow_nan=False))
        else:
            print(f"Page     {folder / 'index.html'}")
        failed = [shown.exhibit.task for shown in done if shown.problem is not None]
        if failed:
            raise MasklessError(f"{len(failed)} of {len(done)} edits were not possible: {', '.join(failed)}")

    @staticmethod
    def _entry(shown: Shown) -> dict[str, Any]:
        exhibit, left_out = shown.exhibit, ("asked", "mask", "prompt")
        told = {name: value for name, value in shown.facts.items() if name not in left_out}
        asked = {"task": exhibit.task, "caption": exhibit.caption, "prompt": exhibit.prompt}
        return {"file": str(shown.path), **asked, **told, "problem": shown.problem}


class EvaluationConsole:
    """Reports an evaluation: progress and files on stderr, its rows on stdout."""

    def __init__(self, *, json_only: bool = False) -> None:
        self._json = json_only
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def measuring(self, suite: str) -> Iterator[Callable[[int, int], None]]:
        """Gives what a suite tells its progress to, (done, of how many): a bar, or some plain lines for a log."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        told = [0]

        def as_lines(done: int, total: int) -> None:
            if done == total or done * PLAIN_LINES // total > told[0]:
                told[0] = done * PLAIN_LINES // total
                self._err.print(f"{suite}  {done}/{total} measured")

        if not self._err.is_terminal:
            yield as_lines
            return
        bar = Progress(
            TextColumn(f"[bold]{escape(suite)}[/]"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(compact=True), TextColumn("left"), console=self._err, speed_estimate_period=3600,
        )  # fmt: skip
        with bar:
            task = bar.add_task(suite, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def note(self, line: str) -> None:
        """Something to know about the figures."""
        self._err.print(escape(line))

    def measured(self, rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> None:
        """The figures, and where they were written."""
        print_rows(rows, as_json=self._json)
        for file in files:
            self._err.print(f"[bold]Written[/]  {escape(str(file))}")
