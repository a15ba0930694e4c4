"""The jobs of every kind of edit: the same in each call, and the truth itself passes every one of them."""

import numpy as np
import pytest

from maskless.data.errors import MasklessError
from maskless.evaluation.requests.jobs import CROWD, JOBS, NEW_OBJECT, OTHERS_KEPT, draw_jobs, judged
from maskless.storybook.judge import Detection
from maskless.storybook.world.scenes import draw
from verdicts import true_verdict


@pytest.mark.parametrize("task", JOBS)
def test_jobs_are_the_same_in_each_call(task):
    first, second = draw_jobs(task, "validation", 3), draw_jobs(task, "validation", 3)
    for a, b in zip(first, second, strict=True):
        assert (a.caption, a.prompt) == (b.caption, b.prompt) and a.task == task
        assert np.array_equal(np.asarray(a.image), np.asarray(b.image))


@pytest.mark.parametrize("task", ["replace", "add", "remove", "texture", "style", "creative", "background"])
def test_an_untouched_picture_is_no_success(task):
    for job in draw_jobs(task, "validation", 5):
        truth = true_verdict(job.scene)
        assert not all(job.done(truth, truth.objects).values())


@pytest.mark.parametrize("task", ["replace", "remove", "complete", "repair", "background", "texture", "style"])
def test_the_scene_as_it_would_be_is_a_success(task):
    for job in draw_jobs(task, "validation", 5):
        assert job.truth is not None
        wanted = draw(job.truth, job.scene.image.width)
        assert all(judged(job, true_verdict(wanted), true_verdict(job.scene)).values())


@pytest.mark.parametrize("task", ["add", "extend", "creative"])
def test_an_edit_that_may_go_anywhere_has_no_onetrue_verdict(task):
    assert draw_jobs(task, "validation", 1)[0].truth is None


def test_crowded_and_paraphrased_requests_are_what_they_say():
    crowded = draw_jobs("replace", "validation", 2, 900, requests="crowded")
    assert all(len(job.scene.objects) >= CROWD for job in crowded)
    plain = draw_jobs("replace", "validation", 3, 900)
    other = draw_jobs("replace", "validation", 3, 900, requests="paraphrased")
    for one, two in zip(plain, other, strict=True):
        _, colour, kind = one.caption.split(" ", 2)
        assert one.caption != two.caption and colour in two.caption and kind in two.caption
        assert one.prompt == two.prompt and one.image == two.image
    with pytest.raises(MasklessError, match="requests must be one of plain, crowded, paraphrased, got 'hard'"):
        draw_jobs("replace", "validation", 1, requests="hard")


def test_a_lost_bystander_is_named():
    job = next(job for job in draw_jobs("add", "validation", 30) if len(job.kept) > 1)
    colour, kind = job.prompt.split()[1:]
    new = Detection(kind=kind, colour=colour, texture="plain", box_xyxy=(0, 0, 9, 9), confidence=1.0)
    seen, before = true_verdict(job.scene).objects, true_verdict(job.scene)
    for objects, parts in (
        ((*seen, new), {NEW_OBJECT: True, OTHERS_KEPT: True}),
        ((*seen[1:], new), {NEW_OBJECT: True, OTHERS_KEPT: False}),
        (seen, {NEW_OBJECT: False, OTHERS_KEPT: True}),
    ):
        assert judged(job, true_verdict(job.scene, objects=objects), before) == parts
