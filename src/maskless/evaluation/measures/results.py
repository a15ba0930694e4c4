"""The rows of a suite as files: JSON, CSV, Markdown tables and a plot, each figure with its 95 % interval."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from maskless.data.errors import one_line
from maskless.data.files import finite, write_bytes
from maskless.evaluation.measures.figures import FIGURES, heading
from maskless.evaluation.measures.rows import Row
from maskless.records.overview import ACCENT, FAINT, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = ("suite", "method", "task", "metric", "value", "low", "high", "n")
METRICS_IN_A_TABLE = 6
PANELS_IN_A_LINE = 4
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a text must not begin with in a CSV file, because a spreadsheet would compute it."""
MARKS = re.compile(r"([\\`*\[\]|~])")
TITLE_WIDTH = 36
"""The width of a panel's title, in letters."""
Grouping = Literal["task", "method", "metric"]


def write_results(rows: Sequence[Row], folder: Path, name: str, *, command: str) -> list[Path]:
    """Write NAME.json, .csv, .md and .png into a folder, each whole or not at all.

    command: the shell command that gives these figures again, for the Markdown.

    Raises:
        MasklessError: a file cannot be written.
    """
    contents = {
        "json": (json.dumps([plain(row) for row in rows], ensure_ascii=False, indent=1) + "\n").encode("utf-8"),
        "csv": _csv(rows).encode("utf-8"),
        "md": markdown(rows, name, command=command).encode("utf-8"),
        "png": draw_plot(rows, name),
    }
    files = []
    for suffix, content in contents.items():
        files.append(folder / f"{name}.{suffix}")
        write_bytes(files[-1], content)
    return files


def plain(row: Row) -> dict[str, object]:
    """The row with None for every number that is not finite, which JSON cannot express."""
    return {key: finite(value) if isinstance(value, float) else value for key, value in row.items()}


def markdown(rows: Sequence[Row], name: str, *, command: str) -> str:
    """One table for each task of several methods, with methods down and metrics across, one table for all other
    figures, and what the figures mean."""
    longest = max(map(len, re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    parts = [f"# {_literal(name)}", f"{fence}sh\n{command}\n{fence}"]
    parts.append("Means and shares, with 95 % intervals in brackets.")
    alone = []
    for task, each in _by(rows, "task").items():
        if len(_by(each, "method")) == 1:
            alone += each
        else:
            parts += _compared(task, each)
    if alone:
        parts.append(
            _table(("method", "task", "metric", "value", "95 %", "n", "gate"), [_listed(row) for row in alone])
        )
    return "\n\n".join([*parts, *_glossary(rows)]) + "\n"


def _glossary(rows: Sequence[Row]) -> list[str]:
    """What each figure of these rows means, as a list; empty if the table contains none of them."""
    known = [FIGURES[metric] for metric in _by(rows, "metric") if metric in FIGURES]
    lines = [f"- {heading(figure.name)}: {figure.meaning}" for figure in known]
    return ["↑ higher is better, ↓ lower is better.", "\n".join(lines)] if lines else []


def _compared(task: str, rows: Sequence[Row]) -> list[str]:
    """The tables of a task, with a few metrics each, and the number of requests that were measured."""
    metrics = list(_by(rows, "metric"))
    at = {(row["method"], row["metric"]): row for row in rows}
    parts = [f"## {_literal(task)}"]
    for start in range(0, len(metrics), METRICS_IN_A_TABLE):
        shown = metrics[start : start + METRICS_IN_A_TABLE]
        lines = [
            [method, *(_with_interval(at.get((method, metric))) for metric in shown)] for method in _by(rows, "method")
        ]
        parts.append(_table(("method", *map(heading, shown)), lines))
    counts = sorted({row["n"] for row in rows})
    parts.append(f"n = {counts[0]}" + (f" to {counts[-1]}" if len(counts) > 1 else ""))
    return parts


def _listed(row: Row) -> list[str]:
    interval = f"{_number(row['low'])} to {_number(row['high'])}"
    gate = "" if row.get("gate") is None else _number(row["gate"])
    return [row["method"], row["task"], heading(row["metric"]), _number(row["value"]), interval, str(row["n"]), gate]


def _with_interval(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{_number(row['value'])} ({_number(row['low'])} to {_number(row['high'])})"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    cells = [[_literal(cell) for cell in line] for line in (head, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (cells[0], ["---"] * len(head), *cells[1:]))


def _number(value: float | None) -> str:
    """Three significant digits, without an exponent unless the number is very small or very large."""
    if value is None or not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.2e}"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def _csv(rows: Sequence[Row]) -> str:
    out = io.StringIO()
    more = sorted({key for row in rows for key in row} - set(COLUMNS))
    writer = csv.DictWriter(out, [*COLUMNS, *more], lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in plain(row).items()} for row in rows)
    return out.getvalue()


def _inert(value: object) -> object:
    """A cell that a spreadsheet does not take for a formula: text that could be one gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _literal(text: str) -> str:
    """A text as itself in Markdown: in one line, and with every mark escaped that would become a tag, link or style."""
    escaped = MARKS.sub(r"\\\1", one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def draw_plot(rows: Sequence[Row], title: str) -> bytes:
    """A PNG with one panel for each task and metric that methods are compared by, and one for all shares that stand
    alone."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    columns = min(PANELS_IN_A_LINE, max(1, len(panels)))
    lines = max(1, math.ceil(len(panels) / columns))
    longest = max((len(each) for _, each in panels), default=1)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(4.2 * columns, lines * (0.9 + 0.24 * longest)), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{title}: values and 95 % intervals", fontsize=12, color=INK)
        axes = figure.subplots(lines, columns, squeeze=False).flatten()
        for unused in axes[len(panels) :]:
            unused.set_visible(False)
        for number, (name, each) in enumerate(panels):
            _panel(axes[number], name, each, first=rows[0]["method"])
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _panels(rows: Sequence[Row]) -> list[tuple[str, list[tuple[str, Row]]]]:
    """The name of each panel, and its rows with their labels from top to bottom."""
    panels: list[tuple[str, list[tuple[str, Row]]]] = []
    alone: list[tuple[str, Row]] = []
    for task, each in _by([row for row in rows if plain(row)["value"] is not None], "task").items():
        for metric, compared in _by(each, "metric").items():
            if len(compared) > 1:
                panels.append((f"{task}: {heading(metric)}", [(row["method"], row) for row in compared]))
            elif 0 <= compared[0]["low"] and compared[0]["high"] <= 1:
                alone.append((f"{task}: {metric}", compared[0]))
    return panels + ([("shares", alone)] if alone else [])


def _panel(axes: Axes, name: str, rows: Sequence[tuple[str, Row]], *, first: str) -> None:
    """first: the method that is shown in colour, where there are others."""
    for line, (label, row) in enumerate(rows):
        low, high = (row["value"] if end is None else end for end in (row["low"], row["high"]))
        axes.plot([low, high], [line, line], color=FAINT, linewidth=2.5, solid_capstyle="round", zorder=1)
        axes.plot(row["value"], line, "o", color=ACCENT if label == first else INK, markersize=4.5, zorder=2)
        if (gate := row.get("gate")) is not None:
            axes.plot(gate, line, "|", color=INK, markersize=9, zorder=2)
    axes.set_title(textwrap.fill(one_line(name), TITLE_WIDTH), loc="left")
    axes.set_yticks(range(len(rows)), [one_line(label) for label, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.6)


def _by(rows: Sequence[Row], key: Grouping) -> dict[str, list[Row]]:
    """Rows by their value of that key, in the order in which the values first come."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[key], []).append(row)
    return groups
