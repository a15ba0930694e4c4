"""The suite `crispness`: how sharp and how seamless drawn regions are, compared with what the renderer draws there.

The true box is given, so that the search has no influence. The scenes are flat drawings of 256 pixels a side. In each,
the frontmost object is replaced by one of another kind and colour, and the truth is the same scene with that object in
its place. Then such an object is added where there was none, and the object is removed. Lastly the empty middle of a
scene is completed.

The critic (storybook/critic.py) says whether a drawn object is right and which parts it has. It says so of the truth
too, encoded and decoded (method "truth"): what is missing there is the critic's own mistake or the autoencoder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from maskless.data.boxes import context_window
from maskless.data.model_options import ModelOptions
from maskless.data.paste import crop_window, paste_back
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.rows import Row, RowNames, mean_row, share_row
from maskless.evaluation.methods.bench import ENGINE, Bench, drawn_right, inpaint, objects_in, shows
from maskless.evaluation.methods.cases import Box
from maskless.evaluation.suite import SuiteOptions, critic_folder, judge_folder
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.pretrained import load_models
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Judge, Verdict
from maskless.storybook.world.edits import choose_other
from maskless.storybook.world.graph import COLOURS, KINDS, SceneGraph, sample
from maskless.storybook.world.scenes import Scene, draw, split_seed, visible_parts
from maskless.storybook.world.sheets import to_tensor

TAKES = ("split", "limit", "seed_offset", "models", "steps", "sheets", "progress")
SIDE = 256
"""Side of the scenes in pixels."""
SCENES = 60
STRONGEST = 0.05
"""Share of the gradients in a box whose mean is taken: the strongest ones."""
AWAY_PX = 8
"""Width of the margin around the new object of the truth that does not count as background, in pixels."""
ROOM = 0.1
"""Room around the objects on each side, as a share of the longer side of their box."""
RIGHT_GATE, PARTS_GATE = 0.85, 0.75
"""The shares of new objects drawn right, and of their parts found, that are wanted."""
TRUTH = "truth"
"""The method of rows about the truth, encoded and decoded."""
ON_THE_SHEET, COLUMNS = 24, 8
GAP_PX = 4
"""Gap between the pictures of the sheet, in pixels; between its bands it is four times as large."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A box of a scene that is drawn by a prompt, and the truth: the scene as it should be afterwards.

    box: half-open, in pixels. new_object: the mask [256, 256] of the new object in the truth, True on it; None if the
    box should be empty. wanted: kind and colour of the new object, None likewise. parts: the named parts of the new
    object that can be seen in the truth.
    """

    scene: Scene
    box: Box
    prompt: str
    truth: Scene
    new_object: np.ndarray | None = None
    wanted: tuple[str, str] | None = None
    parts: tuple[str, ...] = ()


def run(options: SuiteOptions) -> list[Row]:
    """Replace, add, remove and complete on `limit` scenes (60) each.

    steps: denoising steps of the inpainter; its own number where None. sheets: a folder for a picture of the first 24
    replacements, the source above the result above the truth, for a person to judge.
    """
    count = options.limit or SCENES
    bench = Bench(
        models=load_models(ModelOptions(models=options.models)),
        judge=Judge.from_pretrained(judge_folder(options.models)),
        scenes=[],
        seeds=[],
        steps=options.steps,
    )
    tasks = {name: draw_tasks(name, options.split, count, options.seed_offset) for name in TASKS}
    results: dict[str, list[Tensor]] = {name: [] for name in TASKS}
    for name, each in tasks.items():
        for number, task in enumerate(each):
            result = inpaint(
                bench, task.scene, task.box, task.prompt, number,
                is_object=task.new_object is not None, replaces=name != "add",
            )  # fmt: skip
            results[name].append(result)
            options.progress(sum(map(len, results.values())), len(TASKS) * count)
    if options.sheets is not None:
        options.sheets.mkdir(parents=True, exist_ok=True)
        contact_sheet(tasks["replace"], results["replace"]).save(options.sheets / "crispness.png")
    critic = Critic.from_pretrained(critic_folder(options.models))
    rows: list[Row] = []
    for name in ("replace", "add"):
        truth = [through_autoencoder(bench, task, side=_finest_px(bench)) for task in tasks[name]]
        rows += object_rows(name, bench.judge, tasks[name], results[name])
        rows += drawing_rows(name, (bench.judge, critic), tasks[name], results[name])
        rows += drawing_rows(name, (bench.judge, critic), tasks[name], truth, method=TRUTH)
    for name in ("remove", "complete"):
        rows += empty_rows(name, bench, tasks[name], results[name])
    return rows


def object_rows(name: str, judge: Judge, tasks: Sequence[Task], results: Sequence[Tensor]) -> list[Row]:
    """Edges and background compared with the truth, and whether the judge sees the new object. name: replace or add."""
    pairs = list(zip(results, tasks, strict=True))
    edges = [edge_strength(result, task.box) / edge_strength(_tensor(task.truth), task.box) for result, task in pairs]
    behind = [background_difference(result, task) for result, task in pairs]
    seen = [
        task.wanted is not None and shows(verdict, task.box, *task.wanted)
        for verdict, task in zip(judge.detect([_picture(result) for result in results]), tasks, strict=True)
    ]
    differences = [value for value in behind if value is not None]
    return [
        mean_row(edges, metric=figures.EDGES, **_names(name, 0.8)),
        *([mean_row(differences, metric=figures.BOX_BACKGROUND, **_names(name))] if differences else []),
        share_row(seen, metric=figures.NEW_OBJECT_SEEN, **_names(name)),
    ]


def drawing_rows(
    name: str,
    judges: tuple[Judge, Critic],
    tasks: Sequence[Task],
    results: Sequence[Tensor],
    *,
    method: str = "storybook",
) -> list[Row]:
    """Whether the new objects are drawn right, and the share of their parts that are found.

    An object is right if the judge sees it in its kind and colour, and the critic calls that a right drawing of it. Its
    parts are sought in the same crop of 48 pixels, or around the truth's box where the judge does not see it. The crop
    shows the whole object and not one part, since a redrawn object may have its part a little elsewhere. The critic
    has learned from objects that lack some parts, but still finds about a quarter of those that are missing
    (docs/model-card.md), so the share is an upper estimate. All parts count alike.
    """
    (judge, critic), right, found = judges, [], []
    pictures = [_picture(result) for result in results]
    for picture, verdict, task in zip(pictures, judge.detect(pictures), tasks, strict=True):
        assert task.wanted is not None
        right.append(drawn_right(critic, picture, objects_in(verdict, task.box), *task.wanted))
        (opinion,) = critic.examine([picture], [_box_of_new_object(verdict, task)])
        found += [part in opinion.parts for part in task.parts]
    of_models = method != TRUTH
    return [
        share_row(right, metric=figures.NEW_OBJECT_RIGHT, **_names(name, RIGHT_GATE if of_models else None, method)),
        *(
            [share_row(found, metric=figures.PARTS_FOUND, **_names(name, PARTS_GATE if of_models else None, method))]
            if found
            else []
        ),
    ]


def empty_rows(name: str, bench: Bench, tasks: Sequence[Task], results: Sequence[Tensor]) -> list[Row]:
    """PSNR in the box, that of the truth through the autoencoder, the difference of both, and whether the judge sees
    the box empty. name: remove or complete."""
    own = [box_psnr(result, _tensor(task.truth), task.box) for result, task in zip(results, tasks, strict=True)]
    best = [box_psnr(through_autoencoder(bench, task), _tensor(task.truth), task.box) for task in tasks]
    behind = [bound - reached for bound, reached in zip(best, own, strict=True)]
    verdicts = bench.judge.detect([_picture(result) for result in results])
    bare = [not objects_in(verdict, task.box) for verdict, task in zip(verdicts, tasks, strict=True)]
    return [
        mean_row(own, metric=figures.BOX_PSNR, **_names(name)),
        mean_row(best, metric=figures.BOX_AUTOENCODER_PSNR, **_names(name)),
        mean_row(behind, metric=figures.BOX_PSNR_BEHIND, **_names(name)),
        share_row(bare, metric=figures.BOX_EMPTY, **_names(name)),
    ]


def draw_tasks(name: str, split: str, count: int, offset: int = 0) -> list[Task]:
    """The first `count` tasks of one kind from the scenes of a split, the same at every call.

    offset: the first scene of the split.
    """
    tasks: list[Task] = []
    index = offset
    while len(tasks) < count:
        seed = split_seed(split, index)
        graph = sample(seed)
        task = TASKS[name](graph, np.random.default_rng(seed)) if graph.style == "flat" else None
        if task is not None:
            tasks.append(task)
        index += 1
    return tasks


def replace_task(graph: SceneGraph, rng: np.random.Generator) -> Task | None:
    """The frontmost object becomes a plain one of another kind and colour in the same place; None without objects."""
    if not graph.objects:
        return None
    last = len(graph.objects) - 1
    kind = choose_other(KINDS, graph.objects[last].kind, rng)
    colour = choose_other(tuple(COLOURS), graph.objects[last].colour, rng)
    scene = draw(graph, SIDE)
    old = next(item for item in scene.objects if item.index == last)
    return _object_task(scene, graph.replace_object(last, kind=kind, colour=colour, texture="plain"), [old.box_xyxy])


def add_task(graph: SceneGraph, rng: np.random.Generator) -> Task | None:
    """A plain object of a random kind appears where the source lacks the frontmost object; None without objects, or if
    another object extends into the box."""
    if not graph.objects:
        return None
    last, kind, colour = len(graph.objects) - 1, str(rng.choice(KINDS)), str(rng.choice(list(COLOURS)))
    scene = draw(graph.remove_object(last), SIDE)
    task = _object_task(scene, graph.replace_object(last, kind=kind, colour=colour, texture="plain"), [])
    return None if _extends_into(scene, task.box) else task


def remove_task(graph: SceneGraph, rng: np.random.Generator) -> Task | None:
    """The frontmost object disappears; None without objects, or if another object extends into the box."""
    if not graph.objects:
        return None
    scene, last = draw(graph, SIDE), len(graph.objects) - 1
    box = _square([item.box_xyxy for item in scene.objects if item.index == last])
    truth = draw(graph.remove_object(last), SIDE)
    if _extends_into(truth, box):
        return None
    return Task(scene=scene, box=box, prompt=f"empty {graph.background}", truth=truth)


def complete_task(graph: SceneGraph, rng: np.random.Generator) -> Task | None:
    """The middle, three eighths of the side wide, is missing; None if an object extends into it."""
    scene, low, high = draw(graph, SIDE), SIDE * 5 // 16, SIDE * 11 // 16
    box = (low, low, high, high)
    if _extends_into(scene, box):
        return None
    return Task(scene=scene, box=box, prompt=f"empty {graph.background}", truth=scene)


TASKS = {"replace": replace_task, "add": add_task, "remove": remove_task, "complete": complete_task}


def edge_strength(image: Float[Tensor, "3 H W"], box: Box) -> float:
    """The mean of the strongest 5 % of the gradients of the luminance in a box. image: RGB in [0, 1]."""
    x0, y0, x1, y1 = box
    red, green, blue = image[:, y0:y1, x0:x1]
    luminance = 0.299 * red + 0.587 * green + 0.114 * blue
    across, down = luminance.diff(dim=1)[:-1], luminance.diff(dim=0)[:, :-1]
    gradients = (across.square() + down.square()).sqrt().flatten()
    return float(gradients.topk(max(1, round(STRONGEST * len(gradients)))).values.mean())


def background_difference(result: Float[Tensor, "3 H W"], task: Task) -> float | None:
    """The mean absolute difference from the truth in the box, without the new object and a margin of AWAY_PX, 0 to 255.

    It is None if no such pixels are in the box. result: RGB in [0, 1].
    """
    assert task.new_object is not None
    x0, y0, x1, y1 = task.box
    away = _away_from(torch.from_numpy(task.new_object))[y0:y1, x0:x1]
    difference = (result - _tensor(task.truth)).abs().mean(dim=0)[y0:y1, x0:x1][away]
    return float(difference.mean() * 255) if difference.numel() else None


def box_psnr(result: Float[Tensor, "3 H W"], truth: Float[Tensor, "3 H W"], box: Box) -> float:
    """The peak signal-to-noise ratio inside a box, in dB, at most 100. Both pictures are in [0, 1]."""
    x0, y0, x1, y1 = box
    return float(-10 * torch.log10((result - truth)[:, y0:y1, x0:x1].square().mean().clamp_min(1e-10)))


@torch.no_grad()
def through_autoencoder(bench: Bench, task: Task, side: int | None = None) -> Float[Tensor, "3 H W"]:
    """The truth with its box encoded and decoded: the best possible result of an inpainting.

    side: of the window that is encoded, in pixels; the inpainter's own where None.
    """
    inpainter, truth = bench.models.inpainter, _tensor(task.truth)
    assert isinstance(inpainter, StableDiffusionInpainter)
    window = context_window(task.box, (SIDE, SIDE), context=ENGINE.context)
    crop = crop_window(truth, window, side or inpainter.native_px)[None].to(inpainter.device)
    drawn = inpainter.decode(inpainter.latents_of(crop * 2 - 1))[0].to(torch.float32) / 255
    return paste_back(truth, drawn, window, task.box, feather=0.0)


def contact_sheet(tasks: Sequence[Task], results: Sequence[Tensor]) -> Image.Image:
    """The first 24 tasks, eight in a band: the source above the result above the truth."""
    shown = list(zip(tasks, results, strict=True))[:ON_THE_SHEET]
    bands = [shown[start : start + COLUMNS] for start in range(0, len(shown), COLUMNS)]
    step = SIDE + GAP_PX
    height = 3 * step + 3 * GAP_PX
    page = Image.new("RGB", (COLUMNS * step, len(bands) * height), "white")
    for band, each in enumerate(bands):
        for column, (task, result) in enumerate(each):
            for row, picture in enumerate((task.scene.image, _picture(result), task.truth.image)):
                page.paste(picture, (column * step, band * height + row * step))
    return page


def _names(task: str, gate: float | None = None, method: str = "storybook") -> RowNames:
    return {"suite": "crispness", "method": method, "task": task, "gate": gate}


def _finest_px(bench: Bench) -> int:
    """The side of the window in which objects are drawn last: the redrawer's if they are refined."""
    redrawer = bench.models.redrawer if bench.models.refinement is not None else None
    return (redrawer or bench.models.inpainter).native_px


