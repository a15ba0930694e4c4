"""The suite `search_study`: where anchors fall, what AnchorNet learns, which estimator and which ranking are better.

Each task is a scene of two or more things, one of which the caption names; its box is the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from maskless.data.boxes import box_iou, propose_regions
from maskless.data.picture import load_image
from maskless.data.result import AnchorNetReport, EditResult
from maskless.engine.editor import Editor
from maskless.engine.search_run import EditRun
from maskless.evaluation.measures.rows import Row, mean_row, share_row
from maskless.locating.proposals import find_places, propose
from maskless.locating.view import place_signs
from maskless.method.anchors import find_anchors
from maskless.method.ranking import place_score
from maskless.storybook.world.scenes import COLOURS, KINDS, render, split_seed

SOURCES = ("attention", "text", "both")
RULES = ("paper", "located")
CROP_RULES = ("crop shows the caption", "crop shows the caption, its edit the prompt")
CLEAN_COVER, CLEAN_SPILL = 0.8, 0.25
"""A clean region covers more than this of the named thing and less than that of every other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A picture, what the caption names, what is wanted instead, and where the named and the other things are."""

    image: Image.Image
    caption: str
    prompt: str
    box_xyxy: tuple[int, int, int, int]
    others_xyxy: tuple[tuple[int, int, int, int], ...]


def run(
    split: str = "validation",
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    learning: int = 50,
    steps: int = 4,
) -> list[Row]:
    """Anchors on `limit` tasks (100), learning with the table on `learning` of them, estimators on a tenth of those.

    steps: denoising steps; few, because a study of losses and places needs no finished picture.
    """
    editor = Editor.from_pretrained(models, steps=steps, guidance_scale=1.0)
    tasks = draw_tasks(split, 100 if limit is None else limit, seed_offset)
    rows = anchor_rows(editor, tasks)
    rows += place_rows(editor, tasks)
    rows += learning_rows(editor, tasks[:learning])
    rows += estimator_rows(editor, tasks[: max(1, learning // 10)])
    return rows


def draw_tasks(split: str, count: int, offset: int = 0) -> list[Task]:
    """The first `count` tasks that the scenes of a split give."""
    tasks: list[Task] = []
    index = offset
    while len(tasks) < count:
        seed = split_seed(split, index)
        scene = render(seed)
        names = [(thing.kind, thing.colour) for thing in scene.objects]
        unique = [i for i, name in enumerate(names) if names.count(name) == 1]
        if len(names) >= 2 and unique:
            chosen = unique[seed % len(unique)]
            kinds, colours = list(KINDS), list(COLOURS)
            kind = kinds[(kinds.index(names[chosen][0]) + 1 + seed % (len(kinds) - 1)) % len(kinds)]
            tasks.append(
                Task(
                    image=scene.image,
                    caption=f"a {names[chosen][1]} {names[chosen][0]}",
                    prompt=f"a {colours[seed % len(colours)]} {kind}",
                    box_xyxy=scene.objects[chosen].box_xyxy,
                    others_xyxy=tuple(thing.box_xyxy for i, thing in enumerate(scene.objects) if i != chosen),
                )
            )
        index += 1
    return tasks


def anchor_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """How well anchors of each source find the named thing, before any inpainting."""
    found: dict[tuple[str, str], list[float]] = {}
    for task in tasks:
        image = load_image(task.image).rgb
        attention = editor.models.dino.features(image).attention
        relevance = editor.models.clip.relevance(image, task.caption)
        for source in SOURCES:
            anchors = find_anchors(attention, relevance, count=editor.config.anchors, source=source)
            size_yx = (image.shape[1], image.shape[2])
            regions = propose_regions(anchors, editor.config.sizes, size_yx)
            overlap = box_iou(regions.boxes_xyxy, task.box_xyxy)
            inside = _inside(anchors.points_yx, anchors.grid_yx, size_yx, task.box_xyxy)
            clean = any(is_clean(box, task) for box in regions.boxes_xyxy.tolist())
            for metric, value in (
                ("first anchor on the thing", float(inside[0])),
                ("any anchor on the thing", float(inside.any())),
                ("a clean box among the proposals", float(clean)),
                ("best IoU among the proposals", float(overlap.max())),
            ):
                found.setdefault((source, metric), []).append(value)
    rows = []
    for (source, metric), values in found.items():
        names = {"suite": "search", "method": source, "task": "anchors", "metric": metric}
        if "IoU" in metric:
            rows.append(mean_row(values, **names))
        else:
            rows.append(share_row([v > 0 for v in values], **names))
    return rows


def place_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """Which proposal each sign of the place puts first, all four together, and those once the edges of
    the first are fitted; before any inpainting."""
    picked: dict[str, list[tuple[int, ...]]] = {}
    for task in tasks:
        request = editor.request(task.image, caption=task.caption, prompt=task.prompt)
        found = find_places(request, editor.models, editor.config)
        boxes = propose_regions(found.anchors, editor.config.sizes, request.size_yx).boxes_xyxy
        known = found.relevance, editor.models.clip, found.outline_xyxy
        signs = place_signs(request.image, boxes, task.caption, *known)
        for sign, score in {**vars(signs), "all four": place_score(signs)}.items():
            picked.setdefault(sign, []).append(tuple(boxes[int(score.argmax())].tolist()))
        fitted = propose(found, request, editor.models, replace(editor.config, fit_edges=True))
        best = fitted.regions.boxes_xyxy[int(fitted.place.argmax())]
        picked.setdefault("all four, edges fitted", []).append(tuple(best.tolist()))
    return _pick_rows(picked, tasks, task="place")


def _pick_rows(picked: dict[str, list[tuple[int, ...]]], tasks: Sequence[Task], *, task: str) -> list[Row]:
    """How well the region that each method picked fits the named thing."""
    rows = []
    for method, boxes in picked.items():
        names = {"suite": "search", "method": method, "task": task}
        overlaps = [_overlap(box, each) for box, each in zip(boxes, tasks, strict=True)]
        clean = [is_clean(box, each) for box, each in zip(boxes, tasks, strict=True)]
        rows.append(mean_row(overlaps, **names, metric="IoU of the best with the thing"))
        rows.append(share_row(clean, **names, metric="the best is clean"))
    return rows


def learning_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """Whether the expected loss falls and how far of the way, and which region each rule then puts first."""
    fell: list[bool] = []
    means: dict[str, list[float]] = {}
    picked: dict[str, list[tuple[int, ...]]] = {}
    for task in tasks:
        run = editor.start(editor.request(task.image, caption=task.caption, prompt=task.prompt))
        assert isinstance(run, EditRun)
        for _record in run:
            pass
        result = run.result()
        fell.append(_fell(result))
        figures = {
            "fall of the expected loss": -_change(result),
            "inpaintings": float(result.cost.inpaintings),
            **_of_the_gap(run, result),
        }
        for metric, value in figures.items():
            means.setdefault(metric, []).append(value)
        for rule, box in _picks(run, result, task).items():
            picked.setdefault(rule, []).append(box)
    names = {"suite": "search", "method": "table", "task": "learning"}
    rows = [share_row(fell, **names, metric="expected loss fell", gate=0.9)]
    rows += [mean_row(values, **names, metric=metric) for metric, values in means.items()]
    return rows + _pick_rows(picked, tasks, task="ranking")


def _of_the_gap(run: EditRun, result: EditResult) -> dict[str, float]:
    """How much of the way from the uniform policy to each anchor's best size was learned, over the sizes seen."""
    table = run.objective
    seen = ~table.isnan()
    uniform = (table.nan_to_num() * seen).sum(dim=1) / seen.sum(dim=1)
    best = table.nan_to_num(torch.inf).min(dim=1)
    policy = _learned(result).probabilities_after
    gap = uniform.mean() - best.values.mean()
    return {
        "share of the gap closed": float((uniform.mean() - _learned(result).expected_loss_after) / gap),
        "anchors that take their best size": float((policy.argmax(dim=1) == best.indices).float().mean()),
    }


