"""What the suite `tasks` asks of the editor: for each kind of edit one function from a scene to a `Job`.

A job is what the editor is asked, and what the judge must then see; None where a scene does not fit. To add a kind of
edit, write its function and name it in `JOBS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskless.storybook.judge import Detection, Verdict, iou
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.captions import STYLE_WORDS
from maskless.storybook.world.edits import other
from maskless.storybook.world.scenes import (
    COLOURS,
    KINDS,
    TEXTURES,
    Scene,
    SceneGraph,
    VisibleObject,
    render,
    split_seed,
)

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


def judged(job: Job, verdict: Verdict, before: Verdict) -> dict[str, bool]:
    """What came true of a job, by name, from what the judge sees in the result and in the picture before."""
    done = dict(job.done(verdict, before.things))
    if job.kept:
        done["everything else still seen"] = all(_still(verdict, thing) for thing in job.kept)
    return done


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