def _object_task(scene: Scene, wanted: SceneGraph, boxes: Sequence[Box]) -> Task:
    """The frontmost object of a graph is to be drawn, in a box around it and around other boxes."""
    truth, last = draw(wanted, SIDE), len(wanted.objects) - 1
    new = next(item for item in truth.objects if item.index == last)
    return Task(
        scene=scene,
        box=_square([*boxes, new.box_xyxy]),
        prompt=f"{'an' if new.colour[0] in 'aeiou' else 'a'} {new.colour} {new.kind}",
        truth=truth,
        new_object=new.mask,
        wanted=(new.kind, new.colour),
        parts=tuple(visible_parts(wanted, last, SIDE)),
    )


def _box_of_new_object(verdict: Verdict, task: Task) -> Sequence[float]:
    """The box in which the judge sees the wanted object; the truth's where it does not see it."""
    assert task.new_object is not None
    seen = [each for each in objects_in(verdict, task.box) if (each.kind, each.colour) == task.wanted]
    if seen:
        return seen[0].box_xyxy
    rows, columns = np.flatnonzero(task.new_object.any(axis=1)), np.flatnonzero(task.new_object.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _square(boxes: Sequence[Box]) -> Box:
    """A square around boxes with some room, moved into the picture."""
    lows = [min(box[axis] for box in boxes) for axis in (0, 1)]
    highs = [max(box[axis + 2] for box in boxes) for axis in (0, 1)]
    spans = [high - low for low, high in zip(lows, highs, strict=True)]
    width = min(SIDE, round(max(spans) * (1 + 2 * ROOM)))
    middles = [(low + high - width) / 2 for low, high in zip(lows, highs, strict=True)]
    left, top = (min(max(0, round(middle)), SIDE - width) for middle in middles)
    return left, top, left + width, top + width


def _extends_into(scene: Scene, box: Box) -> bool:
    """Whether any object of the scene has visible pixels in the box."""
    x0, y0, x1, y1 = box
    return any(bool(item.mask[y0:y1, x0:x1].any()) for item in scene.objects)


def _away_from(mask: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """The pixels that are more than AWAY_PX from every pixel of the mask, horizontally or vertically."""
    near = F.max_pool2d(mask.to(torch.float32)[None, None], 2 * AWAY_PX + 1, stride=1, padding=AWAY_PX)
    return near[0, 0] == 0


def _tensor(scene: Scene) -> Float[Tensor, "3 H W"]:
    return to_tensor(scene.image)


def _picture(image: Float[Tensor, "3 H W"]) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
