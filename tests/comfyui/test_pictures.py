"""ComfyUI's tensors to Maskless's, and back."""

import asyncio
import sys
from pathlib import Path

import pytest
import torch

import comfy_stub

FOLDER = Path(__file__).parents[2] / "comfyui"


@pytest.fixture(scope="module")
def pictures():
    with pytest.MonkeyPatch.context() as patch:
        comfy_stub.install(patch)
        asyncio.run(comfy_stub.load_custom_node(FOLDER, patch))
        yield sys.modules[f"{str(FOLDER).replace('.', '_x_')}.pictures"]


def test_pictures_are_channels_first_in_range_without_alpha(pictures):
    image = torch.full((2, 40, 50, 4), 1.5)
    image[1] = -0.5
    first, second = pictures.pictures_of(image)
    assert first.shape == (3, 40, 50) and float(first.min()) == 1 and float(second.max()) == 0


def test_one_mask_holds_for_all_pictures_and_an_empty_one_for_none(pictures):
    image, mask = torch.zeros(2, 40, 50, 3), torch.zeros(40, 50)
    mask[5:9, 5:9] = 0.6
    one, two = pictures.masks_of(mask, image)
    assert torch.equal(one, mask > 0.5) and torch.equal(two, one)
    assert pictures.masks_of(torch.zeros(1, 64, 64), image) == [None, None] == pictures.masks_of(None, image)
    first, second = pictures.masks_of(torch.stack([mask, torch.zeros(40, 50)]), image)
    assert first is not None and second is None


def test_what_is_merged_is_the_edit_inside_and_the_original_outside(pictures):
    original, edited = torch.full((4, 6, 4), 1.5), torch.rand(3, 4, 6)
    touched = torch.zeros(4, 6, dtype=torch.bool)
    touched[1:3, 2:4] = True
    result = pictures.merged(original, edited, touched)
    assert torch.equal(result[~touched], original[~touched]) and bool((result[touched][:, 3] == 1).all())
    assert torch.equal(result[touched][:, :3], edited.movedim(0, -1)[touched])
