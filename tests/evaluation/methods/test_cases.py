"""What methods are given and give back: the cost of an attempt, random choices that depend on the seed alone, boxes."""

from dataclasses import replace

import numpy as np
import torch

from maskless.data.errors import MasklessError
from maskless.evaluation.measures.metrics import mask_of_box
from maskless.evaluation.methods.cases import (
    Attempt,
    Case,
    Outcome,
    attempt,
    centre_region,
    random_anchors,
    random_sizes,
)


def test_a_method_that_finds_nothing_to_edit_has_a_cost_and_no_outcome(case):
    def refuses(_case: Case):
        raise MasklessError("found nothing")

    tried = attempt(refuses, case)
    assert isinstance(tried, Attempt) and tried.outcome is None and tried.cost.inpaintings == 0


def test_an_attempt_counts_what_the_method_took(case):
    def one_picture(case: Case) -> Outcome:
        case.models.inpainter.unet_forwards += 3
        region = mask_of_box((8, 4, 20, 16), case.request.size_yx)
        return Outcome(pixels=np.zeros((72, 120, 3), np.uint8), region=region, inpaintings=2)

    tried = attempt(one_picture, case)
    assert (tried.cost.inpaintings, tried.cost.unet_forwards) == (2, 3) and tried.cost.seconds["total"] >= 0
    assert tried.outcome is not None and tried.outcome.box_xyxy == (8, 4, 20, 16)


def test_the_seed_is_the_request_s_own_where_it_has_one(case):
    assert case.seed == 7
    without = replace(case, request=replace(case.request, seed=None), config=replace(case.config, seed=3))
    assert without.seed == 3


def test_random_choices_follow_from_the_seed_and_cover_everything(case):
    anchors, sizes = random_anchors(case, 500), random_sizes(case, 500)
    assert torch.equal(anchors.points_yx, random_anchors(case, 500).points_yx)
    assert torch.equal(sizes, random_sizes(case, 500))
    assert set(anchors.points_yx.flatten().tolist()) == set(range(32)) and anchors.grid_yx == (32, 32)
    assert set(sizes.tolist()) == set(range(len(case.config.sizes)))
    other = replace(case, request=replace(case.request, seed=8))
    assert not torch.equal(sizes, random_sizes(other, 500))


def test_the_centre_is_half_the_shorter_side():
    assert centre_region((72, 120)).boxes_xyxy.tolist() == [[42, 18, 78, 54]]


def test_a_case_resolves_its_options_and_looks_once(case):
    assert case.resolved.seed == case.seed == 7 and case.resolved.steps == 1 and case.resolved is case.resolved
    assert case.view is case.view and case.view.image is case.request.image