def _picks(run: EditRun, result: EditResult, task: Task) -> dict[str, tuple[int, ...]]:
    """The region that each rule puts first among the final candidates, and the best that any rule could."""
    boxes, clip, image = result.candidates.regions.boxes_xyxy, run.models.clip, result.request.image
    shown = clip.encode_crops(image, boxes) @ clip.encode_text(task.caption)
    prompt = clip.encode_text(task.prompt)
    made = [clip.encode_crops(result.edited(i).tensor(), box[None])[0] @ prompt for i, box in enumerate(boxes)]
    scores = dict(zip(CROP_RULES, (shown, shown + torch.stack(made)), strict=True))
    picks = {rule: run.result(ranking=rule).best.box_xyxy for rule in RULES}
    picks |= {rule: tuple(boxes[int(score.argmax())].tolist()) for rule, score in scores.items()}
    ideal = max(boxes.tolist(), key=lambda box: (is_clean(box, task), _overlap(box, task)))
    return picks | {"best of the candidates": tuple(ideal)}


def estimator_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """The table against the straight-through estimator, on the same tasks, regions and noise."""
    rows = []
    for estimator in ("table", "straight-through"):
        results: list[EditResult] = []
        seconds: list[float] = []
        for task in tasks:
            result = editor.edit(task.image, caption=task.caption, prompt=task.prompt, estimator=estimator)
            results.append(result)
            seconds.append(sum(record.seconds for record in result.history) - result.cost.seconds["inpainting"])
        names = {"suite": "search", "method": estimator, "task": "estimators"}
        drops = [-_change(r) for r in results]
        surest = [float(_learned(r).probabilities_after.max(dim=1).values.mean()) for r in results]
        rows += [
            share_row([_fell(r) for r in results], **names, metric="expected loss fell"),
            mean_row(drops, **names, metric="fall of the expected loss"),
            mean_row(surest, **names, metric="largest probability, mean over anchors"),
            mean_row(seconds, **names, metric="seconds beside the inpainting"),
        ]
    return rows


