"""The finder: regions, mask and reasons without a model that draws, and one line for what it cannot use."""

import shutil
from pathlib import Path

import pytest
import torch

import maskless
from maskless.data.boxes import box_iou
from maskless.data.errors import MasklessError
from maskless.engine.finder import FOR, NOT_SHOWN, Finder, reason_of
from maskless.method.ranking import FIT_WEIGHT
from maskless.models.encoders import Encoders

SAMPLES = Path(maskless.__file__).parent / "assets" / "samples"


@pytest.fixture(scope="module")
def finder() -> Finder:
    return Finder.from_pretrained("storybook", device="cpu")


def test_it_finds_the_object_of_the_caption_with_its_mask_and_alternatives(finder):
    finding = finder.find(SAMPLES / "desert.png", "a red car")
    truth = torch.tensor([[98, 180, 192, 252]])
    assert float(box_iou(truth, finding.box_xyxy)[0]) > 0.6
    assert (finding.looks_like, finding.clear, len(finding.alternatives)) == (True, True, 3)
    assert finding.score > max(other.score for other in finding.alternatives)
    assert all(float(box_iou(torch.tensor([other.box_xyxy]), finding.box_xyxy)[0]) <= 0.7
               for other in finding.alternatives)  # fmt: skip
    x0, y0, x1, y1 = finding.box_xyxy
    inside = finding.mask[y0:y1, x0:x1].sum()
    assert finding.mask.shape == (256, 256) and inside > 0.9 * finding.mask.sum() > 0
    assert FOR["fit"] in finding.reason.lower() and NOT_SHOWN not in finding.reason


def test_a_caption_that_names_nothing_in_the_picture_says_so(finder):
    finding = finder.find(SAMPLES / "desert.png", "a snail", alternatives=0)
    assert not finding.looks_like and not finding.clear
    assert finding.reason.startswith(NOT_SHOWN) and finding.alternatives == ()


def test_a_score_is_the_sum_of_its_signs(finder):
    for other in finder.find(SAMPLES / "desert.png", "a red car").alternatives:
        signs = other.signs
        assert other.score == pytest.approx(signs["shown"] + signs["focus"] + FIT_WEIGHT * signs["fit"], abs=0.1)


def test_one_view_serves_several_captions_and_gives_the_same_answer(finder, editor):
    view = finder.look(SAMPLES / "room.png")
    again = finder.find(SAMPLES / "room.png", "a clock").to_dict()
    assert finder.find(view, "a clock").to_dict() == again
    assert finder.find(view, "a ball").box_xyxy != ()
    with pytest.raises(MasklessError, match="view must be one that this finder has made"):
        Finder(editor.models).find(view, "a clock")


def test_no_inpainting_model_is_needed(tiny_models, tmp_path):
    for part in ("dino", "clip"):
        shutil.copytree(tiny_models / part, tmp_path / "looking" / part)
    finder = Finder.from_pretrained(str(tmp_path / "looking"), device="cpu")
    assert type(finder.models) is Encoders
    finding = finder.find(torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(0)), "a tree")
    assert finding.mask.shape == (40, 64) and finding.to_dict()["image"] is None
    shutil.rmtree(tmp_path / "looking" / "clip")
    with pytest.raises(MasklessError, match="must hold dino, clip; missing: clip"):
        Finder.from_pretrained(str(tmp_path / "looking"), device="cpu")


@pytest.mark.parametrize(
    ("caption", "options", "message"),
    [
        ("  ", {}, "caption must say what to find"),
        ("a cat", {"alternatives": -1}, "alternatives must be a whole number from 0 to 100, got -1"),
        ("a \udcff", {}, "caption must be text in UTF-8"),
    ],
)
def test_bad_input_is_one_line(finder, caption, options, message):
    with pytest.raises(MasklessError, match=message):
        finder.find(SAMPLES / "room.png", caption, **options)


def test_options_of_drawing_are_refused():
    with pytest.raises(MasklessError, match="a finder has no option 'scheduler'; its options are dino, clip"):
        Finder.from_pretrained("storybook", scheduler="ddim")


def test_a_reason_says_what_speaks_for_a_region_and_what_against_it():
    reason = reason_of({"shown": 2.0, "focus": -1.0, "fit": 0.1})
    assert reason == (
        "Seen alone, it is more like the caption than most regions, but the parts of the picture that fit the caption "
        "most lie outside of it."
    )
    assert reason_of({"shown": 0.0}).startswith("No sign distinguishes it")
