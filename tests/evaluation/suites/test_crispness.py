"""The suite of crispness: the truth is as crisp as itself, a blurred picture is less so, and all tasks are measured."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ImageFilter

from maskless.evaluation.suite import SuiteOptions, critic_folder, judge_folder
from maskless.evaluation.suites.crispness import (
    SIDE,
    TASKS,
    background_difference,
    box_psnr,
    contact_sheet,
    draw_tasks,
    drawing_rows,
    edge_strength,
    object_rows,
    run,
)
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Judge
from maskless.storybook.world.sheets import to_tensor


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_the_same_each_time_and_change_only_the_box(name):
    first, again = draw_tasks(name, "validation", 3), draw_tasks(name, "validation", 3)
    for a, b in zip(first, again, strict=True):
        assert (a.prompt, a.box) == (b.prompt, b.box)
        x0, y0, x1, y1 = a.box
        assert 0 <= x0 < x1 <= SIDE and 0 <= y0 < y1 <= SIDE and x1 - x0 == y1 - y0
        before, after = (np.asarray(scene.image).copy() for scene in (a.scene, a.truth))
        before[y0:y1, x0:x1] = after[y0:y1, x0:x1] = 0
        assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["remove", "complete"])
def test_no_object_is_in_a_box_that_should_be_empty(name):
    for task in draw_tasks(name, "validation", 5):
        x0, y0, x1, y1 = task.box
        assert not any(item.mask[y0:y1, x0:x1].any() for item in task.truth.objects)
        assert task.new_object is None


def test_the_truth_is_crisp_and_a_blurred_picture_is_not():
    judge, tasks = Judge.from_pretrained(judge_folder("storybook")), draw_tasks("replace", "validation", 6)
    truth = [to_tensor(task.truth.image) for task in tasks]
    blurred = [to_tensor(task.truth.image.filter(ImageFilter.GaussianBlur(3))) for task in tasks]
    edges, behind, seen = (row["value"] for row in object_rows("replace", judge, tasks, truth))
    assert edges == pytest.approx(1) and behind == 0 and seen == 1
    edges, behind, _ = (row["value"] for row in object_rows("replace", judge, tasks, blurred))
    assert edges < 0.6 and behind > 0


@pytest.mark.parametrize("name", ["replace", "add"])
def test_the_truth_is_right_and_has_its_parts_and_a_lump_has_not(name):
    judges = Judge.from_pretrained(judge_folder("storybook")), Critic.from_pretrained(critic_folder("storybook"))
    tasks = draw_tasks(name, "validation", 8)
    truth = [to_tensor(task.truth.image) for task in tasks]
    lumps = [to_tensor(task.truth.image.filter(ImageFilter.GaussianBlur(max(task.box) / 40 + 6))) for task in tasks]
    (right, parts), (right_of_lumps, parts_of_lumps) = (
        drawing_rows(name, judges, tasks, each) for each in (truth, lumps)
    )
    assert right["value"] >= 0.8 and parts["value"] >= 0.8 and (right["gate"], parts["gate"]) == (0.85, 0.75)
    assert right_of_lumps["value"] <= 0.3 and parts_of_lumps["value"] < 0.5 * parts["value"]
    assert parts["n"] == sum(len(task.parts) for task in tasks) > 8


def test_an_object_is_added_where_the_source_has_none():
    for task in draw_tasks("add", "validation", 4):
        x0, y0, x1, y1 = task.box
        assert not any(item.mask[y0:y1, x0:x1].any() for item in task.scene.objects)
        assert task.new_object.sum() == task.new_object[y0:y1, x0:x1].sum() > 0
        assert len(task.truth.objects) == len(task.scene.objects) + 1


def test_edges_are_the_strongest_gradients_in_the_box_alone():
    image = torch.zeros(3, 64, 64)
    image[:, :, 40:] = 1
    assert edge_strength(image, (0, 0, 32, 32)) == 0
    assert edge_strength(image, (30, 30, 50, 50)) == pytest.approx(1)  # one column of 19 is more than a twentieth


def test_the_background_is_everything_away_from_the_new_object():
    task = next(
        task
        for task in draw_tasks("replace", "validation", 9)
        if background_difference(to_tensor(task.truth.image), task) is not None
    )
    result = to_tensor(task.truth.image)
    result[:, torch.from_numpy(task.new_object)] = 0
    assert background_difference(result, task) == 0
    assert background_difference((result + 0.1).clamp(0, 1), task) > 0


def test_psnr_is_of_the_box_only():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = image.clone()
    other[:, :8] = 0
    assert box_psnr(other, image, (0, 8, 32, 32)) == pytest.approx(100)
    assert box_psnr(image + 0.1, image, (0, 0, 32, 32)) == pytest.approx(20, abs=1e-3)


def test_a_sheet_shows_source_result_and_truth():
    tasks = draw_tasks("replace", "validation", 2)
    page = np.asarray(contact_sheet(tasks, [to_tensor(task.truth.image) for task in tasks]))
    assert np.array_equal(page[:SIDE, :SIDE], np.asarray(tasks[0].scene.image))
    assert np.array_equal(page[SIDE + 4 : 2 * SIDE + 4, :SIDE], np.asarray(tasks[0].truth.image))


def test_the_bundled_models_are_measured(tmp_path: Path):
    calls: list[tuple[int, int]] = []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    rows = run(SuiteOptions(split="validation", limit=1, steps=2, sheets=tmp_path, progress=progress))
    assert {row["task"] for row in rows} == set(TASKS) and all(
        row["n"] == 1 or row["metric"] == "parts found" for row in rows
    )
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {(row["method"], row["metric"]) for row in rows} >= {
        ("truth", "parts found"),
        ("storybook", "requested object drawn right"),
    }
    assert (tmp_path / "crispness.png").is_file()
