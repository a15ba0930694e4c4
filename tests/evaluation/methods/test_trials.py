"""The figures of one picture: known values where nothing changed, what a change does to them, and a whole trial."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.ledger import decoded
from maskless.evaluation.measures.metrics import PERFECT_DB, mask_of_box
from maskless.evaluation.methods import trials
from maskless.evaluation.methods.trials import (
    background_figures,
    case_of,
    clip_figures,
    measure,
    structure_figure,
    truth_of,
)
from maskless.evaluation.requests.jobs import draw_jobs
from maskless.evaluation.suite import judge_folder
from maskless.storybook.judge import Judge

TEXTS = {"caption": "a red square", "prompt": "a blue house"}


def test_an_unchanged_picture_has_no_direction_no_distance_and_a_perfect_background(editor, picture):
    edited = mask_of_box((84, 20, 108, 44), (72, 120))
    clip = clip_figures(editor.models, picture, picture, edited, **TEXTS)
    assert clip["CLIP directional"] == pytest.approx(0, abs=1e-3)
    assert background_figures(picture, picture, edited) == {
        "background PSNR dB": PERFECT_DB,
        "background SSIM": pytest.approx(1),
        "background MSE": 0,
    }
    assert structure_figure(editor.models, picture, picture) == pytest.approx(0, abs=1e-9)


def test_clip_edited_sees_the_edited_part_alone(editor, picture):
    edited = mask_of_box((84, 20, 108, 44), (72, 120))
    elsewhere = picture.clone()
    elsewhere[:, 50:, :40] = 1.0
    first, second = (clip_figures(editor.models, picture, after, edited, **TEXTS) for after in (picture, elsewhere))
    assert first["CLIP edited"] == pytest.approx(second["CLIP edited"], abs=1e-6)
    assert first["CLIP whole"] != pytest.approx(second["CLIP whole"], abs=1e-6)
    prompt = editor.models.clip.encode_text(TEXTS["prompt"])
    assert first["CLIP whole"] == pytest.approx(
        float(editor.models.clip.encode(picture[None]).embedding[0] @ prompt), abs=1e-6
    )


def test_what_changes_outside_costs_and_what_changes_inside_does_not(editor, picture):
    edited = mask_of_box((84, 20, 108, 44), (72, 120))
    inside, outside = picture.clone(), picture.clone()
    inside[:, 20:44, 84:108] = 0
    outside[:, 0, 0] += 0.5
    assert background_figures(picture, inside, edited)["background PSNR dB"] == PERFECT_DB
    worse = background_figures(picture, outside, edited)
    assert worse["background MSE"] == pytest.approx(0.25 / (72 * 120)) and worse["background PSNR dB"] < PERFECT_DB
    assert structure_figure(editor.models, picture, inside) > 0
    everything = torch.ones(72, 120, dtype=torch.bool)
    assert all(math.isnan(value) for value in background_figures(picture, inside, everything).values())


@pytest.fixture(scope="module")
def job():
    return draw_jobs("replace", "validation", 1)[0]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.from_pretrained(judge_folder("storybook"))


def test_the_truth_is_the_box_of_what_the_caption_names():
    for job in draw_jobs("replace", "validation", 5):
        box = truth_of(job)
        named = next(each for each in job.scene.objects if each.box_xyxy == box)
        assert job.caption.endswith(f"{named.colour} {named.kind}")


def test_every_method_gets_the_same_request_and_noise(editor, job):
    case = case_of(editor, job)
    assert case.seed == job.scene.graph.detail_seed and case.truth_xyxy == truth_of(job)
    assert (case.request.caption, case.request.prompt) == (job.caption, job.prompt)


def test_a_trial_has_every_figure_and_its_picture_only_where_it_is_wanted(editor, job, judge):
    case = case_of(editor, job)
    case = replace(case, config=replace(case.config, steps=1, guidance_scale=1.0))
    found = measure("oracle_box", case, job, judge, pictured=True)
    assert found[figures.REGION_IOU] == found[figures.IDENTICAL_OUTSIDE] == 1 and found[figures.REGION_HIT] is True
    assert found[figures.SUCCESS] == all(found["parts"].values()) and found[figures.INPAINTINGS] == 1
    assert found[figures.BACKGROUND_PSNR] == PERFECT_DB and found["box"] == list(case.truth_xyxy)
    assert set(found) - {"parts", "box", "picture"} <= set(figures.FIGURES)
    outside = ~mask_of_box(case.truth_xyxy, case.request.size_yx).numpy()
    assert np.array_equal(np.asarray(decoded(found["picture"]))[outside], np.asarray(job.image)[outside])
    assert "picture" not in measure("oracle_box", case, job, judge, pictured=False)


def test_a_refused_request_has_no_success_and_only_figures_of_cost(editor, job, judge, monkeypatch):
    def refuses(_case):
        raise MasklessError("found nothing")

    monkeypatch.setitem(trials.METHODS, "refuses", refuses)
    found = measure("refuses", case_of(editor, job), job, judge, pictured=True)
    assert found.pop(figures.SUCCESS) is False and found.pop("parts") == {}
    assert set(found) == {figures.SECONDS, figures.UNET_FORWARDS, figures.INPAINTINGS, figures.PEAK_MEMORY}
