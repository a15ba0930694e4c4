"""What the suite `tasks` asks of the editor: for each kind of edit one function from a scene to a `Job`.

A job is a request to the editor, and what the judge must see in the result; it is None where a scene does not fit. To
add a kind of edit, write its function and name it in `JOBS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from maskless.data.errors import require
from maskless.storybook.judge import Detection, Verdict, iou
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.captions import STYLE_WORDS
from maskless.storybook.world.edits import choose_other
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, SceneGraph
from maskless.storybook.world.scenes import Scene, VisibleObject, render, split_seed

SAME_OBJECT_IOU = 0.3
"""A detection whose box has this IoU with an object's is that object: edits move edges."""
NEW_OBJECT, NAMED_GONE, OTHERS_KEPT = "new object seen", "named object gone", "all other objects still seen"
"""Parts of an edit's success that several kinds of edit share."""

REQUESTS = ("plain", "crowded", "paraphrased")
"""Kinds of requests: any scene that a task can use; scenes of at least CROWD objects; the caption in other words."""
CROWD = 4
PARAPHRASES = (
    "the one {kind} that is {colour}", "a {kind} of {colour} colour", "{colour} coloured {kind}",
    "the {kind} which looks {colour}", "that {colour} {kind} over there", "a {kind}, {colour}",
)  # fmt: skip
"""Wordings that no model was trained on; some of their words are not in the vocabulary of the drawn world."""

Check = Callable[[Verdict, Sequence[Detection]], dict[str, bool]]
"""From what the judge sees in the result, and the objects in the picture before, to what was achieved, by name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One request and its truth.

    image: what the editor gets: the scene's picture, or a damaged copy. options: further arguments of `Editor.edit`.
    kept: the objects that must still be seen. done: what must have been achieved; the edit succeeds if all of it is.
    truth: the scene as the edit should make it, where there is exactly one such scene; what the judge sees in it is the
    best that an edit can achieve. wanted: kind and colour of each object that the edit draws.
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
    wanted: Sequence[tuple[str, str]] = ()


def draw_jobs(task: str, split: str, count: int, offset: int = 0, *, requests: str = "plain") -> list[Job]:
    """The first `count` jobs that the scenes of a split give; the same in each call.

    requests: one of REQUESTS; "paraphrased" is only for tasks whose caption names one object.

    Raises:
        MasklessError: another kind of requests.
    """
    require(requests in REQUESTS, f"requests must be one of {', '.join(REQUESTS)}, got {requests!r}")
    jobs: list[Job] = []
    index = offset
    while len(jobs) < count:
        seed = split_seed(split, index)
        scene, rng = render(seed), np.random.default_rng(seed)
        if requests != "crowded" or len(scene.objects) >= CROWD:
            job = JOBS[task](scene, rng)
            if job is not None:
                jobs.append(_paraphrased(job, rng) if requests == "paraphrased" else job)
        index += 1
    return jobs


def _paraphrased(job: Job, rng: np.random.Generator) -> Job:
    """The job with its caption, such as "a red car", in a random one of PARAPHRASES."""
    _, colour, kind = job.caption.split(" ", 2)
    return dataclasses.replace(job, caption=str(rng.choice(PARAPHRASES)).format(colour=colour, kind=kind))


def judged(job: Job, verdict: Verdict, before: Verdict) -> dict[str, bool]:
    """What was achieved of a job, by name, from what the judge sees in the result and in the picture before."""
    done = dict(job.done(verdict, before.objects))
    if job.kept:
        done[OTHERS_KEPT] = all(_still_seen(verdict, each) for each in job.kept)
    return done


def replace(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The paper's edit: one named object becomes another, of another kind and colour."""
    named = _named(scene, rng)
    if named is None:
        return None
    kind, colour = choose_other(KINDS, named.kind, rng), choose_other(tuple(COLOURS), named.colour, rng)
    return Job(
        task="replace",
        scene=scene,
        image=scene.image,
        caption=_words(named),
        prompt=f"{_a(colour)} {kind}",
        kept=_all_but(scene, named),
        done=lambda verdict, _: {
            NEW_OBJECT: _sees(verdict, kind, colour),
            NAMED_GONE: not _still_seen(verdict, named),
        },
        truth=scene.graph.replace_object(named.index, kind=kind, colour=colour),
        wanted=((kind, colour),),
    )


