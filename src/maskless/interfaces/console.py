"""What the command line shows: progress on stderr, results on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from maskless.data.config import EditConfig
    from maskless.data.types import EditResult, StepRecord
    from maskless.engine.checkpoints import Checkpoint
    from maskless.engine.fill import FillRun
    from maskless.engine.outputs import SavedEdit
    from maskless.engine.sequence import SequenceRun
    from maskless.engine.status import CheckpointStatus, ResultStatus, Status
    from maskless.models.presets import Preset
    from maskless.models.pretrained import EditModels

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

    def fetching(self, models: str, *, dino: str | None, clip: str | None, config: EditConfig) -> None:
        """Download what of the models is not on this disk yet, with bars where somebody sees them."""
        from maskless.models.pretrained import fetch_models

        shown = not self._quiet and self._err.is_terminal
        fetch_models(
            models, dino=dino, clip=clip, offline=config.offline, allow_pickle=config.allow_pickle, progress=shown
        )

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


def print_checkpoint(checkpoint: Checkpoint, *, as_json: bool) -> None:
    """What a checkpoint holds: networks, their keys and sizes, options and progress."""
    from maskless.engine.checkpoints import checkpoint_parts

    parts = checkpoint_parts(checkpoint)
    if as_json:
        record = {
            "path": str(checkpoint.path),
            "origin": checkpoint.origin,
            "parts": {
                part.name: {
                    "state": "trained" if part.trained else "frozen",
                    "parameters": part.parameters,
                    "keys": {key: list(shape) for key, shape in part.keys.items()},
                }
                for part in parts
            },
            "config": dict(checkpoint.config),
            "progress": dict(checkpoint.progress),
            "models": dict(checkpoint.models),
        }
        print(json.dumps(record, ensure_ascii=False))
        return
    console = Console(highlight=False)
    kind = "Maskless" if checkpoint.origin == "maskless" else "the published release"
    console.print(f"[bold]{checkpoint.path}[/]\na checkpoint of {kind}, {checkpoint.sizes} box sizes")
    table = Table("Part", "State", "Tensors", "Parameters", "Keys", box=None, header_style="bold", pad_edge=False)
    for part in parts:
        keys = list(part.keys)
        shown = ", ".join(keys if len(keys) <= 8 else [*keys[:2], "…", keys[-1]]) or "left out"
        state = "[green]trained[/]" if part.trained else "frozen"
        table.add_row(part.name, state, f"{len(keys):,}", f"{part.parameters:,}", shown)
    console.print(table)
    for title, values in (("Progress", checkpoint.progress), ("Config", checkpoint.config)):
        if values:
            told = ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
            console.print(f"[bold]{title}[/]  {told}")


def print_status(status: Status, *, as_json: bool) -> None:
    """How a run stands."""
    if as_json:
        print(json.dumps(status.to_dict(), allow_nan=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    colour = {"running": "cyan", "complete": "green", "interrupted": "yellow"}.get(status.state, "default")
    progress = ""
    if status.percent is not None:
        progress = f", {status.iteration}/{status.total_iterations} iterations ({status.percent:.0f} %)"
    console.print(f"[bold]{'State':<12}[/][{colour}]{status.state}[/]{progress}")
    rows = [("Mode", status.mode)]
    if status.run is not None:
        run = status.run
        rows += [
            ("Process", f"{run.pid} on {run.host}, started {run.started}, last heard of {run.updated}"),
            ("Edit", f"{run.image or 'a picture'}: {run.caption or 'no caption'} → {run.prompt}"),
        ]
    rows += [("Models", "\n".join(f"{part:<11} {source}" for part, source in status.models.items()))]
    for name, text in rows:
        for number, line in enumerate(text.split("\n") if text else ()):
            console.print(f"[bold]{'' if number else name:<12}[/]{_plain(line)}")
    _checkpoint_table(console, status.checkpoints, status.checkpoint_dir)
    _result_table(console, status.results, status.output_dir)
    for problem in status.problems:
        console.print(f"[yellow]{'Problem':<12}[/]{_plain(' '.join(problem.split()))}")


def _checkpoint_table(console: Console, checkpoints: Sequence[CheckpointStatus], folder: str) -> None:
    console.print(f"[bold]{'Checkpoints':<12}[/]{len(checkpoints) or 'none'} in {_plain(folder)}")
    if not checkpoints:
        return
    table = _plain_table("File", "Size", "Iteration", "Holds (parameters)")
    for entry in checkpoints:
        parts = ", ".join(f"{name} {count:,}" for name, count in entry.parts.items())
        at = "–" if entry.iteration is None else f"{entry.iteration}/{entry.total_iterations}"
        holds = "[yellow]damaged[/]" if entry.problem else _plain(parts)
        table.add_row(_plain(entry.file), f"{entry.size_bytes / 1e6:.1f} MB", at, holds)
    console.print(table)


def _result_table(console: Console, results: Sequence[ResultStatus], folder: str) -> None:
    console.print(f"[bold]{'Results':<12}[/]{len(results) or 'none'} in {_plain(folder)}")
    if not results:
        return
    table = _plain_table("Folder", "Prompt", "Scores, best first")
    for entry in results:
        shown = [_cell(score) for score in entry.scores[:5]] + (["…"] if len(entry.scores) > 5 else [])
        scores = " ".join(shown) + ("[yellow] damaged or incomplete[/]" if entry.problem else "")
        table.add_row(_plain(entry.folder), _plain(entry.prompt or "–"), scores)
    console.print(table)


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _plain(text: str) -> str:
    """A text from a file that may hold anything, for a terminal."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def print_presets(presets: Sequence[tuple[Preset, bool]], *, as_json: bool) -> None:
    """The presets, each with whether all its files are on this disk."""
    if as_json:
        records = [
            {
                "name": preset.name, "kind": preset.kind, "inpainting": list(preset.inpainting) or None,
                "dino": preset.dino if preset.inpainting else None, "clip": preset.clip if preset.inpainting else None,
                "licence": preset.licence, "gated": preset.gated, "native_px": preset.native_px,
                "download_gb": round(preset.download_gb, 1), "memory_gb": round(preset.memory_gb, 1), "on_disk": there,
            }
            for preset, there in presets
        ]  # fmt: skip
        print(json.dumps(records, ensure_ascii=False))
        return
    table = _plain_table("Name", "Pixels", "Download", "Memory", "On disk", "Licence")
    for preset, there in presets:
        notes = [
            preset.licence,
            *(["gated"] if preset.gated else []),
            *(["edits by instruction"] * (preset.kind != "inpainting")),
        ]
        table.add_row(
            preset.name,
            str(preset.native_px),
            f"{preset.download_gb:.1f} GB" if preset.inpainting else "bundled",
            f"{preset.memory_gb:.1f} GB",
            "[green]yes[/]" if there else "no",
            _plain(", ".join(notes)),
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        "Sizes are of the weights, computed from the architectures; an edit needs memory on top. See docs/models.md."
    )


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Rows of an evaluation, {suite, method, task, metric, value, low, high, n}, as a table or a JSON list."""
    if as_json:
        print(json.dumps([dict(row) for row in rows], ensure_ascii=False))
        return
    columns = list(rows[0]) if rows else []
    table = Table(header_style="bold", box=None, pad_edge=False)
    numbers = {name for name in columns if any(isinstance(row.get(name), (int, float)) for row in rows)}
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    Console(highlight=False).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
