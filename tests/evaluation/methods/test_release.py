"""The baseline `release`: the published code's mistakes, as they are."""

from dataclasses import replace

import numpy as np
import torch

from maskless.data.picture import load_image
from maskless.evaluation.methods.baselines import METHODS
from maskless.evaluation.methods.cases import Case
from maskless.evaluation.methods.release import release_anchors, release_boxes, untrained_sizes


def _source(case: Case) -> np.ndarray:
    return (case.request.image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_four_of_nine_anchors_are_the_centre_whatever_the_attention_is():
    attention = torch.zeros(32, 32)
    attention[2, 3:8] = torch.tensor([5.0, 4, 3, 2, 1])
    points = release_anchors(attention, 9, 15).tolist()
    assert sorted(points[:4]) == [[15, 15], [15, 16], [16, 15], [16, 16]]
    assert points[4:] == [[2, 3], [2, 4], [2, 5], [2, 6], [2, 7]], "no suppression: neighbours all the same"


def test_a_small_window_leaves_room_for_all_anchors_inside():
    attention = torch.zeros(32, 32)
    attention[0, 0], attention[9, 20], attention[20, 9] = 3.0, 2.0, 1.0
    assert release_anchors(attention, 2, 4).tolist() == [[9, 20], [20, 9]]


def test_boxes_are_transposed_and_clipped():
    boxes = release_boxes(torch.tensor([[4, 20], [0, 31]]), torch.tensor([4, 6]), 256)
    assert boxes[0].tolist() == [0, 132, 66, 198], "low column count, high row count: x from the row"
    assert boxes[1].tolist() == [0, 206, 50, 255], "cut at the border, not shifted"


def test_the_untrained_network_prefers_some_sizes():
    """Nine anchors over many seeds do not get the six sizes equally often, as they would by chance."""
    features = torch.rand(16, 32, 32, generator=torch.Generator().manual_seed(0))
    points, sizes = torch.tensor([[8, 8], [16, 20], [20, 9]] * 3), (4, 6, 8, 10, 12, 14)
    drawn = [untrained_sizes(features, points, sizes, torch.Generator().manual_seed(seed)) for seed in range(60)]
    assert all(set(each.tolist()) <= set(sizes) for each in drawn)
    again = untrained_sizes(features, points, sizes, torch.Generator().manual_seed(3))
    assert torch.equal(again, drawn[3])
    most = [max(each.tolist().count(size) for size in sizes) for each in drawn]
    assert sum(most) / len(most) > 2.95, "the mean of the largest count among nine uniform draws of six is 2.9"


def test_the_edit_lies_beside_an_object_off_the_diagonal(case):
    """Attention high on the right of a square gives boxes low on the left: the swap, seen in the outcome."""
    image = torch.full((3, 96, 96), 0.4)
    features = case.models.dino.features(image)
    attention = torch.full_like(features.attention, 1e-6)
    rows, columns = attention.shape
    attention[rows // 8, columns * 7 // 8] = 1.0
    swapped = replace(features, attention=attention / attention.sum())
    square = replace(
        case, request=replace(case.request, source=load_image(image)), config=replace(case.config, anchors=9)
    )
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


def test_nothing_is_pasted_back_and_the_rest_of_a_wide_picture_is_lost(case):
    outcome = METHODS["release"](case)
    square = outcome.pixels[:, 24:96]
    outside = ~outcome.region.numpy()[:, 24:96]
    assert (square != _source(case)[:, 24:96])[outside].mean() > 0.5
    assert not outcome.pixels[:, :24].any() and not outcome.pixels[:, 96:].any()


def test_dino_sees_pixels_that_are_not_normalised(case):
    seen = []
    original = case.models.dino.features
    case.models.dino.features = lambda image: seen.append(case.models.dino.preprocess(image)) or original(image)
    try:
        METHODS["release"](
            replace(case, request=replace(case.request, source=load_image(torch.full((3, 64, 64), 0.25))))
        )
    finally:
        case.models.dino.features = original
    assert torch.allclose(seen[0], torch.full_like(seen[0], 0.25), atol=1e-5)