def add(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A new object, of a kind that the scene does not have, in a scene with room for it."""
    if not 1 <= len(scene.objects) <= 3 or np.any([each.mask for each in scene.objects], axis=0).mean() > 0.3:
        return None
    kinds = {each.kind for each in scene.objects}
    kind = str(rng.choice([k for k in KINDS if k not in kinds]))
    colour = str(rng.choice(list(COLOURS)))
    return Job(
        task="add",
        scene=scene,
        image=scene.image,
        caption="",
        prompt=f"{_a(colour)} {kind}",
        kept=scene.objects,
        done=lambda verdict, _: {NEW_OBJECT: _sees(verdict, kind, colour)},
        wanted=((kind, colour),),
    )


def remove(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A named object is removed."""
    named = _named(scene, rng)
    if named is None:
        return None
    return Job(
        task="remove",
        scene=scene,
        image=scene.image,
        caption=_words(named),
        prompt=f"empty {scene.graph.background}",
        kept=_all_but(scene, named),
        done=lambda verdict, _: {NAMED_GONE: not _anything_at(verdict, named)},
        truth=scene.graph.remove_object(named.index),
    )


def complete(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The middle of the picture is missing, where there was no object."""
    box = (40, 40, 88, 88)
    if any(each.mask[40:88, 40:88].any() for each in scene.objects):
        return None
    image = scene.image.copy()
    image.paste((128, 128, 128), box)
    return _damaged(scene, "complete", image=image, box=box)


def repair(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The picture has scratches across it."""
    if not scene.objects:
        return None
    image = scene.image.copy()
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        ends = [float(v) for v in rng.uniform(0, image.width, 4)]
        pen.line(ends, fill=(245, 245, 245), width=2)
    return _damaged(scene, "repair", image=image)


def extend(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The canvas grows by a quarter on every side. The objects in it are the original's, so the judge only looks for
    new ones."""
    return dataclasses.replace(_damaged(scene, "extend", image=scene.image, extend=0.25), kept=(), truth=None)


def background(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The same objects get another background."""
    if not scene.objects:
        return None
    wanted = choose_other(tuple(BACKGROUNDS), scene.graph.background, rng)
    return Job(
        task="background",
        scene=scene,
        image=scene.image,
        caption=" and ".join(_words(each) for each in scene.objects),
        prompt=f"empty {wanted}",
        kept=scene.objects,
        done=lambda verdict, _: {"new background seen": verdict.background == wanted},
        truth=scene.graph.with_background(wanted),
    )


def texture(scene: Scene, rng: np.random.Generator) -> Job | None:
    """A plain object that is large enough gets a texture."""
    named = _named(scene, rng)
    if named is None or named.texture != "plain" or scene.graph.objects[named.index].size < 0.25:
        return None
    wanted = choose_other(TEXTURES, "plain", rng)
    return Job(
        task="texture",
        scene=scene,
        image=scene.image,
        caption=_words(named),
        prompt=f"{_a(named.colour)} {wanted} {named.kind}",
        kept=_all_but(scene, named),
        done=lambda verdict, _: {
            "texture seen": any(
                (seen.kind, seen.texture) == (named.kind, wanted) for seen in verdict.objects if _is_at(seen, named)
            )
        },
        truth=scene.graph.replace_object(named.index, texture=wanted),
    )


def style(scene: Scene, rng: np.random.Generator) -> Job | None:
    """The whole picture in another style, with most objects still seen."""
    if not scene.objects or scene.graph.style != "flat":
        return None
    wanted = choose_other(tuple(STYLE_WORDS), "flat", rng)

    def done(verdict: Verdict, before: Sequence[Detection]) -> dict[str, bool]:
        kept = [_still_seen(verdict, each, colour=False) for each in scene.objects]
        return {"style seen": verdict.style == wanted, "80 % of the objects seen": bool(np.mean(kept) >= 0.8)}

    return Job(
        task="style",
        scene=scene,
        image=scene.image,
        caption=scene.caption,
        prompt=f"{scene.caption}, {STYLE_WORDS[wanted][0]}",
        kept=(),
        done=done,
        truth=scene.graph.with_style(wanted),
    )


def creative(scene: Scene, rng: np.random.Generator) -> Job | None:
    """One prompt asks for two new objects."""
    if len(scene.objects) > 1:
        return None
    present = {each.kind for each in scene.objects}
    kinds = rng.choice([k for k in KINDS if k not in present], 2, replace=False).tolist()
    colours = rng.choice(list(COLOURS), 2, replace=False).tolist()
    pairs = dict(zip(("first object seen", "second object seen"), zip(kinds, colours, strict=True), strict=True))
    return Job(
        task="creative",
        scene=scene,
        image=scene.image,
        caption="",
        prompt=" and ".join(f"{_a(colour)} {kind}" for kind, colour in pairs.values()),
        kept=scene.objects,
        done=lambda verdict, _: {name: _sees(verdict, *pair) for name, pair in pairs.items()},
        wanted=tuple(pairs.values()),
    )


JOBS: dict[str, Callable[[Scene, np.random.Generator], Job | None]] = {
    job.__name__: job for job in (replace, add, remove, complete, extend, repair, background, texture, style, creative)
}


def _damaged(scene: Scene, task: str, *, image: Image.Image, **options: Any) -> Job:
    """A picture to be made whole: no object may appear that was not there."""
    return Job(
        task=task,
        scene=scene,
        image=image,
        caption="",
        prompt=f"empty {scene.graph.background}",
        kept=scene.objects,
        done=lambda verdict, _: {"nothing new": len(verdict.objects) <= len(scene.objects)},
        options=options,
        truth=scene.graph,
    )


def _all_but(scene: Scene, changed: VisibleObject) -> tuple[VisibleObject, ...]:
    return tuple(each for each in scene.objects if each.index != changed.index)


def _named(scene: Scene, rng: np.random.Generator) -> VisibleObject | None:
    """A random object whose kind and colour distinguish it from all others."""
    names = [(each.kind, each.colour) for each in scene.objects]
    unique = [each for each, name in zip(scene.objects, names, strict=True) if names.count(name) == 1]
    return unique[int(rng.integers(len(unique)))] if unique else None


def _words(each: VisibleObject) -> str:
    return f"{_a(each.colour)} {each.kind}"


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _sees(verdict: Verdict, kind: str, colour: str) -> bool:
    return any((seen.kind, seen.colour) == (kind, colour) for seen in verdict.objects)


def _is_at(seen: Detection, wanted: VisibleObject) -> bool:
    return iou(seen.box_xyxy, wanted.box_xyxy) >= SAME_OBJECT_IOU


def _still_seen(verdict: Verdict, wanted: VisibleObject, colour: bool = True) -> bool:
    """Whether the judge sees that object, with its kind and colour, where it was."""
    return any(
        seen.kind == wanted.kind and (not colour or seen.colour == wanted.colour) and _is_at(seen, wanted)
        for seen in verdict.objects
    )


def _anything_at(verdict: Verdict, wanted: VisibleObject) -> bool:
    return any(_is_at(seen, wanted) for seen in verdict.objects)
