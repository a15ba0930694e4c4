"""The baselines: each does what it says, and all of them run on the engine's own parts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.evaluation.measures.metrics import mask_of_box
from maskless.evaluation.methods.baselines import METHODS, best_square, budget, own_regions, prompt_difference
from maskless.evaluation.methods.cases import Case, attempt


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
        ours = attempt(METHODS["learned"], at)
        assert ours.outcome.inpaintings == budget(at)
        for name in ("random_at_budget", "best_of_n_seeds"):
            tried = attempt(METHODS[name], at)
            assert tried.outcome.inpaintings == budget(at)
            assert tried.cost.unet_forwards == ours.cost.unet_forwards


def test_the_oracle_edits_the_true_box_and_no_other_method_depends_on_it(case):
    assert attempt(METHODS["oracle_box"], case).outcome.box_xyxy == case.truth_xyxy
    elsewhere = replace(case, truth_xyxy=(0, 0, 10, 10))
    for name in ("maskless", "caption_relevance_box", "centre", "release"):
        informed, misled = (attempt(METHODS[name], each).outcome for each in (case, elsewhere))
        assert np.array_equal(informed.pixels, misled.pixels)


def test_the_fixed_release_leaves_out_what_goes_beyond_the_paper(case):
    options = {"search": "learned", "anchor_source": "attention", "ranking": "paper", "location_weight": 0.0}
    options |= {"fit_edges": False, "delta": 0.0}
    same = replace(case, config=replace(case.config, **options))
    assert np.array_equal(
        attempt(METHODS["release_fixed"], case).outcome.pixels, attempt(METHODS["maskless"], same).outcome.pixels
    )


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

    def test_it_finds_where_the_denoiser_follows_the_prompt(self, case, monkeypatch):
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

        prompt, caption = inpainter.encode_prompt("a blue house"), inpainter.encode_prompt("a red square")
        prompt = replace(prompt, prompt=prompt.prompt * 3)
        monkeypatch.setattr(inpainter, "unet", Planted())
        before = inpainter.unet_forwards
        found = prompt_difference(inpainter, torch.rand(3, 64, 64), prompt, caption, seeds=[1, 2, 3])
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
