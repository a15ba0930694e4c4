"""The suite `regret`: how far from the best region a search ends, and what looking costs, on exhaustive tables.

Regret is the loss of the region that was picked less that of the best proposal, both as means over the noises, while a
search sees one noise only; so luck with that noise counts for nothing. Under the judge it is the success of the edit,
the best proposal's less the pick's: an independent verifier that no search has seen.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.files import write_bytes
from maskless.engine.editor import Editor
from maskless.evaluation.measures.ledger import Ledger, fingerprint
from maskless.evaluation.measures.metrics import spearman, variance_shares
from maskless.evaluation.measures.rows import Row, mean_row
from maskless.evaluation.methods import region_table
from maskless.evaluation.methods.policies import Policy, policies
from maskless.evaluation.methods.region_table import RegionTable, fill_table
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import draw_jobs
from maskless.evaluation.suites.models import bundled_folder
from maskless.evaluation.suites.storybook import Progress
from maskless.records.overview import ACCENT, FAINT, INK, STYLE
from maskless.storybook.judge import Judge

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCENES, NOISES = 20, 2
PREVIEWS = (1, 2, 4)
DRAWS = 5
"""Replays of a policy that draws something, on each noise of a table."""
TOP = 3


def run(
    split: str = "held-out",
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    methods: Sequence[str] | None = None,
    steps: int | None = None,
    iterations: int | None = None,
    anchors: int | None = None,
    seeds: int | None = None,
    ledger: Path | None = None,
    sheets: Path | None = None,
    progress: Progress | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Row]:
    """Tables of `limit` scenes (20) and `seeds` noises (2), and every policy replayed on them.

    Args:
        methods: policies; all by default. steps: of a finished edit; the model's own where None.
        iterations: of the search that is replayed. anchors: K.
        ledger: a file of what was measured, to go on from and to add to. sheets: a folder for the plot.
        note: is told where it is.
    Raises:
        MasklessError: an unknown policy, an option out of range, a file that cannot be written.
    """
    shape: dict[str, Any] = {
        name: value for name, value in (("steps", steps), ("anchors", anchors)) if value is not None
    }
    config = EditConfig(**shape)
    searched = config if iterations is None else replace(config, iterations=iterations)
    editor = Editor.from_pretrained(models, config=config)
    folder = bundled_folder(models) / "judge"
    judge = Judge.from_pretrained(folder)
    # The policies are none of it: a new one is replayed on tables that are there.
    mark = fingerprint(editor.models, config, [region_table.__file__], judge=folder)
    book = Ledger(ledger, suite="regret", fingerprint=mark)
    jobs = draw_jobs("replace", split, SCENES if limit is None else limit, seed_offset)
    noises = NOISES if seeds is None else seeds
    own = editor.models.inpainter.recommended_steps
    previews = tuple(n for n in PREVIEWS if n < (config.resolved(steps=own).steps or 0))
    chosen = _chosen(policies(previews, config.anchors * len(config.sizes)), methods)
    tables = []
    for done, job in enumerate(jobs, start=1):
        table = fill_table(case_of(editor, job), job, judge, book, noises=noises, previews=previews)
        search = replace(table.config, iterations=searched.iterations)
        tables.append(replace(table, config=search))
        if progress is not None:
            progress(done, len(jobs))
    rows = policy_rows(tables, chosen) + preview_rows(tables) + table_rows(tables)
    if sheets is not None:
        write_bytes(sheets / "regret.png", draw_regret(rows))
        if note is not None:
            note(f"Regret against cost: {sheets / 'regret.png'}")
    return rows


def policy_rows(tables: Sequence[RegionTable], chosen: dict[str, Policy]) -> list[Row]:
    """Each policy's figures: of a table the mean over noises and draws, then the mean over tables."""
    rows = []
    for name, policy in chosen.items():
        each = [_of_table(table, policy) for table in tables]
        names = {"suite": "regret", "method": name, "task": "search"}
        for metric in each[0]:
            rows.append(mean_row([one[metric] for one in each], **names, metric=metric))
    return rows


def _of_table(table: RegionTable, policy: Policy) -> dict[str, float]:
    losses, success = table.mean_losses, table.success.float().mean(dim=0)
    own = losses[: table.proposals]
    best, spread = float(own.min()), float(own.std(correction=0)) or 1.0
    rank_of = {column: rank for rank, column in enumerate(own.argsort(stable=True).tolist())}
    found: dict[str, list[float]] = {}
    for noise in range(len(table.losses)):
        rng = np.random.default_rng([table.seed, noise])
        before = rng.bit_generator.state
        first = policy(table, noise, rng)
        # One that drew nothing would say the same again.
        more = 0 if rng.bit_generator.state == before else DRAWS - 1
        for made in [first, *(policy(table, noise, rng) for _draw in range(more))]:
            regret = float(losses[made.picked]) - best
            rank = rank_of.get(made.picked, table.proposals)
            figures = {
                "regret": regret,
                "regret in SDs": regret / spread,
                "best": float(rank == 0),
                f"among the best {TOP}": float(rank < TOP),
                "regret under the judge": float(success[: table.proposals].max() - success[made.picked]),
                "success": float(success[made.picked]),
                "inpaintings": float(made.inpaintings),
                "UNet forwards": made.forwards,
                "seconds": made.seconds,
            }
            for metric, value in figures.items():
                found.setdefault(metric, []).append(value)
    return {metric: fmean(values) for metric, values in found.items()}


