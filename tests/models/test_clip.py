"""CLIP's embeddings, long texts, gradients, views and relevance."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from maskless.data.paste import resize
from maskless.models.clip import MAX_CROPS, draw_views, relevance_boxes, text_pieces
from maskless.models.encoders import load_clip
from maskless.storybook.train import ASSETS


def test_image_and_text_embeddings_equal_those_of_transformers(tiny_models, editor):
    from transformers import CLIPModel, CLIPTokenizer

    clip = editor.models.clip
    model = CLIPModel.from_pretrained(tiny_models / "clip").eval()
    tokenizer = CLIPTokenizer.from_pretrained(tiny_models / "clip")
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model(**tokenizer("a red car", return_tensors="pt"), pixel_values=(image - 0.5) / 0.25)
    assert torch.allclose(clip.encode(image).embedding, output.image_embeds, atol=1e-5)
    assert torch.allclose(clip.encode_text("a red car"), output.text_embeds[0], atol=1e-5)


def test_no_word_of_a_long_text_is_cut_off(editor):
    clip = editor.models.clip
    long = "a red car beside a small green house with a tall tree and many yellow flowers "
    first, second = clip.encode_text(long + "at night"), clip.encode_text(long + "at noon")
    assert float((first - second).norm()) > 1e-3
    pieces = text_pieces(clip.tokenizer, long, clip.context)
    assert len(pieces) > 1
    assert sum(piece.length for piece in pieces) == len(clip.tokenizer(long, add_special_tokens=False).input_ids)
    assert all(len(piece.ids) == clip.context for piece in pieces)


def test_a_word_is_known_if_the_tokenizer_has_it_whole():
    clip = load_clip(ASSETS / "clip")
    assert clip.has_token("room") and clip.has_token("meadow")
    assert not clip.has_token("mountains"), "a word of no caption of the storybook"


def test_an_empty_text_is_one_piece(editor):
    pieces = text_pieces(editor.models.clip.tokenizer, "", 32)
    assert [piece.length for piece in pieces] == [0]
    assert float(editor.models.clip.encode_text("").norm()) == pytest.approx(1, abs=1e-5)


def test_gradients_reach_the_picture(editor):
    clip = editor.models.clip
    image = torch.rand(1, 3, 80, 100, requires_grad=True)
    encoding = clip.encode(image)
    (encoding.embedding.sum() + encoding.tokens.sum()).backward()
    assert image.grad is not None and float(image.grad.abs().sum()) > 0


def test_views_are_the_same_for_the_same_seed_and_begin_with_the_whole():
    views = [draw_views(4, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert views[0] == views[1] != views[2]
    whole = views[0][0]
    assert (whole.x0, whole.y0, whole.x1, whole.y1, whole.mirrored) == (0.0, 0.0, 1.0, 1.0, False)
    assert all(0 <= view.x0 < view.x1 <= 1 and 0 <= view.y0 < view.y1 <= 1 for view in views[0])


def test_the_first_view_is_the_whole_picture(editor, picture):
    clip = editor.models.clip
    views = clip.encode_views(picture[None], draw_views(3, torch.Generator().manual_seed(0)))
    whole = clip.encode(picture[None])
    assert views.embedding.shape == (1, 3, 32)
    assert torch.allclose(views.embedding[:, 0], whole.embedding) and torch.allclose(views.tokens, whole.tokens)


@given(height=st.integers(32, 8000), width=st.integers(32, 8000))
def test_relevance_crops_cover_the_picture_and_stay_few(height, width):
    boxes = relevance_boxes((height, width))
    x0, y0, x1, y1 = boxes.unbind(1)
    assert len(boxes) <= MAX_CROPS
    assert int(x0.min()) == int(y0.min()) == 0 and int(x1.max()) == width and int(y1.max()) == height


def test_relevance_is_a_map_of_the_picture(editor, picture):
    clip = editor.models.clip
    found = clip.relevance(clip.relevance_crops(picture), clip.encode_text("a red square"))
    assert found.shape[1] > found.shape[0]
    assert float(found.min()) == 0 and float(found.max()) == pytest.approx(1)


def test_crops_are_looked_at_where_their_boxes_are(editor, picture):
    clip = editor.models.clip
    boxes = torch.tensor([[84, 20, 108, 44], [0, 0, 24, 24]])
    crops = clip.encode_crops(picture, boxes)
    assert torch.allclose(crops[0], clip.encode(picture[None, :, 20:44, 84:108]).embedding[0], atol=1e-5)
    assert not torch.allclose(crops[0], crops[1], atol=1e-4)


def test_crops_have_the_embeddings_of_the_whole_network(picture):
    """For crops, the last layer computes the CLS token alone."""
    clip = load_clip(ASSETS / "clip")
    boxes = torch.tensor([[0, 0, 40, 40], [10, 5, 60, 44], [84, 20, 108, 44]])
    crops = [resize(picture[:, y0:y1, x0:x1], (clip.image_px, clip.image_px)) for x0, y0, x1, y1 in boxes.tolist()]
    expected = clip.encode(torch.stack(crops)).embedding
    assert torch.allclose(clip.encode_crops(picture, boxes), expected, atol=1e-5)
    assert not torch.allclose(expected[0], expected[2], atol=1e-2), "the crops differ"
