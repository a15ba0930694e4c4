"""PasteBack: outside the mask, the pictures are the original, bit for bit, whatever the workflow has returned."""

import numpy as np
import pytest
import torch
from PIL import Image

from maskless.data.errors import MasklessError
from maskless.interfaces.diffusers.paste_back import PasteBack


@pytest.fixture(scope="module")
def pipeline():
    return PasteBack().init_pipeline()


@pytest.fixture
def mask():
    inside = np.zeros((72, 120), dtype=np.uint8)
    inside[20:44, 84:108] = 255
    return Image.fromarray(inside)


def test_tensors_and_arrays_of_any_size_are_exact_outside(pipeline, picture, mask):
    drawn = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    outside = torch.from_numpy(np.asarray(mask) == 0)
    images = pipeline(images=drawn, source_image=picture, mask_image=mask, output="images")
    assert images.shape == (2, 3, 72, 120)
    assert all(torch.equal(each[:, outside], picture[:, outside]) for each in images)
    assert not torch.equal(images[0], images[1])
    arrays = pipeline(images=drawn.movedim(1, -1).numpy(), source_image=picture, mask_image=mask, output="images")
    assert np.array_equal(arrays, images.movedim(1, -1).numpy())
    sharp = pipeline(
        images=torch.ones(1, 3, 72, 120), source_image=picture, mask_image=mask, feather=0.0, output="images"
    )
    assert bool((sharp[0][:, ~outside] == 1).all())


def test_pil_images_are_exact_outside(pipeline, picture, mask):
    source = Image.fromarray((picture.movedim(0, -1).numpy() * 255).round().astype(np.uint8))
    (edited,) = pipeline(
        images=[Image.new("RGB", (64, 64), "red")], source_image=source, mask_image=mask, output="images"
    )
    outside = np.asarray(mask) == 0
    assert edited.size == source.size and np.array_equal(np.asarray(edited)[outside], np.asarray(source)[outside])
    assert not np.array_equal(np.asarray(edited), np.asarray(source))


def test_an_empty_mask_changes_nothing(pipeline, picture):
    empty = Image.new("L", (120, 72))
    images = pipeline(images=torch.ones(1, 3, 72, 120), source_image=picture, mask_image=empty, output="images")
    assert torch.equal(images[0], picture)


def test_bad_input_is_one_line(pipeline, picture, mask):
    drawn = torch.ones(1, 3, 72, 120)
    with pytest.raises(MasklessError, match="mask_image must be 120 x 72"):
        pipeline(images=drawn, source_image=picture, mask_image=mask.resize((60, 36)))
    with pytest.raises(MasklessError, match="feather must be from 0 to 0.5, got 2"):
        pipeline(images=drawn, source_image=picture, mask_image=mask, feather=2.0)
