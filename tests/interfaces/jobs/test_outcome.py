"""What a finished edit says: regions, maps, and reasons in words."""

import numpy as np
import pytest
from PIL import Image

from maskless.data.sixteen_bit import encode_png
from maskless.interfaces.jobs.outcome import heat_map, keep_outcome, outcome_facts, reason, small_view
from maskless.records.outputs import save_edit

QUICK = {"search": "learned", "iterations": 1, "anchors": 3, "steps": 1}


@pytest.fixture(scope="module")
def result(editor):
    picture = np.random.default_rng(0).integers(0, 255, (72, 120, 3), dtype=np.uint8)
    return editor.edit(picture, caption="a red square", prompt="a blue house", **QUICK)


def test_facts_are_plain_and_the_best_candidate_comes_first(result):
    facts = outcome_facts(result)
    scores = [each["score"] for each in facts["candidates"]]
    assert scores == sorted(scores, reverse=True) and facts["score"] == scores[0]
    assert facts["region"] == facts["candidates"][0]["region"] and facts["region"]["shape"] == "box"
    x0, y0, x1, y1 = facts["region"]["box_xyxy"]
    assert facts["region"]["share"] == pytest.approx((x1 - x0) * (y1 - y0) / (72 * 120), abs=1e-4)
    assert facts["size_px"] == [120, 72] and facts["maps"] == ["attention", "relevance"]


def test_reasons_name_the_rank_and_what_decided_it(result):
    assert reason(result, 1).startswith("Ranked 1st of 3: its region fits “a red square” best (score ")
    assert reason(result, 3).startswith("Ranked 3rd of 3: its region fits “a red square” less well than the best")
    assert "Inside its region the prompt shows better than in" in reason(result, 2)


def test_a_known_region_has_a_mask_and_reasons_of_its_own(editor, tmp_path):
    picture = np.zeros((72, 120, 3), np.uint8)
    mask = np.zeros((72, 120), bool)
    mask[10:50, 20:60] = True
    mask[10:20, 20:30] = False
    result = editor.edit(picture, prompt="a blue house", mask=mask, steps=1)
    outcome = keep_outcome(result, save_edit(result, tmp_path), tmp_path)
    assert outcome.facts["region"]["shape"] == "mask"
    assert (np.asarray(Image.open(outcome.masks[0])) > 0).tolist() == mask.tolist()
    assert "in the same region" in outcome.facts["candidates"][0]["reason"]


def test_maps_are_transparent_where_they_are_low(result):
    colours = heat_map(np.array([[0.0, 1.0], [2.0, 4.0]]))
    assert colours.shape == (2, 2, 4) and colours[0, 0, 3] < colours[1, 1, 3]
    assert heat_map(np.ones((2, 2))).shape == (2, 2, 4)


def test_small_views_are_lossless_and_keep_alpha(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65535, (40, 60, 4), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(encode_png(deep, icc_profile=None, exif=None, text={}))
    view = Image.open(small_view(tmp_path / "deep.png", 1280))
    assert view.mode == "RGBA" and (np.asarray(view) == deep >> 8).all()
    assert Image.open(small_view(tmp_path / "deep.png", 30)).size == (30, 20)