def preview_rows(tables: Sequence[RegionTable]) -> list[Row]:
    """How well losses after so few steps order the regions as the finished edits do, from the same noise; and how well
    the finished edits of another noise do."""
    rows = []
    for steps in sorted(set.intersection(*(set(table.previews) for table in tables))):
        values = [_agreement(table, steps) for table in tables]
        rows.append(_row(values, method=f"preview {steps}", task="preview", metric="Spearman with the finished"))
    others = [
        fmean(
            spearman(_own(table, table.losses[a]), _own(table, table.losses[b]))
            for a in range(len(table.losses))
            for b in range(a)
        )
        for table in tables
        if len(table.losses) > 1
    ]
    if others:
        rows.append(_row(others, method="another noise", task="preview", metric="Spearman with the finished"))
    return [row for row in rows if row is not None]


def table_rows(tables: Sequence[RegionTable]) -> list[Row]:
    """Where the losses' variance comes from, and what the judge makes of the regions."""
    found: dict[str, list[float]] = {}
    for table in tables:
        losses, success = _own(table, table.mean_losses), _own(table, table.success.float().mean(dim=0))
        figures = {
            "SD of the losses": float(losses.std(correction=0)),
            "success of a random region": float(success.mean()),
            "success of the best by the judge": float(success.max()),
            "success of the best by the loss": float(success[losses.argmin()]),
            "Spearman of less loss and the judge's score": spearman(-losses, _own(table, table.score.mean(dim=0))),
        }
        if len(table.losses) > 1:
            shares = variance_shares(table.losses[:, : table.proposals])
            names = ("region", "noise", "region x noise and the rest")
            figures |= {f"variance due to {name}": share for name, share in zip(names, shares, strict=True)}
        for metric, value in figures.items():
            found.setdefault(metric, []).append(value)
    rows = [_row(values, method="all regions", task="table", metric=metric) for metric, values in found.items()]
    return [row for row in rows if row is not None]


def draw_regret(rows: Sequence[Row]) -> bytes:
    """A PNG: regret of the loss, in SDs of the table, and regret under the judge, against UNet forwards and seconds."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    at: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row["task"] == "search":
            at.setdefault(row["method"], {})[row["metric"]] = row
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 10), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle("Regret against cost: means over scenes, 95 % intervals", fontsize=12, color=INK)
        grid = figure.add_gridspec(2, 3, width_ratios=(5, 5, 2))
        for across, regret in enumerate(("regret in SDs", "regret under the judge")):
            for along, cost in enumerate(("UNet forwards", "seconds")):
                _panel(figure.add_subplot(grid[across, along]), at, cost, regret)
        key = figure.add_subplot(grid[:, 2])
        told = "\n".join(f"{number}  {name}" for number, name in enumerate(at, start=1))
        key.text(0, 1, told, va="top", fontsize=9, linespacing=1.6, transform=key.transAxes)
        key.set_axis_off()
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _panel(axes: Axes, at: dict[str, dict[str, Row]], cost: str, regret: str) -> None:
    """Every policy by its number; those that differ in their budget alone are joined by a line."""
    for family in ("random", "UCB", "GP"):
        line = [at[name] for name in at if name.split()[0] == family]
        across, up = ([each[metric]["value"] for each in line] for metric in (cost, regret))
        axes.plot(across, up, color=FAINT, linewidth=0.9, zorder=1)
    for number, (name, figures) in enumerate(at.items(), start=1):
        x, value = figures[cost]["value"], figures[regret]
        colour = ACCENT if name.startswith("maskless") else INK
        axes.plot([x, x], [value["low"], value["high"]], color=FAINT, linewidth=1.2, alpha=0.6, zorder=1)
        axes.plot(x, value["value"], "o", color=colour, markersize=4, zorder=2)
        # Many end close together, so the labels stand around their points in turns.
        apart = ((4, 4), (4, -11), (-14, 4), (-14, -11))[number % 4]
        axes.annotate(str(number), (x, value["value"]), xytext=apart, textcoords="offset points", color=colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.set_xlabel(cost)
    axes.set_ylabel("regret of the loss, in SDs of the table" if regret == "regret in SDs" else regret)
    axes.axhline(0, color=FAINT, linewidth=0.6)


def _agreement(table: RegionTable, steps: int) -> float:
    pairs = zip(table.previews[steps], table.losses, strict=True)
    return fmean(spearman(_own(table, early), _own(table, late)) for early, late in pairs)


def _own(table: RegionTable, values: Any) -> Any:
    """Of the proposals only, without the box in the middle."""
    return values[: table.proposals]


def _row(values: Sequence[float], **names: Any) -> Row | None:
    """The mean of those that are numbers: a judge that says the same of all regions gives no correlation."""
    finite = [value for value in values if math.isfinite(value)]
    return mean_row(finite, suite="regret", **names) if finite else None


def _chosen(every: dict[str, Policy], names: Sequence[str] | None) -> dict[str, Policy]:
    for name in names or ():
        if name not in every:
            raise MasklessError(f"the policies of regret are {'; '.join(every)}; got {name}")
    return {name: policy for name, policy in every.items() if names is None or name in names}
