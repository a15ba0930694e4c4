"""The baselines: each is what it says, its mistakes included, and all of them run on the engine's own parts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.data.boxes import propose_regions
from maskless.data.types import Anchors, EditRequest
from maskless.evaluation.measures.metrics import mask_of_box
from maskless.evaluation.methods.baselines import METHODS, best_square, budget, own_regions, prompt_difference
from maskless.evaluation.methods.cases import Attempt, Case, attempt
from maskless.evaluation.methods.release import release_anchors, release_boxes

TRUTH = (84, 20, 108, 44)


@pytest.fixture
def case(editor, picture) -> Case:
    """Two anchors and three sizes, one iteration, one denoising step without guidance."""
    config = replace(
        editor.config, steps=1, guidance_scale=1.0, iterations=1, anchors=2, updates=2, window_step=4, device="cpu"
    )
    request = EditRequest(image=picture, caption="a red square", prompt="a blue house", seed=7)
    return Case(models=editor.models, request=request, config=config, truth_xyxy=TRUTH)


def _source(case: Case) -> np.ndarray:
    return (case.request.image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_a_picture_a_region_and_its_cost(case, name):
    tried = attempt(METHODS[name], case)
    outcome = tried.outcome
    assert outcome is not None and outcome.pixels.shape == (72, 120, 3) and outcome.pixels.dtype == np.uint8
    assert bool(outcome.region.any()) and outcome.inpaintings == tried.cost.inpaintings >= 1
    assert tried.cost.unet_forwards >= outcome.inpaintings and tried.cost.seconds["total"] > 0
    same = (outcome.pixels == _source(case)).all(axis=2)[~outcome.region.numpy()]
    assert name == "release" or same.all(), "what the engine pastes back leaves the rest as it was"
    assert not (outcome.pixels == _source(case)).all()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_same_again(case, name):
    first, second = (attempt(METHODS[name], case).outcome for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels) and torch.equal(first.region, second.region)


@pytest.mark.parametrize(
    "name,count",
    [
        ("release", 2), ("random_anchor_random_size", 2), ("dino_anchor_random_size", 2), ("centre", 1),
        ("difference_map_box", 1), ("caption_relevance_box", 1), ("oracle_box", 1), ("exhaustive", 2 * 3),
        ("random_9", 6),
    ],
)  # fmt: skip
def test_each_makes_the_inpaintings_it_says(case, name, count):
    assert attempt(METHODS[name], case).outcome.inpaintings == count


def test_methods_at_equal_cost_make_as_many_inpaintings_as_the_search(case):
    for iterations in (0, 4):
        at = replace(case, config=replace(case.config, iterations=iterations))
        ours = attempt(METHODS["maskless"], at)
        assert ours.outcome.inpaintings == budget(at)
        for name in ("random_at_budget", "best_of_n_seeds"):
            tried = attempt(METHODS[name], at)
            assert tried.outcome.inpaintings == budget(at)
            assert tried.cost.unet_forwards == ours.cost.unet_forwards


def test_the_oracle_edits_the_truth_and_nobody_else_is_told(case):
    assert attempt(METHODS["oracle_box"], case).outcome.box_xyxy == TRUTH
    elsewhere = replace(case, truth_xyxy=(0, 0, 10, 10))
    for name in ("maskless", "caption_relevance_box", "centre", "release"):
        told, untold = (attempt(METHODS[name], each).outcome for each in (case, elsewhere))
        assert np.array_equal(told.pixels, untold.pixels)


def test_the_fixed_release_leaves_out_what_goes_beyond_the_paper(case):
    options = {"anchor_source": "attention", "ranking": "paper", "place": 0.0}
    same = replace(case, config=replace(case.config, **options))
    assert np.array_equal(
        attempt(METHODS["release_fixed"], case).outcome.pixels, attempt(METHODS["maskless"], same).outcome.pixels
    )


def test_what_finds_nothing_to_edit_is_no_outcome_but_has_its_cost(case):
    from maskless.data.errors import MasklessError

    def refuses(_case: Case):
        raise MasklessError("found nothing")

    tried = attempt(refuses, case)
    assert isinstance(tried, Attempt) and tried.outcome is None and tried.cost.inpaintings == 0


class TestRelease:
    """The published code's mistakes, as they are."""

    def test_four_of_nine_anchors_are_the_centre_whatever_the_attention_says(self):
        attention = torch.zeros(32, 32)
        attention[2, 3:8] = torch.tensor([5.0, 4, 3, 2, 1])
        points = release_anchors(attention, 9, 15).tolist()
        assert sorted(points[:4]) == [[15, 15], [15, 16], [16, 15], [16, 16]]
        assert points[4:] == [[2, 3], [2, 4], [2, 5], [2, 6], [2, 7]], "no suppression: neighbours all the same"

    def test_a_small_window_leaves_room_for_all_anchors_inside(self):
        attention = torch.zeros(32, 32)
        attention[0, 0], attention[9, 20], attention[20, 9] = 3.0, 2.0, 1.0
        assert release_anchors(attention, 2, 4).tolist() == [[9, 20], [20, 9]]

    def test_boxes_are_transposed_and_clipped(self):
        boxes = release_boxes(torch.tensor([[4, 20], [0, 31]]), torch.tensor([4, 6]), 256)
        assert boxes[0].tolist() == [0, 132, 66, 198], "low column count, high row count: x from the row"
        assert boxes[1].tolist() == [0, 206, 50, 255], "cut at the border, not shifted"

    def test_the_edit_is_beside_a_thing_off_the_diagonal(self, case):
        """Attention high on the right of a square gives boxes low on the left: the swap, seen in the outcome."""
        image = torch.full((3, 96, 96), 0.4)
        features = case.models.dino.features(image)
        attention = torch.full_like(features.attention, 1e-6)
        rows, columns = attention.shape
        attention[rows // 8, columns * 7 // 8] = 1.0
        swapped = replace(features, attention=attention / attention.sum())
        square = replace(case, request=replace(case.request, image=image), config=replace(case.config, anchors=9))
        original = case.models.dino.features
        case.models.dino.features = lambda _image: swapped
        try:
            points = release_anchors(
                torch.nn.functional.interpolate(swapped.attention[None, None], (32, 32), mode="bilinear")[0, 0], 9, 15
            )
            outcome = METHODS["release"](square)
        finally:
            case.models.dino.features = original
        assert float(points[4:, 0].float().mean()) < 8 and float(points[4:, 1].float().mean()) > 24
        boxes = release_boxes(points, torch.full((9,), 4), 96)[4:].float()
        assert float((boxes[:, 0] + boxes[:, 2]).mean() / 2) < 24 and float((boxes[:, 1] + boxes[:, 3]).mean() / 2) > 72
        x0, y0, x1, y1 = outcome.box_xyxy
        assert (x0 + x1) / 2 < 60 and (y0 + y1) / 2 > 36

    def test_nothing_is_pasted_back_and_the_rest_of_a_wide_picture_is_lost(self, case):
        outcome = METHODS["release"](case)
        square = outcome.pixels[:, 24:96]
        outside = ~outcome.region.numpy()[:, 24:96]
        assert (square != _source(case)[:, 24:96])[outside].mean() > 0.5
        assert not outcome.pixels[:, :24].any() and not outcome.pixels[:, 96:].any()

    def test_dino_sees_pixels_that_are_not_normalised(self, case):
        seen = []
        original = case.models.dino.features
        case.models.dino.features = lambda image: seen.append(case.models.dino.preprocess(image)) or original(image)
        try:
            METHODS["release"](replace(case, request=replace(case.request, image=torch.full((3, 64, 64), 0.25))))
        finally:
            case.models.dino.features = original
        assert torch.allclose(seen[0], torch.full_like(seen[0], 0.25), atol=1e-5)


class TestDifferenceMap:
    def test_the_square_holds_a_planted_change(self):
        found = torch.zeros(16, 16)
        found[2:5, 9:12] = 1.0
        assert best_square(found, (2, 3, 4, 6, 8), (128, 128)) == (72, 16, 96, 40)

    def test_two_texts_that_agree_differ_nowhere(self, case):
        inpainter = case.models.inpainter
        frame = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
        car, house = inpainter.encode_prompt("a car"), inpainter.encode_prompt("a house")
        same = prompt_difference(inpainter, frame, car, car, seeds=[1, 2])
        other = prompt_difference(inpainter, frame, car, house, seeds=[1, 2])
        assert same.shape == (8, 8) and float(same.max()) < 1e-5 < float(other.max())

    def test_it_finds_where_the_denoiser_hears_the_prompt(self, case, monkeypatch):
        """A denoiser whose answer depends on the text in the upper right corner only, and there on its mean."""
        inpainter = case.models.inpainter

        class Planted(torch.nn.Module):
            dtype, config = torch.float32, inpainter.unet.config

            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(1))

            def forward(self, inputs, timestep, encoder_hidden_states):
                sample = torch.zeros_like(inputs[:, :4])
                sample[:, :, :3, 5:] = encoder_hidden_states.square().mean(dim=(1, 2))[:, None, None, None]
                return type("Output", (), {"sample": sample})

        asked, there = inpainter.encode_prompt("a blue house"), inpainter.encode_prompt("a red square")
        asked = replace(asked, prompt=asked.prompt * 3)
        monkeypatch.setattr(inpainter, "unet", Planted())
        before = inpainter.unet_forwards
        found = prompt_difference(inpainter, torch.rand(3, 64, 64), asked, there, seeds=[1, 2, 3])
        assert inpainter.unet_forwards == before + 6
        assert bool((found[:3, 5:] > 0).all()) and float(found.sum()) == pytest.approx(float(found[:3, 5:].sum()))
        box = best_square(found / found.max(), (4, 6, 8), (64, 64))
        region, planted = mask_of_box(box, (64, 64)), mask_of_box((40, 0, 64, 24), (64, 64))
        assert float((region & planted).sum() / (region | planted).sum()) > 0.7


def test_proposals_are_those_of_the_search(case, editor):
    run = editor.start(case.request, **{k: v for k, v in case.config.to_dict().items() if k != "device"})
    assert torch.equal(own_regions(case).boxes_xyxy, run.regions.boxes_xyxy)


def test_centre_is_half_the_shorter_side(case):
    assert attempt(METHODS["centre"], case).outcome.box_xyxy == (42, 18, 78, 54)
    one = Anchors(points_yx=torch.zeros(1, 2, dtype=torch.long), weight=torch.ones(1), grid_yx=(1, 1))
    assert propose_regions(one, [8], (72, 120)).boxes_xyxy.tolist() == [[42, 18, 78, 54]]
