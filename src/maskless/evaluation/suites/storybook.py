"""The suite `storybook`: one thing in a held-out scene becomes another, by every method, judged against the truth.

Each request is measured once for each method and kept in the ledger; the first PICTURED also keep their pictures, for
one page that shows all methods side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.engine.editor import Editor
from maskless.evaluation.measures import side_by_side
from maskless.evaluation.measures.ledger import Figures, Ledger, decoded, fingerprint
from maskless.evaluation.measures.rows import Row, mean_row, share_row
from maskless.evaluation.methods import trials
from maskless.evaluation.methods.baselines import METHODS
from maskless.evaluation.methods.cases import Progress
from maskless.evaluation.methods.trials import case_of, measure
from maskless.evaluation.requests.jobs import Job, draw_jobs
from maskless.evaluation.suites.models import bundled_folder
from maskless.storybook.judge import Judge

TASK = "replace"
PICTURED = 10
OURS = "maskless"
MEANS = (
    "region IoU",
    "region size",
    "identical outside",
    "background PSNR dB",
    "background SSIM",
    "background MSE",
    "CLIP whole",
    "CLIP edited",
    "CLIP directional",
    "structure distance",
    "seconds",
    "UNet forwards",
    "inpaintings",
    "peak memory MB",
)
"""Figures whose mean is a row, in this order."""


def run(
    split: str = "held-out",
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    methods: Sequence[str] | None = None,
    steps: int | None = None,
    iterations: int | None = None,
    anchors: int | None = None,
    ledger: Path | None = None,
    page: Path | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Every method on `limit` requests (100).

    Args:
        methods: names among METHODS; all of them by default.
        steps, iterations, anchors: options that all methods share; the defaults where None.
        ledger: a file of what was measured, to go on from and to add to. page: where the page of pictures goes.
    Raises:
        MasklessError: an unknown method, an option out of range, a file that cannot be written.
    """
    names = chosen_methods(methods)
    options: dict[str, Any] = {"steps": steps, "iterations": iterations, "anchors": anchors}
    config = replace(EditConfig(), **{name: value for name, value in options.items() if value is not None})
    editor = Editor.from_pretrained(models, config=config)
    folder = bundled_folder(models) / "judge"
    judge = Judge.from_pretrained(folder)
    meant = fingerprint(editor.models, config, [trials.__file__], judge=folder)
    book = Ledger(ledger, suite="storybook", fingerprint=meant)
    jobs = draw_jobs(TASK, split, 100 if limit is None else limit, seed_offset)
    found: dict[str, list[Figures]] = {name: [] for name in names}
    for number, job in enumerate(jobs):
        case, seed = case_of(editor, job), job.scene.graph.detail_seed
        for name in names:
            pictured = number < PICTURED
            measured = partial(measure, name, case, job, judge, pictured=pictured)
            found[name].append(book.measured(name, _key(seed, pictured), measured))
            if progress is not None:
                progress(sum(map(len, found.values())), len(jobs) * len(names))
    if page is not None:
        draw_page(jobs[:PICTURED], found, page)
    return rows_of(found)


def chosen_methods(methods: Sequence[str] | None) -> list[str]:
    """The names, in METHODS' order; all where None."""
    unknown = [name for name in methods or () if name not in METHODS]
    if unknown or methods is not None and not methods:
        raise MasklessError(f"methods must be among {', '.join(METHODS)}, got {', '.join(unknown) or 'none'}")
    return [name for name in METHODS if methods is None or name in methods]


def rows_of(found: dict[str, list[Figures]]) -> list[Row]:
    """Success first, its parts, then the means; and how often a method succeeds less ours, request by request.

    A request that a method refused counts against its success and is in no figure but the costs.
    """
    rows: list[Row] = []
    for method, each in found.items():
        names = {"suite": "storybook", "method": method, "task": TASK}
        rows.append(share_row([one["success"] for one in each], **names, metric="success"))
        if method != OURS and OURS in found:
            pairs = zip(each, found[OURS], strict=True)
            differences = [float(one["success"]) - float(ours["success"]) for one, ours in pairs]
            rows.append(mean_row(differences, **names, metric=f"success less that of {OURS}"))
        for part in dict.fromkeys(name for one in each for name in one["parts"]):
            hits = [one["parts"][part] for one in each if part in one["parts"]]
            rows.append(share_row(hits, **names, metric=part))
        hits = [one["hit"] for one in each if "hit" in one]
        rows += [share_row(hits, **names, metric="region hit")] if hits else []
        for metric in MEANS:
            values = [float(one[metric]) for one in each if one.get(metric) is not None]
            rows += [mean_row(values, **names, metric=metric)] if values else []
    return rows


def draw_page(jobs: Sequence[Job], found: dict[str, list[Figures]], file: Path) -> None:
    """Requests down, the source and every method across."""
    lines = []
    for number, job in enumerate(jobs):
        shown = [
            side_by_side.Shown(
                picture=decoded(each[number]["picture"]) if "picture" in each[number] else None,
                box_xyxy=each[number].get("box"),
                success=each[number]["success"],
            )
            for each in found.values()
        ]
        lines.append(side_by_side.Line(text=f"{job.caption} becomes {job.prompt}", source=job.image, shown=shown))
    side_by_side.write_page(lines, list(found), file)


def _key(seed: int, pictured: bool) -> str:
    """What is measured with its picture is another entry: a page needs those of its own requests."""
    return f"{seed} with picture" if pictured else str(seed)
