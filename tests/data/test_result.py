"""The result of an edit: candidates in any order, each pasted into its region, and steps that can be saved."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.picture import load_image
from maskless.data.result import Candidates, DrawnStep, EditedImage, SearchStep, StepRecord, step_from_dict
from maskless.data.types import EditRequest, Regions


def candidates(count: int, **changes) -> Candidates:
    boxes = torch.tensor([[8, 8, 24, 24]]).repeat(count, 1)
    numbers = torch.arange(count)
    values = {
        "regions": Regions(boxes_xyxy=boxes, anchor_index=numbers, size_index=torch.zeros_like(numbers)),
        "windows_xyxy": torch.tensor([[0, 0, 32, 32]]).repeat(count, 1),
        "crops": (50 * numbers).to(torch.uint8).reshape(count, 1, 1, 1).expand(count, 3, 4, 4),
        "seeds": tuple(range(7, 7 + count)),
        "feather": 0.0,
    }
    return Candidates(**values | changes)


def test_candidates_can_be_selected_in_any_order():
    picked = candidates(3)[[2, 0]]
    assert picked.regions.anchor_index.tolist() == [2, 0]
    assert picked.crops[:, 0, 0, 0].tolist() == [100, 0]
    assert picked.seeds == (9, 7) and len(picked) == 2


def test_there_is_one_seed_for_each_candidate():
    with pytest.raises(MasklessError, match="seeds must be 3, got 2"):
        candidates(3, seeds=(1, 2))


@pytest.mark.parametrize("masked", [False, True])
def test_an_edited_image_changes_its_region_and_nothing_else(masked):
    request = EditRequest(source=load_image(torch.ones(3, 40, 48)), caption="", prompt="a house")
    masks = torch.zeros(2, 40, 48, dtype=torch.bool)
    masks[:, 10:12, 10:20] = True
    edited = EditedImage.of(request, candidates(2, masks=masks if masked else None), 1)
    changed = (edited.pixels() != 255).any(axis=2)
    assert np.array_equal(changed, edited.touched().numpy())
    assert int(changed.sum()) == (20 if masked else 256)
    assert torch.allclose(edited.tensor()[:, 11, 11], torch.full((3,), 50 / 255), atol=1e-6)
    assert int(edited.region().sum()) == 256 and edited.region()[8:24, 8:24].all(), "what is kept belongs to the region"
    of_a_mask = EditedImage.of(replace(request, mask=masks[0]), candidates(2, masks=masks & (masks.cumsum(2) > 3)), 1)
    assert torch.equal(of_a_mask.region(), masks[0]) and int(of_a_mask.touched().sum()) == 14


@pytest.mark.parametrize(
    "step",
    [
        StepRecord(step=0, total_steps=4, inpaintings=0, seconds=0.5),
        DrawnStep(step=1, total_steps=4, inpaintings=1, seconds=0.5, loss=1.5),
        SearchStep(
            step=2, total_steps=4, inpaintings=9, seconds=0.5, loss=1.5, epoch=1, expected_loss=1.4, chosen=(1, 0),
            updates=200,
        ),
    ],
)  # fmt: skip
def test_a_step_can_be_saved_and_read_back(step):
    assert step_from_dict(step.to_dict()) == step and type(step_from_dict(step.to_dict())) is type(step)
