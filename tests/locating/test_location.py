"""Where an edit may go, on drawn scenes with the bundled encoders: the named thing is looked at first."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskless.data.boxes import box_iou, propose_regions
from maskless.engine.editor import Editor
from maskless.evaluation.suites.search_study import draw_tasks, is_clean
from maskless.locating.location import locate, location_scores, propose


@pytest.fixture(scope="module")
def storybook() -> Editor:
    return Editor.from_pretrained("storybook", device="cpu", dtype="float32")


def test_the_named_thing_is_outlined_and_its_middle_is_the_first_anchor(storybook):
    overlaps, inside = [], 0
    tasks = draw_tasks("validation", 10, offset=41_000)
    for task in tasks:
        view = storybook.look(task.image)
        found = locate(view, task.caption, storybook.config.resolved())
        x0, y0, x1, y1 = task.box_xyxy
        overlaps.append(float(box_iou(torch.tensor([found.outline_xyxy]), task.box_xyxy)[0]))
        y, x = ((found.anchors.points_yx[0] + 0.5) / torch.tensor(found.anchors.grid_yx) * 128).tolist()
        inside += x0 <= x < x1 and y0 <= y < y1
        assert len(found.anchors) == storybook.config.resolved().anchors
    assert sum(overlaps) / len(overlaps) > 0.5 and inside >= 7


def test_without_a_caption_or_by_the_papers_rule_attention_alone_decides(storybook):
    task = draw_tasks("validation", 1)[0]
    view = storybook.look(task.image)
    paper = replace(storybook.config.resolved(), anchor_source="attention")
    expected = locate(view, "", paper)
    for caption, config in (("", storybook.config.resolved()), (task.caption, paper)):
        found = locate(view, caption, config)
        assert found.relevance is None and found.outline_xyxy is None
        assert torch.equal(found.anchors.points_yx, expected.anchors.points_yx)


def test_the_edges_of_the_best_square_are_fitted_and_no_others(storybook):
    clean, covered = [], []
    for task in draw_tasks("validation", 10, offset=41_000):
        view = storybook.look(task.image)
        found = locate(view, task.caption, storybook.config.resolved())
        squares = propose_regions(found.anchors, storybook.config.resolved().sizes, view.size_yx).boxes_xyxy
        score = location_scores(view, task.caption, squares, found)
        best = int(score.argmax())
        proposed = propose(view, task.caption, found, storybook.config.resolved())
        boxes = proposed.regions.boxes_xyxy
        assert (boxes != squares).any(dim=1).nonzero().flatten().tolist() == [best]
        assert proposed.score[best] >= score[best] and int(proposed.score.argmax()) == best
        others = torch.arange(len(score)) != best
        assert torch.equal(proposed.score[others], score[others])
        pair = squares[best].tolist(), boxes[best].tolist()
        clean.append([is_clean(box, task) for box in pair])
        covered.append([_share_inside(task.box_xyxy, box) for box in pair])
    before, after = torch.tensor(covered).mean(dim=0).tolist()
    assert after > before + 0.05, "of each thing, whose square is not its box"
    assert sum(now for _, now in clean) >= sum(was for was, _ in clean)


def _share_inside(thing_xyxy, box_xyxy):
    x0, y0 = max(thing_xyxy[0], box_xyxy[0]), max(thing_xyxy[1], box_xyxy[1])
    x1, y1 = min(thing_xyxy[2], box_xyxy[2]), min(thing_xyxy[3], box_xyxy[3])
    area = (thing_xyxy[2] - thing_xyxy[0]) * (thing_xyxy[3] - thing_xyxy[1])
    return max(x1 - x0, 0) * max(y1 - y0, 0) / area


@pytest.mark.parametrize("why", ["no caption", "switched off"])
def test_squares_stay_where_nothing_is_named_or_fitted(storybook, why):
    task = draw_tasks("validation", 1)[0]
    caption = "" if why == "no caption" else task.caption
    config = (
        storybook.config.resolved() if why == "no caption" else replace(storybook.config.resolved(), fit_edges=False)
    )
    view = storybook.look(task.image)
    found = locate(view, caption, config)
    proposed = propose(view, caption, found, config)
    squares = propose_regions(found.anchors, config.sizes, view.size_yx).boxes_xyxy
    assert torch.equal(proposed.regions.boxes_xyxy, squares)
    assert bool(proposed.score.any()) == bool(caption)
    assert torch.equal(proposed.score, location_scores(view, caption, squares, found))
