"""How a plan samples its tries, and what each painter asks of the model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.data.config import EditConfig
from maskless.engine.painters import FillPlan, RedrawPlan, painter


@pytest.fixture
def asked(editor):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    request = editor.request(pixels, prompt="a tree", mask=np.ones((64, 64), bool))
    return replace(request, caption="a house")


def config(**options):
    return EditConfig(**options).resolved(steps=3, guidance_scale=2.5, batch_size=1, seed=5)


def test_equal_strengths_differ_by_their_noise_and_others_share_it():
    assert [FillPlan().sampling(config(), number).seed for number in range(4)] == [5, 6, 7, 8]
    plan = FillPlan(strengths=(0.5, 1.0))
    assert [(each.seed, each.strength) for each in (plan.sampling(config(), 0), plan.sampling(config(), 1))] == [
        (5, 0.5),
        (5, 1.0),
    ]


def test_a_plan_is_limited_by_the_strength_of_the_user():
    plan = FillPlan(strengths=(0.25, 0.5, 1.0))
    assert plan.limited(1.0) is plan
    limited = plan.limited(0.4)
    assert limited.strengths == (0.25, 0.4, 0.4)
    assert [limited.sampling(config(), number).seed for number in range(3)] == [5, 5, 6], "no picture twice"
    refined = FillPlan(refine=True)
    assert refined.limited(1.0).refine and not refined.limited(0.9).refine


@pytest.mark.parametrize(("usual", "expected"), [(1.0, 3.2), (2.5, 8.0), (7.5, 8.0), (12.0, 12.0)])
def test_a_redrawing_raises_a_small_guidance_and_leaves_a_large_one(usual, expected):
    plan = FillPlan(strengths=(0.5,), redraw=RedrawPlan(guidance_factor=3.2, step_factor=2))
    sampling = plan.sampling(config(guidance_scale=usual), 0)
    assert (sampling.steps, sampling.guidance_scale, sampling.strength) == (6, expected, 0.5)


def test_guidance_leads_away_from_the_caption_and_what_is_to_be_avoided(editor, asked, monkeypatch):
    texts = []
    inpainter, encode = editor.models.inpainter, editor.models.inpainter.encode_prompt
    monkeypatch.setattr(
        inpainter, "encode_prompt", lambda text, avoided="": texts.append((text, avoided)) or encode(text)
    )
    painter(inpainter, FillPlan(redraw=RedrawPlan()), asked, "blur")
    assert texts == [("a tree", "a house, blur"), ("a house", "")]
    texts.clear()
    painter(inpainter, FillPlan(), asked, "blur")
    monkeypatch.setattr(inpainter, "takes_picture", True)
    painter(inpainter, FillPlan(redraw=RedrawPlan()), asked, " ")
    assert texts == [("a tree", "blur"), ("a tree", "")]


def test_the_painters_draw_different_pictures(editor, asked):
    pictures, masks = asked.image[None], torch.ones(1, 1, 64, 64)
    drawn = []
    for plan in (FillPlan(strengths=(1.0,)), FillPlan(strengths=(1.0,), redraw=RedrawPlan())):
        paint = painter(editor.models.inpainter, plan, asked, "")
        drawn.append(paint(pictures, masks, plan.sampling(config(), 0)))
    assert drawn[0].shape == drawn[1].shape == (1, 3, 64, 64) and not torch.equal(*drawn)
