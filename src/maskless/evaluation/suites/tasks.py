"""The suite `tasks`: each kind of edit on scenes that no model has seen, judged against the truth of the scene.

The requests come from requests/jobs.py; to add a kind of edit, write its function there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.data.result import EditResult
from maskless.engine.editor import Editor
from maskless.evaluation.measures.figures import SUCCESS, SUCCESS_DRAWN_RIGHT, UNTOUCHED_IDENTICAL
from maskless.evaluation.measures.ledger import decoded, encoded
from maskless.evaluation.measures.rows import Figures, Row, RowNames, rows_of_figures, share_row
from maskless.evaluation.methods.bench import drawn_right
from maskless.evaluation.requests.jobs import JOBS, Job, draw_jobs, judged
from maskless.evaluation.suite import SuiteOptions, chosen, prepare
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Judge
from maskless.storybook.world.graph import SceneGraph
from maskless.storybook.world.scenes import draw
from maskless.storybook.world.sheets import sheet, to_tensor

TAKES = ("split", "limit", "seed_offset", "models", "methods", "sheets", "ledger", "progress")
REQUESTS = 100
GATES = {
    "replace": 0.8,
    "add": 0.8,
    "remove": 0.8,
    "complete": 0.85,
    "extend": 0.85,
    "repair": 0.85,
    "background": 0.85,
    "texture": 0.75,
    "style": 0.85,
    "creative": 0.65,
}
"""The success that each kind of edit has to reach, also where its objects must be drawn right."""
TRUTH = "truth"
"""The method of rows about the scenes as they should be, which say the most that an edit can achieve."""
ON_A_SHEET = 10
Judges = tuple[Judge, Critic]
"""Who sees what is in a picture, and who says whether it is drawn right."""


def run(options: SuiteOptions) -> list[Row]:
    """Every kind of edit on `limit` scenes each (100).

    methods: the tasks to measure. sheets: a folder for one picture of each task, with sources above results, for a
    person to judge.

    Raises:
        MasklessError: an unknown task, a file that cannot be written.
    """
    tasks, count = chosen(options.methods, JOBS, what="the tasks"), options.limit or REQUESTS
    bench = prepare(options, "tasks", [__file__])
    rows: list[Row] = []
    for position, task in enumerate(tasks):
        jobs = draw_jobs(task, options.split, count, options.seed_offset)
        found, true = [], []
        for number, job in enumerate(jobs):
            pictured = options.sheets is not None and number < ON_A_SHEET
            key = f"{task} {job.scene.graph.detail_seed}" + " with picture" * pictured
            measure = partial(_measured, bench.editor, (bench.judge, bench.critic), job, pictured=pictured)
            found.append(bench.ledger.measured("maskless", key, measure))
            if job.truth is not None:
                measure = partial(_truth_figures, (bench.judge, bench.critic), job, job.truth)
                true.append(bench.ledger.measured(TRUTH, key, measure))
            options.progress(position * count + number + 1, len(tasks) * count)
        rows += rows_of(task, found) + (rows_of(task, true, TRUTH) if true else [])
        if options.sheets is not None:
            _sheet(jobs, found, options.sheets / f"{task}.png")
    return rows


def edited(editor: Editor, job: Job) -> EditResult | None:
    """The editor's result of a job with its default options; None where it finds nothing to edit, which is a
    failure."""
    try:
        return editor.edit(job.image, caption=job.caption, prompt=job.prompt, task=job.task, **job.options)
    except MasklessError:
        return None


def task_rows(judges: Judges, jobs: Sequence[Job], results: Sequence[EditResult | None]) -> list[Row]:
    """The rows of jobs of one task, from the editor's results."""
    return rows_of(jobs[0].task, [figures_of(judges, job, made) for job, made in zip(jobs, results, strict=True)])


def figures_of(judges: Judges, job: Job, result: EditResult | None) -> Figures:
    """Success, its parts, and whether the pixels outside are the source's, for one job."""
    if result is None:
        failed = {SUCCESS: False, "parts": {}, UNTOUCHED_IDENTICAL: None}
        return failed | ({SUCCESS_DRAWN_RIGHT: False} if job.wanted else {})
    return _judged_figures(judges, job, result.best.pil()) | {UNTOUCHED_IDENTICAL: exact_outside(result)}


def rows_of(task: str, found: Sequence[Figures], method: str = "maskless") -> list[Row]:
    """The share of each figure. A job without a result counts against success, and not among the parts.

    method: TRUTH for the scenes as they should be, which have no gate and no pixels of an edit.
    """
    names: RowNames = {"suite": "tasks", "method": method, "task": task}
    of_edits = method != TRUTH
    gates: RowNames = {**names, "gate": GATES.get(task) if of_edits else None}
    rows = rows_of_figures(found, (SUCCESS, SUCCESS_DRAWN_RIGHT), **gates)
    parts = [one["parts"] for one in found]
    rows += rows_of_figures(parts, dict.fromkeys(name for one in parts for name in one), **names)
    if not of_edits:
        return rows
    exact = [one[UNTOUCHED_IDENTICAL] for one in found if one[UNTOUCHED_IDENTICAL] is not None]
    gates = {**names, "gate": 1.0}
    return [*rows, share_row(exact or [False] * len(found), metric=UNTOUCHED_IDENTICAL, **gates)]


def exact_outside(result: EditResult) -> bool:
    """Whether every pixel outside the part that the result says it may have edited is the source's."""
    after = np.asarray(result.best.pil())
    touched = result.best.touched().numpy()
    source = np.asarray(result.request.image.movedim(0, -1) * 255).round().astype(np.uint8)
    return bool((after == source).all(axis=2)[~touched].all())


def _judged_figures(judges: Judges, job: Job, picture: Image.Image) -> Figures:
    """Success and its parts, for a picture that is to be the result of a job."""
    judge, critic = judges
    (after,), (before,) = judge.detect([picture]), judge.detect([job.image])
    parts = judged(job, after, before)
    figures: Figures = {SUCCESS: all(parts.values()), "parts": parts}
    if job.wanted:
        right = all(drawn_right(critic, picture, after.objects, *each) for each in job.wanted)
        figures[SUCCESS_DRAWN_RIGHT] = figures[SUCCESS] and right
    return figures


def _truth_figures(judges: Judges, job: Job, truth: SceneGraph) -> Figures:
    """The figures of the scene as the edit should make it."""
    return _judged_figures(judges, job, draw(truth, job.scene.image.width).image)


def _measured(editor: Editor, judges: Judges, job: Job, *, pictured: bool) -> Figures:
    result = edited(editor, job)
    figures = figures_of(judges, job, result)
    return figures | {"picture": encoded(result.best.pil())} if pictured and result is not None else figures


def _sheet(jobs: Sequence[Job], found: Sequence[Figures], file: Path) -> None:
    """Write ten results under their sources; where there is no result, the source is repeated."""
    before = [job.image for job in jobs[:ON_A_SHEET]]
    after = [
        decoded(one["picture"]) if "picture" in one else source
        for one, source in zip(found[:ON_A_SHEET], before, strict=True)
    ]
    rows = [
        torch.stack([to_tensor(picture.resize((128, 128))) for picture in pictures]) for pictures in (before, after)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(file)
