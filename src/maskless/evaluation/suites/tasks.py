"""The suite `tasks`: each kind of edit on scenes that no model has seen, judged against the truth of the scene.

What is asked is in jobs.py: to add a kind of edit, write its function there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.data.result import EditResult
from maskless.engine.editor import Editor
from maskless.evaluation.measures.ledger import Figures, Ledger, decoded, encoded, fingerprint
from maskless.evaluation.measures.rows import Row, share_row
from maskless.evaluation.requests.jobs import JOBS, Job, draw_jobs, judged
from maskless.evaluation.suites.models import bundled_folder
from maskless.storybook.judge import Judge
from maskless.storybook.world.scenes import SceneGraph, draw
from maskless.storybook.world.sheets import sheet, to_tensor

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
ON_A_SHEET = 10


def run(
    split: str = "held-out",
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    sheets: Path | None = None,
    methods: Sequence[str] | None = None,
    ledger: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Every kind of edit on `limit` scenes each (100).

    methods: the tasks to measure; all by default. sheets: a folder for one picture a task, before above after, for a
    person to judge. ledger: a file of what was measured, to go on from and to add to. progress: told how many edits are
    measured, of how many.

    Raises: MasklessError: an unknown task, a file that cannot be written.
    """
    editor = Editor.from_pretrained(models)
    folder, count = bundled_folder(models) / "judge", 100 if limit is None else limit
    judge = Judge.from_pretrained(folder)
    meant = fingerprint(editor.models, editor.config, [__file__], judge=folder)
    book, chosen = Ledger(ledger, suite="tasks", fingerprint=meant), _chosen(methods)
    rows: list[Row] = []
    for place, task in enumerate(chosen):
        jobs = draw_jobs(task, split, count, seed_offset)
        found, true = [], []
        for number, job in enumerate(jobs):
            pictured = sheets is not None and number < ON_A_SHEET
            key = f"{task} {job.scene.graph.detail_seed}" + " with picture" * pictured
            found.append(book.measured("maskless", key, partial(_measured, editor, judge, job, pictured=pictured)))
            if job.truth is not None:
                true.append(book.measured("truth", key, partial(_of_truth, judge, job, job.truth)))
            if progress is not None:
                progress(place * count + number + 1, len(chosen) * count)
        rows += rows_of(task, found) + (rows_of(task, true, "truth") if true else [])
        if sheets is not None:
            _sheet(jobs, found, sheets / f"{task}.png")
    return rows


def _chosen(methods: Sequence[str] | None) -> list[str]:
    unknown = [name for name in methods or () if name not in JOBS]
    if unknown:
        raise MasklessError(f"the tasks are {', '.join(JOBS)}, got {', '.join(unknown)}")
    return [name for name in JOBS if methods is None or name in methods]


def edited(editor: Editor, job: Job) -> EditResult | None:
    """What the editor makes of a job, by its defaults; None where it finds nothing to edit, which is a failure."""
    try:
        return editor.edit(job.image, caption=job.caption, prompt=job.prompt, task=job.task, **job.options)
    except MasklessError:
        return None


def task_rows(judge: Judge, jobs: Sequence[Job], results: Sequence[EditResult | None]) -> list[Row]:
    """The rows of jobs of one task, and of what the editor made of them."""
    return rows_of(jobs[0].task, [figures_of(judge, job, made) for job, made in zip(jobs, results, strict=True)])


def figures_of(judge: Judge, job: Job, result: EditResult | None) -> Figures:
    """Success, its parts, and whether the pixels outside are the source's, of one job."""
    if result is None:
        return {"success": False, "parts": {}, "exact": None}
    return _seen(judge, job, result.best.pil()) | {"exact": exact_outside(result)}


def rows_of(task: str, found: Sequence[Figures], method: str = "maskless") -> list[Row]:
    """The shares of each figure. What gave no result counts against success, and not among the parts.

    method: "truth" for the scenes as they would be, which have no gate and no pixels of an edit.
    """
    names, edits = {"suite": "tasks", "method": method, "task": task}, method != "truth"
    gate = GATES.get(task) if edits else None
    rows = [share_row([one["success"] for one in found], **names, metric="success", gate=gate)]
    for part in dict.fromkeys(name for one in found for name in one["parts"]):
        rows.append(share_row([one["parts"][part] for one in found if part in one["parts"]], **names, metric=part))
    if not edits:
        return rows
    exact = [one["exact"] for one in found if one["exact"] is not None] or [False] * len(found)
    return [*rows, share_row(exact, **names, metric="untouched pixels identical", gate=1.0)]


def exact_outside(result: EditResult) -> bool:
    """Whether every pixel that the result does not claim to have edited is the source's."""
    after = np.asarray(result.best.pil())
    touched = result.best.touched().numpy()
    source = np.asarray(result.request.image.movedim(0, -1) * 255).round().astype(np.uint8)
    return bool((after == source).all(axis=2)[~touched].all())


def _seen(judge: Judge, job: Job, picture: Image.Image) -> Figures:
    """Success and its parts of a picture that a job asked for."""
    (seen,), (before,) = judge.detect([picture]), judge.detect([job.image])
    parts = judged(job, seen, before)
    return {"success": all(parts.values()), "parts": parts}


def _of_truth(judge: Judge, job: Job, truth: SceneGraph) -> Figures:
    return _seen(judge, job, draw(truth, job.scene.image.width).image)


def _measured(editor: Editor, judge: Judge, job: Job, *, pictured: bool) -> Figures:
    result = edited(editor, job)
    figures = figures_of(judge, job, result)
    return figures | {"picture": encoded(result.best.pil())} if pictured and result is not None else figures


def _sheet(jobs: Sequence[Job], found: Sequence[Figures], file: Path) -> None:
    """Ten results under their sources; a source again where there is no result."""
    before = [job.image for job in jobs[:ON_A_SHEET]]
    after = [
        decoded(one["picture"]) if "picture" in one else was
        for one, was in zip(found[:ON_A_SHEET], before, strict=True)
    ]
    rows = [
        torch.stack([to_tensor(picture.resize((128, 128))) for picture in pictures]) for pictures in (before, after)
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(file)
