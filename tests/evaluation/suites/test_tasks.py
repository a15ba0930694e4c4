"""The suite of the kinds of edit: its jobs say what they mean, and the truth itself passes every one of them."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.evaluation.requests.jobs import JOBS, draw_jobs, judged
from maskless.evaluation.suites.tasks import edited, exact_outside, run, task_rows
from maskless.storybook.judge import Detection, Judge, Verdict
from maskless.storybook.world.scenes import Scene, draw


class Clairvoyant(Judge):
    """A judge that says what it is told of each picture, in order."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)

    def detect(self, images: list[Image.Image]) -> list[Verdict]:
        return [self.verdicts.pop(0) for _ in images]


def _truth(scene: Scene, **changes) -> Verdict:
    things = tuple(
        Detection(kind=t.kind, colour=t.colour, texture=t.texture, box_xyxy=t.box_xyxy, confidence=1.0)
        for t in scene.objects
    )
    return dataclasses.replace(
        Verdict(things=things, background=scene.graph.background, style=scene.graph.style), **changes
    )


@pytest.mark.parametrize("task", JOBS)
def test_jobs_are_the_same_each_time(task):
    first, second = draw_jobs(task, "validation", 3), draw_jobs(task, "validation", 3)
    for a, b in zip(first, second, strict=True):
        assert (a.caption, a.prompt) == (b.caption, b.prompt) and a.task == task
        assert np.array_equal(np.asarray(a.image), np.asarray(b.image))


@pytest.mark.parametrize("task", ["replace", "add", "remove", "texture", "style", "creative", "background"])
def test_an_untouched_picture_is_no_success(task):
    for job in draw_jobs(task, "validation", 5):
        truth = _truth(job.scene)
        assert not all(job.done(truth, truth.things).values())


@pytest.mark.parametrize("task", ["replace", "remove", "complete", "repair", "background", "texture", "style"])
def test_the_scene_as_it_would_be_is_a_success(task):
    for job in draw_jobs(task, "validation", 5):
        assert job.truth is not None
        wanted = draw(job.truth, job.scene.image.width)
        assert all(judged(job, _truth(wanted), _truth(job.scene)).values())


@pytest.mark.parametrize("task", ["add", "extend", "creative"])
def test_an_edit_that_may_go_anywhere_has_no_one_truth(task):
    assert draw_jobs(task, "validation", 1)[0].truth is None


def test_the_asked_change_is_a_success_and_a_lost_bystander_is_not(editor):
    job = next(job for job in draw_jobs("replace", "validation", 30) if job.kept)
    kind = job.prompt.split()[-1]
    colour = job.prompt.split()[1]
    gone = next(t for t in job.scene.objects if t not in job.kept)
    others = tuple(d for d in _truth(job.scene).things if d.box_xyxy != gone.box_xyxy)
    new = Detection(kind=kind, colour=colour, texture="plain", box_xyxy=gone.box_xyxy, confidence=1.0)
    result = edited(editor, job)
    assert result is not None
    for things, share in (((new, *others), 1.0), ((new, *others[1:]), 0.0), (others, 0.0)):
        judge = Clairvoyant(_truth(job.scene, things=things), _truth(job.scene))
        rows = {row["metric"]: row["value"] for row in task_rows(judge, [job], [result])}
        assert rows["success"] == share
        assert rows["untouched pixels identical"] == 1.0


@pytest.mark.parametrize("task", JOBS)
def test_every_kind_of_edit_runs_and_leaves_the_rest_alone(editor, task):
    job = draw_jobs(task, "validation", 1)[0]
    quick = type(editor)(editor.models, dataclasses.replace(editor.config, steps=1, iterations=1, anchors=2, updates=5))
    result = edited(quick, job)
    assert result is not None and exact_outside(result)


def test_what_gives_no_result_counts_against_success(editor):
    first, second = draw_jobs("complete", "validation", 2)
    quick = type(editor)(editor.models, dataclasses.replace(editor.config, steps=1))
    rows = task_rows(
        Clairvoyant(_truth(first.scene), _truth(first.scene)), [first, second], [edited(quick, first), None]
    )
    assert {row["metric"]: (row["value"], row["n"]) for row in rows}["success"] == (0.5, 2)


def test_the_suite_resumes_with_its_pictures(tmp_path, monkeypatch):
    told = []
    options = {"split": "validation", "limit": 1, "methods": ["remove"], "ledger": tmp_path / "tasks.jsonl"}
    options |= {"sheets": tmp_path / "sheets", "progress": lambda done, total: told.append((done, total))}
    rows = run(**options)
    first = (tmp_path / "sheets" / "remove.png").read_bytes()
    monkeypatch.setattr("maskless.evaluation.tasks.edited", pytest.fail)
    assert run(**options) == rows and (tmp_path / "sheets" / "remove.png").read_bytes() == first
    assert told == [(1, 1), (1, 1)] and rows[0]["metric"] == "success" and rows[0]["gate"] == 0.8
    truths = [row for row in rows if row["method"] == "truth"]
    assert truths and truths[0]["metric"] == "success" and all(row["gate"] is None for row in truths[:1])


def test_a_task_that_is_none_is_named() -> None:
    with pytest.raises(MasklessError, match="the tasks are replace, .*, got juggle"):
        run(limit=1, methods=["juggle", "add"])