def is_clean(box_xyxy: Sequence[int], task: Task) -> bool:
    """Whether a region covers nearly all of the named thing and little of every other."""
    return _covered(box_xyxy, task.box_xyxy) > CLEAN_COVER and all(
        _covered(box_xyxy, other) < CLEAN_SPILL for other in task.others_xyxy
    )


def _covered(box_xyxy: Sequence[int], thing_xyxy: Sequence[int]) -> float:
    """The share of a thing's box that a region holds."""
    x0, y0, x1, y1 = thing_xyxy
    across = max(0, min(box_xyxy[2], x1) - max(box_xyxy[0], x0))
    down = max(0, min(box_xyxy[3], y1) - max(box_xyxy[1], y0))
    return across * down / ((x1 - x0) * (y1 - y0))


def _inside(points_yx: Tensor, grid_yx: tuple[int, int], size_yx: tuple[int, int], box_xyxy: Sequence[int]) -> Tensor:
    """Which anchors' centres lie in a box, [K] of bool."""
    y, x = ((points_yx + 0.5) * torch.tensor(size_yx) / torch.tensor(grid_yx)).unbind(1)
    return (box_xyxy[0] <= x) & (x < box_xyxy[2]) & (box_xyxy[1] <= y) & (y < box_xyxy[3])


def _learned(result: EditResult) -> AnchorNetReport:
    assert result.anchor_net is not None  # a search has one
    return result.anchor_net


def _fell(result: EditResult) -> bool:
    return _change(result) < 0


def _change(result: EditResult) -> float:
    return _learned(result).expected_loss_after - _learned(result).expected_loss_before


def _overlap(box_xyxy: Sequence[int], task: Task) -> float:
    return float(box_iou(torch.tensor([list(box_xyxy)]), task.box_xyxy)[0])
