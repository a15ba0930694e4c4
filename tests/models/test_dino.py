"""DINO's features equal those of transformers; sizes and aspects are kept."""

from threading import Thread

import pytest
import torch

from maskless.models.dino import KEY_LAYERS


def test_features_and_attention_equal_those_of_transformers(tiny_models, editor):
    from transformers import ViTModel

    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = editor.models.dino.features(image)
    model = ViTModel.from_pretrained(tiny_models / "dino", add_pooling_layer=False, attn_implementation="eager").eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((image - mean[:, None, None]) / std[:, None, None])[None]
    with torch.no_grad():
        output = model(pixel_values=pixels, output_attentions=True)
    tokens = output.last_hidden_state[0, 1:].reshape(16, 16, -1).permute(2, 0, 1)
    attention = output.attentions[-1][0, :, 0, 1:].mean(dim=0).reshape(16, 16)
    assert torch.allclose(features.features, tokens, atol=1e-5)
    assert torch.allclose(features.attention, attention / attention.sum(), atol=1e-5)


@pytest.mark.parametrize(
    ("size_yx", "grid_yx"),
    [((64, 64), (16, 16)), ((72, 120), (16, 27)), ((120, 72), (27, 16)), ((33, 32), (16, 16)), ((32, 640), (5, 101))],
)
def test_the_grid_has_the_pictures_aspect(editor, size_yx, grid_yx):
    features = editor.models.dino.features(torch.rand(3, *size_yx))
    assert features.grid_yx == grid_yx
    assert float(features.attention.sum()) == pytest.approx(1, abs=1e-4)


def test_the_longest_picture_still_has_a_grid_of_bounded_size(editor):
    height, width = editor.models.dino.input_size_yx((32, 8000))
    assert height >= 4 and (height // 4) * (width // 4) <= 2.5 * 16 * 16


def test_keys_are_those_of_the_last_block_of_all_tokens(editor):
    dino = editor.models.dino
    image = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0))
    keys = dino.keys(image)
    grid = dino.features(image).grid_yx
    assert keys.shape == (1 + grid[0] * grid[1], 32)
    states = dino.model(
        pixel_values=dino.preprocess(image), interpolate_pos_encoding=True, output_hidden_states=True
    ).hidden_states
    last = [part for name, part in dino.model.named_modules() if name.endswith((".k_proj", ".key"))][-1]
    before = [part for name, part in dino.model.named_modules() if name.endswith("layernorm_before")][-1]
    assert torch.allclose(last(before(states[-2]))[0], keys, atol=1e-4)
    assert not last._forward_hooks


def test_a_thread_does_not_get_what_another_one_computes(editor):
    dino = editor.models.dino
    first, second = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).unbind()
    expected = dino.keys(first)
    with dino._last_outputs(KEY_LAYERS) as own:
        other = Thread(target=dino.features, args=(second,))
        other.start()
        other.join()
        assert own == []
    assert torch.equal(dino.keys(first), expected)
