"""The figures of one picture: known values for a picture that did not change, and what a change does to them."""

import math

import pytest
import torch

from maskless.evaluation.measures.figures import PERFECT_DB, background_figures, clip_figures, structure_figure
from maskless.evaluation.measures.metrics import mask_of_box

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
