"""The suite `tasks`: each kind of edit on scenes that no model has seen, judged against the truth of the scene.

A kind of edit is one function from a scene to a `Job`: what the editor is asked, and what the judge must then see. It
gives None where a scene does not fit. To add one, write it and name it in `JOBS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from maskless.data.errors import MasklessError
from maskless.data.types import EditResult
from maskless.engine.editor import Editor
from maskless.evaluation.ledger import Figures, Ledger, decoded, encoded, fingerprint
from maskless.evaluation.models import bundled_folder
from maskless.evaluation.rows import Row, share_row
from maskless.storybook.backgrounds import BACKGROUNDS
from maskless.storybook.captions import STYLE_WORDS
from maskless.storybook.edits import other
from maskless.storybook.judge import Detection, Judge, Verdict, iou
from maskless.storybook.scenes import (
    COLOURS,
    KINDS,
    TEXTURES,
    Scene,
    SceneGraph,
    VisibleObject,
    draw,
    render,
    split_seed,
)
from maskless.storybook.sheets import sheet, to_tensor

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
SAME_PLACE = 0.3
"""Boxes that overlap by this IoU are of the same thing: edits move edges."""

Check = Callable[[Verdict, Sequence[Detection]], dict[str, bool]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One request and its truth.

    image: what the editor gets; the scene's picture, or a damaged copy. options: more of `Editor.edit`'s arguments.
    kept: the objects that must still be seen. done: from what the judge sees in the result, and in the picture before,
    to what came true, by name; the edit succeeds if all of it did. truth: the scene as the edit would have it, where
    there is one such scene and not many: what the judge makes of it is the most that an edit can have.
    """

    task: str
    scene: Scene
    caption: str
    prompt: str
    kept: tuple[VisibleObject, ...]
    done: Check
    image: Image.Image
    options: Mapping[str, Any] = field(default_factory=dict)
    truth: SceneGraph | None = None


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


def draw_jobs(task: str, split: str, count: int, offset: int = 0) -> list[Job]:
    """The first `count` jobs that the scenes of a split give; the same each time."""
    jobs: list[Job] = []
    index = offset
    while len(jobs) < count:
        seed = split_seed(split, index)
        job = JOBS[task](render(seed), np.random.default_rng(seed))
        if job is not None:
            jobs.append(job)
        index += 1
    return jobs


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


def judged(job: Job, verdict: Verdict, before: Verdict) -> dict[str, bool]:
    """What came true of a job, by name, from what the judge sees in the result and in the picture before."""
    done = dict(job.done(verdict, before.things))
    if job.kept:
        done["everything else still seen"] = all(_still(verdict, thing) for thing in job.kept)
    return done


def exact_outside(result: EditResult) -> bool:
    """Whether every pixel that the result does not claim to have edited is the source's."""
    after = np.asarray(result.best.pil())
    touched = result.best.touched().numpy()
    source = np.asarray(result.request.image.movedim(0, -1) * 255).round().astype(np.uint8)
    return bool((after == source).all(axis=2)[~touched].all())


