"""The values that flow through an edit refuse wrong shapes, ranges and empty texts."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.result import Candidates
from maskless.data.types import Anchors, EditRequest, Losses, PatchFeatures, Regions


def regions(count: int = 2) -> Regions:
    boxes = torch.tensor([[0, 0, 8, 8]]).repeat(count, 1)
    return Regions(boxes_xyxy=boxes, anchor_index=torch.arange(count), size_index=torch.zeros(count, dtype=torch.long))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 16, 64), "image sides must be from 32 to 8000 pixels, got 64 x 16"),
        (torch.full((3, 64, 64), 255.0), r"image must be in \[0, 1\], got 255 to 255"),
        (torch.full((3, 64, 64), torch.nan), r"image must be in \[0, 1\]"),
    ],
)
def test_a_request_refuses_a_wrong_image(image, message):
    with pytest.raises(MasklessError, match=message):
        EditRequest(image=image, caption="", prompt="a house")


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_a_request_needs_a_prompt(prompt):
    with pytest.raises(MasklessError, match="prompt must not be empty"):
        EditRequest(image=torch.zeros(3, 64, 64), caption="a car", prompt=prompt)


def test_attention_must_sum_to_one():
    with pytest.raises(MasklessError, match="attention must sum to 1"):
        PatchFeatures(features=torch.zeros(4, 2, 2), attention=torch.ones(2, 2), patch_px=4)


def test_anchors_must_lie_on_their_grid():
    with pytest.raises(MasklessError, match="grid of 4 rows and 8 columns"):
        Anchors(points_yx=torch.tensor([[7, 3]]), weight=torch.ones(1), grid_yx=(4, 8))


def test_boxes_must_not_be_empty():
    with pytest.raises(MasklessError, match="x0 < x1"):
        Regions(boxes_xyxy=torch.tensor([[4, 4, 4, 8]]), anchor_index=torch.tensor([0]), size_index=torch.tensor([0]))


def test_regions_and_candidates_can_be_picked_in_any_order():
    candidates = Candidates(
        regions=regions(3),
        windows_xyxy=torch.arange(12).reshape(3, 4),
        crops=torch.arange(3, dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 3, 4, 4),
        seeds=(7, 7, 7),
    )
    picked = candidates[[2, 0]]
    assert picked.regions.anchor_index.tolist() == [2, 0]
    assert picked.crops[:, 0, 0, 0].tolist() == [2, 0]
    assert len(picked) == 2


@pytest.mark.usefixtures("unchecked")
def test_losses_must_be_of_one_length():
    with pytest.raises(MasklessError, match=r"losses must all be \[N\]"):
        two = torch.zeros(2)
        Losses(clip=two, directional=two, structure=two, local=two, total=torch.zeros(3))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "paint", "prompt": "x"}, "task must be one of complete, add"),
        ({"prompt": "x", "mask": torch.ones(64, 63, dtype=torch.bool)}, "mask must be of the picture's size, 64 x 64"),
        ({"prompt": "x", "mask": torch.zeros(64, 64, dtype=torch.bool)}, "mask must mark something to edit"),
    ],
)
def test_a_request_refuses_a_wrong_task_or_mask(given, message):
    with pytest.raises(MasklessError, match=message):
        EditRequest(image=torch.zeros(3, 64, 64), caption="", **given)


@pytest.mark.parametrize("task", ["complete", "extend", "repair", "remove"])
def test_some_tasks_need_no_prompt(task):
    assert EditRequest(image=torch.zeros(3, 64, 64), caption="", prompt="", task=task).prompt == ""


def test_losses_as_rows_and_back():
    parts = torch.arange(10.0).reshape(2, 5)
    losses = Losses.from_rows(parts)
    assert torch.equal(losses.rows, parts) and losses.total.tolist() == [4.0, 9.0]
    assert torch.equal(losses[[1]].rows, parts[1:]) and len(losses[[1]]) == 1
