"""The suite `search-study`: its tasks and its geometry, and that it runs end to end on small models."""

import torch

from maskless.data.boxes import box_iou
from maskless.evaluation.suites.search_study import (
    anchor_rows,
    draw_tasks,
    estimator_rows,
    found_rows,
    is_clean,
    learning_rows,
    location_rows,
)


def test_tasks_are_the_same_in_each_call_and_name_one_object():
    first, second = draw_tasks("validation", 4), draw_tasks("validation", 4)
    assert [task.caption for task in first] == [task.caption for task in second]
    for task in first:
        x0, y0, x1, y1 = task.box_xyxy
        assert 0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128 and task.others_xyxy
        assert task.caption != task.prompt


def test_iou_of_known_boxes():
    boxes = torch.tensor([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert torch.allclose(box_iou(boxes, (0, 0, 10, 10)), torch.tensor([1.0, 1 / 3, 0.0]))


def test_a_clean_region_covers_the_object_and_spares_the_others():
    task = draw_tasks("validation", 1)[0]
    assert is_clean(task.box_xyxy, task) or any(box_iou(torch.tensor([task.box_xyxy]), o) > 0 for o in task.others_xyxy)
    assert not is_clean((0, 0, 128, 128), task)
    assert not is_clean((0, 0, 1, 1), task)


def test_every_figure_is_a_row_with_an_interval(editor):
    tasks = draw_tasks("validation", 2)
    config = editor.config.__class__(search="learned", steps=1, guidance_scale=1.0, iterations=1, updates=20)
    quick = type(editor)(editor.models, config)
    rows = anchor_rows(quick, tasks) + location_rows(quick, tasks)
    rows += found_rows(quick, tasks) + learning_rows(quick, tasks[:1]) + estimator_rows(quick, tasks[:1])
    assert {row["suite"] for row in rows} == {"search"}
    assert {row["task"] for row in rows} == {"anchors", "location", "found", "learning", "ranking", "estimators"}
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] in (1, 2) for row in rows)
