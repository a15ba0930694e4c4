"""The values that flow through an edit: wrong shapes and ranges and empty prompts are refused."""

import numpy as np
import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.picture import SourceImage, load_image
from maskless.data.types import Anchors, EditRequest, Losses, PatchFeatures, Regions


def regions(count: int = 2) -> Regions:
    boxes = torch.tensor([[0, 0, 8, 8]]).repeat(count, 1)
    return Regions(boxes_xyxy=boxes, anchor_index=torch.arange(count), size_index=torch.zeros(count, dtype=torch.long))


def black() -> SourceImage:
    return load_image(np.zeros((64, 64, 3), np.uint8))


@pytest.mark.usefixtures("unchecked")
def test_a_request_needs_a_loaded_picture():
    with pytest.raises(MasklessError, match="source must be a SourceImage, got Tensor"):
        EditRequest(source=torch.zeros(3, 64, 64), caption="", prompt="a house")


@pytest.mark.parametrize("prompt", ["", "   ", "\n"])
def test_a_request_needs_a_prompt(prompt):
    with pytest.raises(MasklessError, match="prompt must not be empty"):
        EditRequest(source=black(), caption="a car", prompt=prompt)


def test_attention_must_sum_to_one():
    with pytest.raises(MasklessError, match="attention must sum to 1"):
        PatchFeatures(features=torch.zeros(4, 2, 2), attention=torch.ones(2, 2), patch_px=4)


def test_anchors_must_lie_on_their_grid():
    with pytest.raises(MasklessError, match="grid of 4 rows and 8 columns"):
        Anchors(points_yx=torch.tensor([[7, 3]]), weight=torch.ones(1), grid_yx=(4, 8))


def test_boxes_must_not_be_empty():
    with pytest.raises(MasklessError, match="x0 < x1"):
        Regions(boxes_xyxy=torch.tensor([[4, 4, 4, 8]]), anchor_index=torch.tensor([0]), size_index=torch.tensor([0]))


def test_regions_can_be_selected_in_any_order():
    assert regions(3)[[2, 0]].anchor_index.tolist() == [2, 0]


@pytest.mark.usefixtures("unchecked")
def test_losses_have_a_column_for_each_name():
    with pytest.raises(MasklessError, match=r"terms must be \[2, 3\], got \[2, 4\]"):
        Losses(names=("a", "b", "c"), terms=torch.zeros(2, 4), total=torch.zeros(2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "paint", "prompt": "x"}, "task must be one of complete, add"),
        ({"prompt": "x", "mask": torch.ones(64, 63, dtype=torch.bool)}, "mask must be of the picture's size, 64 x 64"),
        ({"prompt": "x", "mask": torch.zeros(64, 64, dtype=torch.bool)}, "mask must have at least one pixel to edit"),
    ],
)
def test_a_request_refuses_a_wrong_task_or_mask(given, message):
    with pytest.raises(MasklessError, match=message):
        EditRequest(source=black(), caption="", **given)


@pytest.mark.parametrize("task", ["complete", "extend", "repair", "remove"])
def test_some_tasks_need_no_prompt(task):
    assert EditRequest(source=black(), caption="", prompt="", task=task).prompt == ""


def test_losses_can_be_converted_to_rows_and_back():
    parts = torch.arange(10.0).reshape(2, 5)
    losses = Losses.from_rows(("a", "b", "c", "d"), parts)
    assert torch.equal(losses.rows, parts) and losses.total.tolist() == [4.0, 9.0]
    assert torch.equal(losses[[1]].rows, parts[1:]) and len(losses[[1]]) == 1
    assert losses.of(1) == {"a": 5.0, "b": 6.0, "c": 7.0, "d": 8.0, "total": 9.0}
