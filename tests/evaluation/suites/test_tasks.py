"""The suite `tasks`: what counts as a success, that every kind of edit runs, and that the suite resumes."""

import dataclasses

import pytest
from PIL import Image, ImageFilter

from maskless.data.errors import MasklessError
from maskless.evaluation.requests.jobs import JOBS, draw_jobs
from maskless.evaluation.suite import SuiteOptions, critic_folder
from maskless.evaluation.suites import tasks
from maskless.evaluation.suites.tasks import edited, exact_outside, run, task_rows
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Detection, Judge, Verdict
from maskless.storybook.world.scenes import draw
from verdicts import true_verdict

CRITIC = Critic.from_pretrained(critic_folder("storybook"))


class Clairvoyant(Judge):
    """A judge whose verdicts are given in advance, in the order of the pictures."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.verdicts = list(verdicts)

    def detect(self, images: list[Image.Image]) -> list[Verdict]:
        return [self.verdicts.pop(0) for _ in images]


def test_the_change_of_the_prompt_is_a_success_and_a_lost_bystander_is_not(editor):
    job = next(job for job in draw_jobs("replace", "validation", 30) if job.kept)
    kind = job.prompt.split()[-1]
    colour = job.prompt.split()[1]
    gone = next(t for t in job.scene.objects if t not in job.kept)
    others = tuple(d for d in true_verdict(job.scene).objects if d.box_xyxy != gone.box_xyxy)
    new = Detection(kind=kind, colour=colour, texture="plain", box_xyxy=gone.box_xyxy, confidence=1.0)
    result = edited(editor, job)
    assert result is not None
    for objects, share in (((new, *others), 1.0), ((new, *others[1:]), 0.0), (others, 0.0)):
        judge = Clairvoyant(true_verdict(job.scene, objects=objects), true_verdict(job.scene))
        rows = {row["metric"]: row["value"] for row in task_rows((judge, CRITIC), [job], [result])}
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
        (Clairvoyant(true_verdict(first.scene), true_verdict(first.scene)), CRITIC),
        [first, second],
        [edited(quick, first), None],
    )
    assert {row["metric"]: (row["value"], row["n"]) for row in rows}["success"] == (0.5, 2)


def test_a_success_whose_object_is_a_lump_is_not_one_for_the_critic():
    job = next(job for job in draw_jobs("replace", "validation", 30) if job.scene.graph.style == "flat")
    assert job.truth is not None and job.wanted
    truth = draw(job.truth, job.scene.image.width)
    lump = truth.image.filter(ImageFilter.GaussianBlur(8))
    for picture, strict in ((truth.image, True), (lump, False)):
        judges = (Clairvoyant(true_verdict(truth), true_verdict(job.scene)), CRITIC)
        found = tasks._judged_figures(judges, job, picture)
        assert (found["success"], found["success with objects drawn right"]) == (True, strict)
    rows = tasks.rows_of("replace", [tasks.figures_of((Clairvoyant(), CRITIC), job, None)])
    assert {row["metric"]: (row["value"], row["gate"]) for row in rows}["success with objects drawn right"] == (0, 0.8)


def test_the_suite_resumes_with_its_pictures(tmp_path, monkeypatch):
    reports = []
    options = SuiteOptions(
        split="validation",
        limit=1,
        methods=["remove"],
        ledger=tmp_path / "tasks.jsonl",
        sheets=tmp_path / "sheets",
        progress=lambda done, total: reports.append((done, total)),
    )
    rows = run(options)
    first = (tmp_path / "sheets" / "remove.png").read_bytes()
    monkeypatch.setattr(tasks, "edited", pytest.fail)
    assert run(options) == rows and (tmp_path / "sheets" / "remove.png").read_bytes() == first
    assert reports == [(1, 1), (1, 1)] and rows[0]["metric"] == "success" and rows[0]["gate"] == 0.8
    truths = [row for row in rows if row["method"] == "truth"]
    assert truths and truths[0]["metric"] == "success" and all(row["gate"] is None for row in truths[:1])


def test_a_task_that_is_none_is_named() -> None:
    with pytest.raises(MasklessError, match="the tasks must be among replace, .*, got juggle"):
        run(SuiteOptions(limit=1, methods=["juggle", "add"]))
