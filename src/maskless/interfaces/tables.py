"""What the commands print about checkpoints, runs, models and evaluations: tables, or JSON for a program."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maskless.interfaces.checks import json_text

if TYPE_CHECKING:
    from maskless.batch.status import BatchStatus
    from maskless.models.presets import Preset
    from maskless.records.checkpoints import Checkpoint
    from maskless.records.status import CheckpointStatus, ResultStatus, Status


def print_checkpoint(checkpoint: Checkpoint, *, as_json: bool) -> None:
    """Print what a checkpoint holds: its networks with their keys and sizes, the options, and the progress."""
    from maskless.records.checkpoints import checkpoint_parts

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
        print(json_text(record))
        return
    console = Console(highlight=False, emoji=False)
    kind = "Maskless" if checkpoint.origin == "maskless" else "the published release"
    console.print(f"[bold]{printable(str(checkpoint.path))}[/]\na checkpoint of {kind}, {checkpoint.sizes} box sizes")
    table = Table("Part", "State", "Tensors", "Parameters", "Keys", box=None, header_style="bold", pad_edge=False)
    for part in parts:
        keys = list(part.keys)
        names = ", ".join(keys if len(keys) <= 8 else [*keys[:2], "…", keys[-1]]) or "left out"
        state = "[green]trained[/]" if part.trained else "frozen"
        table.add_row(printable(part.name), state, f"{len(keys):,}", f"{part.parameters:,}", printable(names))
    console.print(table)
    for title, values in (("Progress", checkpoint.progress), ("Config", checkpoint.config)):
        if values:
            listed = ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
            console.print(f"[bold]{title}[/]  {printable(listed)}")


def print_status(status: Status, *, as_json: bool) -> None:
    """Print the state of a run, its checkpoints and its results."""
    if as_json:
        print(json_text(status.to_dict()))
        return
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    colour = {"running": "cyan", "complete": "green", "interrupted": "yellow"}.get(status.state, "default")
    progress = ""
    if status.percent is not None:
        progress = f", {status.step}/{status.total_steps} steps ({status.percent:.0f} %)"
    console.print(f"[bold]{'State':<12}[/][{colour}]{status.state}[/]{progress}")
    rows: list[tuple[str, str]] = []
    if status.run is not None:
        run = status.run
        texts = (run.caption or "no caption", run.prompt)  # a removal has no prompt
        rows += [
            ("Process", f"{run.pid} on {run.host}, started {run.started}, last heard of {run.updated}"),
            ("Edit", f"{run.image or 'a picture'}: {' → '.join(filter(None, texts))}"),
        ]
    rows += [("Models", "\n".join(f"{part:<11} {source}" for part, source in status.models.items()))]
    for name, text in rows:
        for number, line in enumerate(text.split("\n") if text else ()):
            console.print(f"[bold]{'' if number else name:<12}[/]{printable(line)}")
    _checkpoint_table(console, status.checkpoints, status.checkpoint_dir)
    _result_table(console, status.results, status.output_dir)
    for problem in status.problems:
        console.print(f"[yellow]{'Problem':<12}[/]{printable(' '.join(problem.split()))}")


def print_batch_status(status: BatchStatus, *, as_json: bool) -> None:
    """Print the state of a batch: its rows, its rate, and what each worker does."""
    if as_json:
        print(json_text(status.to_dict()))
        return
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    colour = {"running": "cyan", "complete": "green", "interrupted": "yellow"}.get(status.state, "default")
    share = 100 * (status.done + status.failed) / max(status.rows, 1)
    console.print(f"[bold]{'State':<12}[/][{colour}]{status.state}[/], {share:.0f} % of {status.rows:,} rows")
    invalid = f", {status.invalid:,} not valid" if status.invalid else ""
    console.print(f"[bold]{'Rows':<12}[/]{status.done:,} done, {status.failed:,} failed, {status.left:,} left{invalid}")
    if status.per_minute is not None and status.minutes_left is not None:
        left = f", {status.minutes_left:,.0f} minutes left" if status.left else ""
        console.print(f"[bold]{'Rate':<12}[/]{status.per_minute:.1f} a minute{left}")
    console.print(f"[bold]{'Results':<12}[/]{printable(status.output_dir)}")
    table = _plain_table("Shard", "State", "Worker", "Done", "Failed", "Editing now")
    for run in status.runs:
        alive = run.is_alive()
        state = run.state if alive or run.state != "running" else "died"
        first = (run.shard.replace("-of-", "/"), state)
        for name, worker in run.workers.items():
            counts = (f"{worker.done:,}", f"{worker.failed:,}")
            table.add_row(*first, printable(name), *counts, printable(worker.row or "–"))
            first = ("", "")
        if not run.workers:
            table.add_row(*first, "–", "–", "–", "–")
    console.print(table)


def _checkpoint_table(console: Console, checkpoints: Sequence[CheckpointStatus], folder: str) -> None:
    console.print(f"[bold]{'Checkpoints':<12}[/]{len(checkpoints) or 'none'} in {printable(folder)}")
    if not checkpoints:
        return
    table = _plain_table("File", "Size", "Step", "Holds (parameters)")
    for entry in checkpoints:
        parts = ", ".join(f"{name} {count:,}" for name, count in entry.parts.items())
        at = "–" if entry.step is None else f"{entry.step}/{entry.total_steps}"
        holds = "[yellow]damaged[/]" if entry.problem else printable(parts)
        table.add_row(printable(entry.file), f"{entry.size_bytes / 1e6:.1f} MB", at, holds)
    console.print(table)


def _result_table(console: Console, results: Sequence[ResultStatus], folder: str) -> None:
    console.print(f"[bold]{'Results':<12}[/]{len(results) or 'none'} in {printable(folder)}")
    if not results:
        return
    table = _plain_table("Folder", "Prompt", "Scores, best first")
    for entry in results:
        best = [_cell(score) for score in entry.scores[:5]] + (["…"] if len(entry.scores) > 5 else [])
        scores = " ".join(best) + ("[yellow] damaged or incomplete[/]" if entry.problem else "")
        table.add_row(printable(entry.folder), printable(entry.prompt or "–"), scores)
    console.print(table)


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def printable(text: str) -> str:
    """A text that may hold anything, without what a terminal would obey and with the markup of rich escaped."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def print_presets(presets: Sequence[tuple[Preset, bool]], *, as_json: bool) -> None:
    """Print the presets. presets: each with whether all its files are on this disk."""
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
        print(json_text(records))
        return
    table = _plain_table("Name", "Pixels", "Download", "Memory", "On disk", "Licence")
    for preset, there in presets:
        notes = [
            preset.licence,
            *(["gated"] if preset.gated else []),
            *(["edits by instruction"] * (preset.kind == "instruction")),
        ]
        table.add_row(
            preset.name,
            str(preset.native_px),
            f"{preset.download_gb:.1f} GB" if preset.inpainting else "bundled",
            f"{preset.memory_gb:.1f} GB",
            "[green]yes[/]" if there else "no",
            printable(", ".join(notes)),
        )
    console = Console(highlight=False, emoji=False, soft_wrap=True)
    console.print(table)
    console.print(
        "Sizes are of the weights, computed from the architectures; an edit needs memory on top. See docs/models.md."
    )


def print_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows of an evaluation, {suite, method, task, metric, value, low, high, n}, as a table or a JSON list."""
    if as_json:
        print(json_text([_plain_numbers(row) for row in rows]))
        return
    columns = list(rows[0]) if rows else []
    table = Table(header_style="bold", box=None, pad_edge=False)
    numbers = {name for name in columns if any(isinstance(row.get(name), (int, float)) for row in rows)}
    for name in columns:
        table.add_column(printable(name), justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    Console(highlight=False, emoji=False).print(table)


def _plain_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with None for every number that JSON cannot hold: infinities and NaN."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value))