def replace(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The paper's edit: one named thing becomes another, of another kind and colour."""
    thing = _named(scene, rng)
    if thing is None:
        return None
    kind, colour = other(KINDS, thing.kind, rng), other(tuple(COLOURS), thing.colour, rng)
    return _job(
        "replace",
        scene,
        _words(thing),
        f"{_a(colour)} {kind}",
        changed=[thing],
        done=lambda verdict, _: {
            "asked thing seen": _sees(verdict, kind, colour),
            "named thing gone": not _still(verdict, thing),
        },
        truth=scene.graph.replace_object(thing.index, kind=kind, colour=colour),
    )


def add(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A newcomer of a kind that is not there, in a scene with room for it."""
    if not 1 <= len(scene.objects) <= 3 or np.any([t.mask for t in scene.objects], axis=0).mean() > 0.3:
        return None
    there = {thing.kind for thing in scene.objects}
    kind = str(rng.choice([k for k in KINDS if k not in there]))
    colour = str(rng.choice(list(COLOURS)))
    return _job(
        "add",
        scene,
        "",
        f"{_a(colour)} {kind}",
        changed=[],
        done=lambda verdict, _: {"asked thing seen": _sees(verdict, kind, colour)},
    )


def remove(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A named thing goes."""
    thing = _named(scene, rng)
    if thing is None:
        return None
    return _job(
        "remove",
        scene,
        _words(thing),
        f"empty {scene.graph.background}",
        changed=[thing],
        done=lambda verdict, _: {"named thing gone": not _anything_at(verdict, thing)},
        truth=scene.graph.remove_object(thing.index),
    )


def complete(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The middle is missing, where nothing stood."""
    box = (40, 40, 88, 88)
    if any(thing.mask[40:88, 40:88].any() for thing in scene.objects):
        return None
    image = scene.image.copy()
    image.paste((128, 128, 128), box)
    return _damaged(scene, "complete", image=image, box=box)


def repair(scene: Scene, rng: np.random.Generator) -> Job | None:
    """Scratches across the picture."""
    if not scene.objects:
        return None
    image = scene.image.copy()
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        ends = [float(v) for v in rng.uniform(0, image.width, 4)]
        pen.line(ends, fill=(245, 245, 245), width=2)
    return _damaged(scene, "repair", image=image)


def extend(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A quarter more canvas on every side; the things in it are the original's, so only what is new is looked for."""
    return dataclasses.replace(_damaged(scene, "extend", image=scene.image, extend=0.25), kept=(), truth=None)


def background(scene: Scene, rng: np.random.Generator) -> Job | None:
    """Another place behind the same things."""
    if not scene.objects:
        return None
    place = other(tuple(BACKGROUNDS), scene.graph.background, rng)
    return _job(
        "background",
        scene,
        " and ".join(_words(thing) for thing in scene.objects),
        f"empty {place}",
        changed=[],
        done=lambda verdict, _: {"new place seen": verdict.background == place},
        truth=scene.graph.with_background(place),
    )


def texture(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A plain thing, large enough, gets a texture."""
    thing = _named(scene, rng)
    if thing is None or thing.texture != "plain" or scene.graph.objects[thing.index].size < 0.25:
        return None
    wanted = other(TEXTURES, "plain", rng)
    return _job(
        "texture",
        scene,
        _words(thing),
        f"{_a(thing.colour)} {wanted} {thing.kind}",
        changed=[thing],
        done=lambda verdict, _: {
            "texture seen": any(
                (d.kind, d.texture) == (thing.kind, wanted) for d in verdict.things if _same_place(d, thing)
            )
        },
        truth=scene.graph.replace_object(thing.index, texture=wanted),
    )


def style(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The whole picture in another manner; most things are still seen."""
    if not scene.objects or scene.graph.style != "flat":
        return None
    wanted = other(tuple(STYLE_WORDS), "flat", rng)

    def done(verdict: Verdict, before: Sequence[Detection]) -> dict[str, bool]:
        kept = [_still(verdict, thing, colour=False) for thing in scene.objects]
        return {"style seen": verdict.style == wanted, "80 % of the things seen": bool(np.mean(kept) >= 0.8)}

    prompt, truth = f"{scene.caption}, {STYLE_WORDS[wanted][0]}", scene.graph.with_style(wanted)
    job = _job("style", scene, scene.caption, prompt, changed=[], done=done, truth=truth)
    return dataclasses.replace(job, kept=())


def creative(scene: Scene, rng: np.random.Generator) -> Job | None:
    """Two newcomers in one prompt."""
    if len(scene.objects) > 1:
        return None
    there = {thing.kind for thing in scene.objects}
    kinds = rng.choice([k for k in KINDS if k not in there], 2, replace=False).tolist()
    colours = rng.choice(list(COLOURS), 2, replace=False).tolist()
    pairs = list(zip(kinds, colours, strict=True))
    return _job(
        "creative",
        scene,
        "",
        " and ".join(f"{_a(colour)} {kind}" for kind, colour in pairs),
        changed=[],
        done=lambda verdict, _: {
            name: _sees(verdict, *pair) for name, pair in zip(("first thing", "second thing"), pairs, strict=True)
        },
    )


JOBS: dict[str, Callable[[Scene, np.random.Generator], Job | None]] = {
    job.__name__: job for job in (replace, add, remove, complete, extend, repair, background, texture, style, creative)
}


def _job(
    task: str,
    scene: Scene,
    caption: str,
    prompt: str,
    *,
    changed: Sequence[VisibleObject],
    done: Check,
    truth: SceneGraph | None = None,
) -> Job:
    gone = {thing.index for thing in changed}
    kept = tuple(thing for thing in scene.objects if thing.index not in gone)
    return Job(
        task=task, scene=scene, caption=caption, prompt=prompt, kept=kept, done=done, image=scene.image, truth=truth
    )


def _damaged(scene: Scene, task: str, *, image: Image.Image, **options: Any) -> Job:
    """A picture to be made whole: nothing may appear that was not there."""

    def done(verdict: Verdict, before: Sequence[Detection]) -> dict[str, bool]:
        return {"nothing new": len(verdict.things) <= len(scene.objects)}

    job = _job(task, scene, "", f"empty {scene.graph.background}", changed=[], done=done, truth=scene.graph)
    return dataclasses.replace(job, image=image, options=options)


def _named(scene: Scene, rng: np.random.Generator) -> VisibleObject | None:
    """A thing that its kind and colour tell from all others."""
    names = [(thing.kind, thing.colour) for thing in scene.objects]
    unique = [thing for thing, name in zip(scene.objects, names, strict=True) if names.count(name) == 1]
    return unique[int(rng.integers(len(unique)))] if unique else None


def _words(thing: VisibleObject) -> str:
    return f"{_a(thing.colour)} {thing.kind}"


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _sees(verdict: Verdict, kind: str, colour: str) -> bool:
    return any((d.kind, d.colour) == (kind, colour) for d in verdict.things)


def _same_place(found: Detection, thing: VisibleObject) -> bool:
    return iou(found.box_xyxy, thing.box_xyxy) >= SAME_PLACE


def _still(verdict: Verdict, thing: VisibleObject, colour: bool = True) -> bool:
    """Whether the judge sees that thing, of its kind and colour, where it stood."""
    return any(
        d.kind == thing.kind and (not colour or d.colour == thing.colour) and _same_place(d, thing)
        for d in verdict.things
    )


def _anything_at(verdict: Verdict, thing: VisibleObject) -> bool:
    return any(_same_place(d, thing) for d in verdict.things)


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
