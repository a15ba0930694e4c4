"""The suite `search-study`: where anchors lie, what AnchorNet learns, which estimator and which ranking are better.

Each task is a scene of two or more objects, one of which the caption names; its box is the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from maskless.data.boxes import box_iou, corners, propose_regions
from maskless.data.result import AnchorNetReport, EditResult
from maskless.engine.editor import Editor
from maskless.engine.search_run import SearchRun
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.rows import Figures, Row, RowNames, rows_of_figures, share_row
from maskless.evaluation.methods.cases import Box
from maskless.evaluation.suite import SuiteOptions
from maskless.locating.location import locate, looks_like, propose
from maskless.method.anchors import find_anchors
from maskless.method.ranking import location_score
from maskless.storybook.world.graph import COLOURS, KINDS
from maskless.storybook.world.scenes import render, split_seed

TAKES = ("split", "limit", "seed_offset", "models", "steps")
TASKS, LEARNED, STEPS = 100, 50, 4
"""How many tasks there are, on how many of them learning is studied, and how many denoising steps are made: few,
because a study of losses and locations needs no finished picture."""
SOURCES = ("attention", "text", "both")
RULES = ("paper", "located")
CROP_RULES = ("crop shows the caption", "crop shows the caption, its edit the prompt")
CLEAN_COVER, CLEAN_SPILL = 0.8, 0.25
"""A clean region covers more than CLEAN_COVER of the named object and less than CLEAN_SPILL of every other."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A picture, a caption that names one object in it, a prompt for another object in its place, and the boxes of the
    named object and of all others."""

    image: Image.Image
    caption: str
    prompt: str
    box_xyxy: Box
    others_xyxy: tuple[Box, ...]


def run(options: SuiteOptions) -> list[Row]:
    """Anchors on `limit` tasks (100), learning on the first 50 of them, estimators on the first 5.

    steps: denoising steps, 4 by default.
    """
    steps = options.steps or STEPS
    editor = Editor.from_pretrained(options.models, steps=steps, guidance_scale=1.0, search="learned")
    tasks = draw_tasks(options.split, options.limit or TASKS, options.seed_offset)
    rows = anchor_rows(editor, tasks)
    rows += location_rows(editor, tasks)
    rows += found_rows(editor, tasks)
    rows += learning_rows(editor, tasks[:LEARNED])
    rows += estimator_rows(editor, tasks[: max(1, LEARNED // 10)])
    return rows


def draw_tasks(split: str, count: int, offset: int = 0) -> list[Task]:
    """The first `count` tasks that the scenes of a split give."""
    tasks: list[Task] = []
    index = offset
    while len(tasks) < count:
        seed = split_seed(split, index)
        scene = render(seed)
        names = [(each.kind, each.colour) for each in scene.objects]
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
                    others_xyxy=tuple(each.box_xyxy for i, each in enumerate(scene.objects) if i != chosen),
                )
            )
        index += 1
    return tasks


def anchor_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """How well the anchors of each source find the named object, before any inpainting."""
    found: dict[str, list[Figures]] = {source: [] for source in SOURCES}
    for task in tasks:
        view = editor.look(task.image)
        attention, relevance = view.features.attention, view.relevance(task.caption)
        for source in SOURCES:
            anchors = find_anchors(attention, relevance, count=editor.config.anchors, source=source)
            regions = propose_regions(anchors, editor.config.sizes, view.size_yx)
            overlap = box_iou(regions.boxes_xyxy, task.box_xyxy)
            inside = _inside(anchors.points_yx, anchors.grid_yx, view.size_yx, task.box_xyxy)
            clean = any(is_clean(box, task) for box in regions.boxes_xyxy.tolist())
            measured: Figures = {
                figures.FIRST_ANCHOR: bool(inside[0]),
                figures.ANY_ANCHOR: bool(inside.any()),
                figures.CLEAN_PROPOSAL: clean,
                figures.BEST_PROPOSAL_IOU: float(overlap.max()),
            }
            found[source].append(measured)
    return _rows("anchors", found)


def _rows(task: str, found: Mapping[str, Sequence[Figures]]) -> list[Row]:
    """The rows of several methods; each measures the same figures on every task."""
    rows = []
    for method, each in found.items():
        rows += rows_of_figures(each, each[0] if each else (), suite="search", method=method, task=task)
    return rows


def location_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """How well the proposal that ranks first fits the object, before any inpainting.

    The proposals are ranked by each sign of the location alone, by all four together, and by all four after the edges
    of the first proposal were fitted.
    """
    picked: dict[str, list[Box]] = {}
    config = editor.config.resolved()
    for task in tasks:
        view = editor.look(task.image)
        found = locate(view, task.caption, config)
        boxes = propose_regions(found.anchors, config.sizes, view.size_yx).boxes_xyxy
        signs = view.signs(view.scaled(boxes), task.caption, outline_xyxy=found.outline_xyxy)
        for sign, score in {**vars(signs), "all four": location_score(signs)}.items():
            picked.setdefault(sign, []).append(corners(boxes[int(score.argmax())]))
        fitted = propose(view, task.caption, found, replace(config, fit_edges=True))
        best = fitted.regions.boxes_xyxy[int(fitted.score.argmax())]
        picked.setdefault("all four, edges fitted", []).append(corners(best))
    return _pick_rows(picked, tasks, task="location")


def _pick_rows(picked: Mapping[str, Sequence[Box]], tasks: Sequence[Task], *, task: str) -> list[Row]:
    """How well the region that each method ranks first fits the named object."""
    found: dict[str, list[Figures]] = {}
    for method, boxes in picked.items():
        pairs = list(zip(boxes, tasks, strict=True))
        found[method] = [
            {figures.PICK_IOU: _overlap(box, each), figures.PICK_CLEAN: is_clean(box, each)} for box, each in pairs
        ]
    return _rows(task, found)


def found_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """How often the picture is taken to show what a caption names: the named object, and an object that is not in the
    picture (the prompt's)."""
    found: dict[str, list[Figures]] = {"an object of the picture": [], "an object that is not in it": []}
    config = editor.config.resolved()
    for task in tasks:
        view = editor.look(task.image)
        for method, caption in zip(found, (task.caption, task.prompt), strict=True):
            proposals = propose(view, caption, locate(view, caption, config), config)
            found[method].append({figures.CAPTION_FOUND: looks_like(view, caption, proposals)})
    return _rows("found", found)


def learning_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """Whether the expected loss falls and how far, and which region each rule then ranks first."""
    found: list[Figures] = []
    picked: dict[str, list[Box]] = {}
    for task in tasks:
        run = editor.start(editor.request(task.image, caption=task.caption, prompt=task.prompt))
        assert isinstance(run, SearchRun)
        result = run.result()
        measured: Figures = {
            figures.LOSS_FELL: _fell(result),
            figures.LOSS_FALL: -_change(result),
            figures.INPAINTINGS: float(result.cost.inpaintings),
            **_gap_figures(run, result),
        }
        found.append(measured)
        for rule, box in _picks(run, result, task).items():
            picked.setdefault(rule, []).append(box)
    names: RowNames = {"suite": "search", "method": "table", "task": "learning"}
    gates: RowNames = {**names, "gate": 0.9}
    rows = [share_row([one[figures.LOSS_FELL] for one in found], metric=figures.LOSS_FELL, **gates)]
    rows += rows_of_figures(found, [metric for metric in found[0] if metric != figures.LOSS_FELL], **names)
    return rows + _pick_rows(picked, tasks, task="ranking")


def _gap_figures(run: SearchRun, result: EditResult) -> dict[str, float]:
    """How much of the way from the uniform policy to each anchor's best size was learned, over the sizes that were
    tried."""
    table = run.objective
    tried = ~table.isnan()
    uniform = (table.nan_to_num() * tried).sum(dim=1) / tried.sum(dim=1)
    best = table.nan_to_num(torch.inf).min(dim=1)
    policy = _learned(result).probabilities_after
    gap = uniform.mean() - best.values.mean()
    return {
        figures.GAP_CLOSED: float((uniform.mean() - _learned(result).expected_loss_after) / gap),
        figures.BEST_SIZES: float((policy.argmax(dim=1) == best.indices).float().mean()),
    }


def _picks(run: SearchRun, result: EditResult, task: Task) -> dict[str, Box]:
    """The region that each rule ranks first among the final candidates, and the best that any rule could pick."""
    boxes, clip, image = result.candidates.regions.boxes_xyxy, run.models.clip, result.request.image
    shown = clip.encode_crops(image, boxes) @ clip.encode_text(task.caption)
    prompt = clip.encode_text(task.prompt)
    made = [clip.encode_crops(result.edited(i).tensor(), box[None])[0] @ prompt for i, box in enumerate(boxes)]
    scores = dict(zip(CROP_RULES, (shown, shown + torch.stack(made)), strict=True))
    picks = {rule: run.result(ranking=rule).best.box_xyxy for rule in RULES}
    picks |= {rule: corners(boxes[int(score.argmax())]) for rule, score in scores.items()}
    every = [corners(box) for box in boxes]
    return picks | {"best of the candidates": max(every, key=lambda box: (is_clean(box, task), _overlap(box, task)))}


def estimator_rows(editor: Editor, tasks: Sequence[Task]) -> list[Row]:
    """The table against the straight-through estimator, on the same tasks, regions and noise."""
    found: dict[str, list[Figures]] = {"table": [], "straight-through": []}
    for estimator, each in found.items():
        for task in tasks:
            result = editor.edit(task.image, caption=task.caption, prompt=task.prompt, estimator=estimator)
            seconds = sum(record.seconds for record in result.history)
            measured: Figures = {
                figures.LOSS_FELL: _fell(result),
                figures.LOSS_FALL: -_change(result),
                figures.LARGEST_PROBABILITY: float(_learned(result).probabilities_after.max(dim=1).values.mean()),
                figures.SECONDS_OF_LEARNING: seconds - result.cost.seconds["inpainting"],
            }
            each.append(measured)
    return _rows("estimators", found)


def is_clean(box_xyxy: Sequence[int], task: Task) -> bool:
    """Whether a region covers nearly all of the named object and little of every other."""
    return _covered(box_xyxy, task.box_xyxy) > CLEAN_COVER and all(
        _covered(box_xyxy, other) < CLEAN_SPILL for other in task.others_xyxy
    )


def _covered(box_xyxy: Sequence[int], object_xyxy: Sequence[int]) -> float:
    """The share of an object's box that lies in a region."""
    x0, y0, x1, y1 = object_xyxy
    across = max(0, min(box_xyxy[2], x1) - max(box_xyxy[0], x0))
    down = max(0, min(box_xyxy[3], y1) - max(box_xyxy[1], y0))
    return across * down / ((x1 - x0) * (y1 - y0))


def _inside(points_yx: Tensor, grid_yx: tuple[int, int], size_yx: tuple[int, int], box_xyxy: Sequence[int]) -> Tensor:
    """Which anchors' centres lie in a box: [K], bool."""
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
