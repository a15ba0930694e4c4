"""The suite `regret`: how far from the best region a search ends, and what its evaluations cost, on exhaustive tables.

Regret is the loss of the picked region minus that of the best proposal, both as means over the noises, while a search
sees only one noise; so luck with that noise does not count. Regret under the judge is the best proposal's success minus
that of the picked region: the judge is an independent verifier that no search has seen.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from maskless.data.config import PUBLISHED_STEPS
from maskless.data.files import write_bytes
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.metrics import spearman, variance_shares
from maskless.evaluation.measures.rows import Row, rows_of_figures
from maskless.evaluation.methods import region_table
from maskless.evaluation.methods.policies import Policy, policies
from maskless.evaluation.methods.region_table import RegionTable, fill_table
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import draw_jobs
from maskless.evaluation.suite import SuiteOptions, chosen, prepare
from maskless.records.overview import ACCENT, FAINT, INK, STYLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TAKES = (
    "split", "limit", "seed_offset", "models", "methods", "steps", "iterations", "anchors", "seeds", "ledger", "sheets",
    "progress", "note",
)  # fmt: skip
SCENES, NOISES = 20, 2
PREVIEWS = (1, 2, 4)
REPLAYS = 5
"""How often a policy that makes random choices is replayed, on each noise of a table."""


def run(options: SuiteOptions) -> list[Row]:
    """Tables of `limit` scenes (20) and `seeds` noises (2), and every policy replayed on them.

    methods: the policies to replay. steps, anchors: of the edits in the tables. iterations: of the search that is
    replayed. sheets: a folder for the plot. note: called with the path of the plot.

    Raises:
        MasklessError: an unknown policy, an option out of range, a file that cannot be written.
    """
    config = replace(options.edit_config("steps", "anchors"), search="learned")
    searched = config if options.iterations is None else replace(config, iterations=options.iterations)
    # The code of the policies is not part of the fingerprint, so a new policy is replayed on the existing tables.
    bench = prepare(options, "regret", [region_table.__file__], config)
    jobs = draw_jobs("replace", options.split, options.limit or SCENES, options.seed_offset)
    noises = options.seeds or NOISES
    recommended = bench.editor.models.inpainter.recommended_steps
    previews = tuple(n for n in PREVIEWS if n < (config.steps or recommended or PUBLISHED_STEPS))
    known = policies(previews, config.anchors * len(config.sizes))
    names = chosen(options.methods, known, what="the policies of regret")
    tables = []
    for done, job in enumerate(jobs, start=1):
        case = case_of(bench.editor, job)
        table = fill_table(case, job, bench.judge, bench.ledger, noises=noises, previews=previews)
        tables.append(replace(table, config=replace(table.config, iterations=searched.iterations)))
        options.progress(done, len(jobs))
    rows = policy_rows(tables, {name: known[name] for name in names}) + preview_rows(tables) + table_rows(tables)
    if options.sheets is not None:
        write_bytes(options.sheets / "regret.png", draw_regret(rows))
        options.note(f"Regret against cost: {options.sheets / 'regret.png'}")
    return rows


def policy_rows(tables: Sequence[RegionTable], replayed: Mapping[str, Policy]) -> list[Row]:
    """Each policy's figures: for each table the mean over noises and replays, then the mean over the tables."""
    rows = []
    for name, policy in replayed.items():
        found = [_policy_figures(table, policy) for table in tables]
        rows += rows_of_figures(found, found[0], suite="regret", method=name, task="search")
    return rows


def _policy_figures(table: RegionTable, policy: Policy) -> dict[str, float]:
    losses, success = table.mean_losses, table.success.float().mean(dim=0)
    proposed = _proposals(table, losses)
    best, deviation = float(proposed.min()), float(proposed.std(correction=0)) or 1.0
    rank_of = {column: rank for rank, column in enumerate(proposed.argsort(stable=True).tolist())}
    found: dict[str, list[float]] = {}
    for noise in range(len(table.losses)):
        rng = np.random.default_rng([table.seed, noise])
        before = rng.bit_generator.state
        first = policy(table, noise, rng)
        # A policy that made no random choice would pick the same region again.
        more = 0 if rng.bit_generator.state == before else REPLAYS - 1
        for made in [first, *(policy(table, noise, rng) for _replay in range(more))]:
            regret = float(losses[made.picked]) - best
            rank = rank_of.get(made.picked, table.proposals)
            values = {
                figures.REGRET: regret,
                figures.REGRET_IN_DEVIATIONS: regret / deviation,
                figures.BEST: float(rank == 0),
                figures.AMONG_THE_BEST_3: float(rank < 3),
                figures.JUDGED_REGRET: float(success[: table.proposals].max() - success[made.picked]),
                figures.SUCCESS: float(success[made.picked]),
                figures.INPAINTINGS: float(made.inpaintings),
                figures.UNET_FORWARDS: made.forwards,
                figures.SECONDS: made.seconds,
            }
            for metric, value in values.items():
                found.setdefault(metric, []).append(value)
    return {metric: fmean(values) for metric, values in found.items()}


