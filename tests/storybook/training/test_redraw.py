"""The redrawer: its pairs differ in what the text describes, and it starts from the inpainter."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskless.data.errors import MasklessError
from maskless.storybook.train import ASSETS
from maskless.storybook.training import redraw
from maskless.storybook.training.loop import Run
from maskless.storybook.training.redraw import _style_pairs, _texture_pairs, _tile, pairs_of
from maskless.storybook.world.captions import STYLE_WORDS
from maskless.storybook.world.graph import TEXTURES, sample
from maskless.storybook.world.scenes import draw


def _run(models: Path) -> Run:
    return Run(name="redraw", output=models, minutes=1, device=torch.device("cpu"), workers=0)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    folder = tmp_path_factory.mktemp("training")
    (folder / "models").symlink_to(ASSETS)
    return redraw.build(_run(folder))["unet"]


def test_windows_lie_in_the_picture() -> None:
    rng = np.random.default_rng(0)
    for seed in range(60):
        for pair in pairs_of(sample(seed), 96 + seed, rng):
            x0, y0, x1, y1 = pair.window
            assert 0 <= x0 < x1 <= 96 + seed and 0 <= y0 < y1 <= 96 + seed and x1 - x0 == y1 - y0
            assert pair.before.size == pair.after.size == (96 + seed, 96 + seed) and pair.text


def test_a_pair_of_styles_is_the_same_scene_and_its_text_names_the_second_style() -> None:
    rng, changed = np.random.default_rng(1), 0
    for seed in range(40):
        for pair in _style_pairs(sample(seed), 96, rng):
            named = {s for s in STYLE_WORDS if s != "flat" and any(word in pair.text for word in STYLE_WORDS[s])}
            drawn = {style for style in STYLE_WORDS if draw(sample(seed).with_style(style), 96).image == pair.after}
            assert drawn & (named or {"flat"}), pair.text
            changed += pair.before.tobytes() != pair.after.tobytes()
    assert changed > 60


def test_in_a_pair_of_textures_one_object_changes_and_is_named() -> None:
    rng, given = np.random.default_rng(2), set()
    for seed in range(60):
        graph = sample(seed)
        if not graph.objects:
            continue
        for pair in _texture_pairs(graph, 96, rng):
            differs = (np.asarray(pair.before) != np.asarray(pair.after)).any(axis=2)
            named = {texture for texture in TEXTURES if texture in pair.text}
            assert len(named) == 1, pair.text
            if not differs.any():
                continue
            touched = [graph.objects[t.index].kind for t in draw(graph, 96).objects if (t.mask & differs).any()]
            assert any(kind in pair.text for kind in touched)
            given |= named
    assert given == set(TEXTURES)


def test_it_starts_as_the_inpainter_with_a_mask_over_everything(unet: torch.nn.Module) -> None:
    from diffusers import UNet2DConditionModel

    inpainter = UNet2DConditionModel.from_pretrained(ASSETS / "inpainting" / "unet", torch_dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    noisy, given = (torch.randn(1, 4, 16, 16, generator=generator) for _ in range(2))
    text, time = torch.randn(1, 32, 192, generator=generator), torch.tensor([500])
    scale = float(redraw._frozen["vae"].config.scaling_factor)
    with torch.no_grad():
        own = unet.conv_in(torch.cat([noisy, given / scale], dim=1))
        its = inpainter.conv_in(torch.cat([noisy, torch.ones(1, 1, 16, 16), given], dim=1))
        answer = unet(torch.cat([noisy, given / scale], dim=1), time, text).sample
    assert torch.allclose(own[:, :, 1:-1, 1:-1], its[:, :, 1:-1, 1:-1], atol=1e-4), (
        "equal except at the border, where the mask ends"
    )
    assert answer.shape == (1, 4, 16, 16) and bool(answer.isfinite().all())


def test_the_loss_is_finite_and_moves_the_unet_alone(unet: torch.nn.Module) -> None:
    batch = {key: value[None] for key, value in redraw.example(300_000_000).items()}
    value = redraw.loss(torch.nn.ModuleDict({"unet": unet}), batch, torch.Generator().manual_seed(0))
    value.backward()
    assert 0 < value.item() < 5
    assert all(parameter.grad is not None for parameter in unet.parameters())
    frozen = redraw._frozen["text"]
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


def test_resumed_it_keeps_the_text_encoder_that_it_was_trained_with(unet: torch.nn.Module, tmp_path: Path) -> None:
    """The inpainter's text encoder may have been trained since."""
    shutil.copytree(ASSETS / "redraw", tmp_path / "redraw")
    file = tmp_path / "redraw" / "text_encoder" / "model.safetensors"
    name, weights = "final_layer_norm.weight", load_file(file)
    name = next(key for key in weights if key.endswith(name))
    save_file(weights | {name: weights[name] + 1}, file, {"format": "pt"})
    encoder, network = redraw._frozen["text"], torch.nn.ModuleDict({"unet": unet})
    redraw.restore(network, ASSETS)
    before = dict(encoder.named_parameters())[name].clone()
    redraw.restore(network, tmp_path)
    assert torch.allclose(dict(encoder.named_parameters())[name], before + 1, atol=1e-2)
    redraw.restore(network, ASSETS)
    assert torch.equal(dict(encoder.named_parameters())[name], before)


def test_most_windows_of_a_style_are_of_64_pixels_on_whole_blocks() -> None:
    rng = np.random.default_rng(0)
    for side, width in ((128, 64), (256, 64)):
        windows = [_tile(side, rng) for _ in range(100)]
        fitting = [w for w in windows if w[2] - w[0] == width and w[0] % (side // 32) == w[1] % (side // 32) == 0]
        assert 55 <= len(fitting) < 90


def test_without_an_inpainter_the_error_names_what_to_train_first(tmp_path: Path) -> None:
    with pytest.raises(MasklessError, match="train the inpainter first"):
        redraw.build(_run(tmp_path))
