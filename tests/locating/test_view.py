"""A view computes everything once, on the picture's own pixels or on its smaller copy."""

import numpy as np
import pytest
import torch

from maskless.data.paste import LARGE_PX
from maskless.locating.view import VIEW_PX, PictureView, with_margin


@pytest.fixture
def view(editor):
    return editor.look(np.random.default_rng(0).integers(0, 256, (72, 120, 3), dtype=np.uint8))


def test_nothing_is_computed_twice(editor, view, monkeypatch):
    boxes = torch.tensor([[0, 0, 40, 40], [60, 20, 110, 70]])
    first = view.features, view.embedding, view.text("a car"), view.relevance("a car"), view.signs(boxes, "a car")
    for part, method in (("dino", "features"), ("clip", "encode_text"), ("clip", "relevance")):
        monkeypatch.setattr(getattr(editor.models, part), method, lambda *_: pytest.fail("it is known"))
    again = view.features, view.embedding, view.text("a car"), view.relevance("a car"), view.signs(boxes, "a car")
    assert all(one is other for one, other in zip(first[:4], again[:4], strict=True))
    assert torch.equal(first[4].shown, again[4].shown)


def test_boxes_that_were_encoded_for_one_caption_are_known_for_every_other(editor, view, monkeypatch):
    boxes = torch.tensor([[0, 0, 40, 40], [60, 20, 110, 70]])
    view.signs(boxes, "a car")
    encoded = []
    original = editor.models.clip.encode_crops
    monkeypatch.setattr(
        editor.models.clip, "encode_crops", lambda image, boxes: encoded.append(len(boxes)) or original(image, boxes)
    )
    more = torch.cat([boxes, torch.tensor([[10, 10, 30, 30]])])
    second = view.signs(more, "a house")
    assert encoded == [1], "the crop of the new box"
    fresh = editor.look((view.image * 255).round().byte().permute(1, 2, 0).numpy()).signs(more, "a house")
    assert torch.allclose(second.shown, fresh.shown, atol=1e-5)


def test_the_small_picture_is_the_picture_itself_where_it_is_not_large(editor, view):
    assert view.small is view.image and view.small_view is view
    large = PictureView(torch.rand(3, 100, 2 * VIEW_PX, generator=torch.Generator().manual_seed(0)), editor.models)
    assert large.small_yx == (50, VIEW_PX) and torch.equal(large.small_view.image, large.small)
    assert large.scaled(torch.tensor([[0, 0, 2 * VIEW_PX, 100]])).tolist() == [[0, 0, VIEW_PX, 50]]
    assert large.shrunk(128).shape == (3, 12, 128)


def test_of_a_large_picture_the_models_get_copies_of_one_average(editor, view, monkeypatch):
    assert view.reduced is view.image
    large = PictureView(torch.rand(3, 2 * LARGE_PX, 2 * LARGE_PX + 2), editor.models)
    assert large.reduced_yx == (LARGE_PX, LARGE_PX + 1) and large.size_yx == (2 * LARGE_PX, 2 * LARGE_PX + 2)
    given = []
    original = editor.models.dino.features
    monkeypatch.setattr(editor.models.dino, "features", lambda image: given.append(image) or original(image))
    assert large.cells.grid_yx == large.features.grid_yx and given == [large.reduced]
    assert torch.allclose(large.cells.colours, torch.full((), 0.5), atol=0.05)


def test_without_a_caption_there_are_no_signs(view):
    signs = view.signs(torch.tensor([[0, 0, 40, 40]]), "  ")
    assert all(float(values) == 0 for values in (signs.shown, signs.focus, signs.fit))


def test_what_is_read_under_inference_mode_can_be_learned_from(editor):
    with torch.inference_mode():
        view = PictureView(torch.rand(3, 64, 64), editor.models)
        assert not view.features.features.is_inference() and not view.small.is_inference()


def test_a_margin_stays_inside_the_picture():
    assert with_margin((10, 10, 30, 20), (40, 31)) == (7, 7, 31, 23)