def preview_rows(tables: Sequence[RegionTable]) -> list[Row]:
    """How well losses after few steps order the regions as the finished edits from the same noise do; and how well the
    finished edits from another noise do."""
    rows = []
    for steps in sorted(set.intersection(*(set(table.previews) for table in tables))):
        found = [{figures.PREVIEW_SPEARMAN: _agreement(table, steps)} for table in tables]
        rows += rows_of_figures(
            found, [figures.PREVIEW_SPEARMAN], suite="regret", method=f"preview {steps}", task="preview"
        )
    found = [{figures.PREVIEW_SPEARMAN: _other_noise(table)} for table in tables if len(table.losses) > 1]
    return rows + rows_of_figures(
        found, [figures.PREVIEW_SPEARMAN], suite="regret", method="another noise", task="preview"
    )


def table_rows(tables: Sequence[RegionTable]) -> list[Row]:
    """Where the variance of the losses comes from, and what the judge sees of the regions.

    A table on which a correlation is not a number, because the judge sees the same of all regions, is left out of it.
    """
    found = [_table_figures(table) for table in tables]
    measured = dict.fromkeys(metric for one in found for metric in one)
    return rows_of_figures(found, measured, suite="regret", method="all regions", task="table")


def _table_figures(table: RegionTable) -> dict[str, float]:
    losses, success = (_proposals(table, values) for values in (table.mean_losses, table.success.float().mean(dim=0)))
    found = {
        figures.LOSS_DEVIATION: float(losses.std(correction=0)),
        figures.RANDOM_SUCCESS: float(success.mean()),
        figures.BEST_SUCCESS: float(success.max()),
        figures.LEAST_LOSS_SUCCESS: float(success[losses.argmin()]),
        figures.JUDGE_SPEARMAN: spearman(-losses, _proposals(table, table.score.mean(dim=0))),
    }
    if len(table.losses) > 1:
        names = (figures.VARIANCE_OF_REGIONS, figures.VARIANCE_OF_NOISE, figures.VARIANCE_OF_REST)
        found |= dict(zip(names, variance_shares(table.losses[:, : table.proposals]), strict=True))
    return found


def draw_regret(rows: Sequence[Row]) -> bytes:
    """A PNG: regret of the loss, in standard deviations of the table, and regret under the judge, against UNet forwards
    and seconds."""
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
        for across, regret in enumerate((figures.REGRET_IN_DEVIATIONS, figures.JUDGED_REGRET)):
            for along, cost in enumerate((figures.UNET_FORWARDS, figures.SECONDS)):
                _panel(figure.add_subplot(grid[across, along]), at, cost, regret)
        key = figure.add_subplot(grid[:, 2])
        names = "\n".join(f"{number}  {name}" for number, name in enumerate(at, start=1))
        key.text(0, 1, names, va="top", fontsize=9, linespacing=1.6, transform=key.transAxes)
        key.set_axis_off()
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _panel(axes: Axes, at: dict[str, dict[str, Row]], cost: str, regret: str) -> None:
    """Every policy by its number; those that differ only in their budget are joined by a line."""
    for family in ("random", "UCB", "GP"):
        line = [at[name] for name in at if name.split()[0] == family]
        across, up = ([each[metric]["value"] for each in line] for metric in (cost, regret))
        axes.plot(across, up, color=FAINT, linewidth=0.9, zorder=1)
    for number, (name, measured) in enumerate(at.items(), start=1):
        x, value = measured[cost]["value"], measured[regret]
        colour = ACCENT if name.startswith("maskless") else INK
        axes.plot([x, x], [value["low"], value["high"]], color=FAINT, linewidth=1.2, alpha=0.6, zorder=1)
        axes.plot(x, value["value"], "o", color=colour, markersize=4, zorder=2)
        # Many points lie close together, so the labels are put on four sides of their points in turn.
        offset = ((4, 4), (4, -11), (-14, 4), (-14, -11))[number % 4]
        axes.annotate(str(number), (x, value["value"]), xytext=offset, textcoords="offset points", color=colour)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _position: f"{value:g}")
    axes.set_xlabel(cost)
    axes.set_ylabel(regret)
    axes.axhline(0, color=FAINT, linewidth=0.6)


def _agreement(table: RegionTable, steps: int) -> float:
    """Mean over the noises of the rank correlation of previews in so many steps and finished edits."""
    pairs = zip(table.previews[steps], table.losses, strict=True)
    return fmean(spearman(_proposals(table, early), _proposals(table, late)) for early, late in pairs)


def _other_noise(table: RegionTable) -> float:
    """Mean over all pairs of noises of the rank correlation of their finished edits."""
    return fmean(
        spearman(_proposals(table, table.losses[a]), _proposals(table, table.losses[b]))
        for a in range(len(table.losses))
        for b in range(a)
    )


def _proposals(table: RegionTable, values: Shaped[Tensor, " R"]) -> Shaped[Tensor, " N"]:
    """The values of the N proposals, without that of the box in the middle."""
    return values[: table.proposals]
