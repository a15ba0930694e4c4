"""The suite `storybook`: one object of a held-out scene becomes another, by every method, judged against the truth.

Each method's figures for each request are kept in the ledger; for the first PICTURED requests also the pictures, for
one page that shows all methods side by side. A plot shows the success of every method against what it costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from maskless.data.files import write_bytes
from maskless.evaluation.measures import side_by_side
from maskless.evaluation.measures.cost_plot import draw_success_against_cost
from maskless.evaluation.measures.figures import FIGURES, SUCCESS
from maskless.evaluation.measures.ledger import decoded
from maskless.evaluation.measures.rows import Figures, Row, RowNames, difference_row, rows_of_figures, share_row
from maskless.evaluation.methods import trials
from maskless.evaluation.methods.baselines import METHODS
from maskless.evaluation.methods.trials import case_of, measure
from maskless.evaluation.requests.jobs import Job, draw_jobs
from maskless.evaluation.suite import SuiteOptions, chosen, prepare

TAKES = (
    "split", "requests", "limit", "seed_offset", "models", "methods", "steps", "iterations", "anchors", "ledger",
    "page", "sheets", "progress", "note",
)  # fmt: skip
REQUESTS = 100
TASK = "replace"
PICTURED = 10
OURS = "maskless"
KNOWS_THE_TRUTH = ("oracle_box",)


def run(options: SuiteOptions) -> list[Row]:
    """Every method on `limit` requests (100). methods: names among METHODS. requests: see `jobs.REQUESTS`.

    Raises:
        MasklessError: an unknown method, an option out of range, a file that cannot be written.
    """
    names = chosen(options.methods, METHODS, what="methods")
    config = options.edit_config("steps", "iterations", "anchors")
    bench = prepare(options, "storybook", [trials.__file__], config)
    jobs = draw_jobs(TASK, options.split, options.limit or REQUESTS, options.seed_offset, requests=options.requests)
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for number, job in enumerate(jobs):
        case, seed = case_of(bench.editor, job), job.scene.graph.detail_seed
        for name in names:
            pictured = number < PICTURED
            measured = partial(measure, name, case, job, bench.judge, pictured=pictured)
            key = _key(seed, pictured) if options.requests == "plain" else f"{_key(seed, pictured)} {options.requests}"
            found[name].append(bench.ledger.measured(name, key, measured))
            options.progress(sum(map(len, found.values())), len(jobs) * len(names))
    if options.page is not None:
        draw_page(jobs[:PICTURED], found, options.page)
    rows = rows_of(found)
    if options.sheets is not None:
        file = options.sheets / "success-against-cost.png"
        write_bytes(file, draw_success_against_cost(rows, ours=OURS, knows_the_truth=KNOWS_THE_TRUTH))
        options.note(f"Success against cost: {file}")
    return rows


def rows_of(found: Mapping[str, Sequence[Figures]]) -> list[Row]:
    """For each method its success first, its difference from ours, the parts of success, then all other figures.

    A request that a method refused counts against its success, and otherwise only in the figures of cost.
    """
    rows: list[Row] = []
    for method, each in found.items():
        names: RowNames = {"suite": "storybook", "method": method, "task": TASK}
        success = [one[SUCCESS] for one in each]
        rows.append(share_row(success, **names, metric=SUCCESS))
        if method != OURS and OURS in found:
            ours = [one[SUCCESS] for one in found[OURS]]
            rows.append(difference_row(success, ours, OURS, **names, metric=SUCCESS))
        parts = [one["parts"] for one in each]
        rows += rows_of_figures(parts, dict.fromkeys(name for one in parts for name in one), **names)
        rows += rows_of_figures(each, [metric for metric in FIGURES if metric != SUCCESS], **names)
    return rows


def draw_page(jobs: Sequence[Job], found: Mapping[str, Sequence[Figures]], file: Path) -> None:
    """Write the page: a row for each request, with its source and the result of every method."""
    lines = []
    for number, job in enumerate(jobs):
        shown = [
            side_by_side.Shown(
                picture=decoded(each[number]["picture"]) if "picture" in each[number] else None,
                box_xyxy=each[number].get("box"),
                success=each[number][SUCCESS],
            )
            for each in found.values()
        ]
        lines.append(side_by_side.Line(text=f"{job.caption} becomes {job.prompt}", source=job.image, shown=shown))
    side_by_side.write_page(lines, list(found), file)


def _key(seed: int, pictured: bool) -> str:
    """The ledger's key of a request. With its picture it is another entry, because a page needs the pictures."""
    return f"{seed} with picture" if pictured else str(seed)
