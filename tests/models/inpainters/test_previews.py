"""Previews by a small autoencoder: it decodes what a drawing is expected to become, and nothing else."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.inpainters.denoising import Sampling, predicted_picture, watched
from maskless.models.inpainters.previews import PreviewDecoder, load_preview_vae
from maskless.models.pretrained import load_models
from tiny_models import build_tiny_preview

SIDE = 64


def load(tiny_models, **options):
    return load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32", **options))


@pytest.fixture(scope="module")
def loaded(tiny_models, preview_vae):
    return load(tiny_models, preview_vae=str(preview_vae))


def drawn(model, on_step, seed: int = 1):
    """Two pictures drawn in three steps, with a function that is called after each."""
    pictures = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 1, SIDE, SIDE)
    masks[..., 16:48, 16:48] = 1
    with watched(on_step):
        prompt = model.encode_prompt("a house")
        return model.inpaint(pictures, masks, prompt, Sampling(seed=seed, steps=3, guidance_scale=3.0))


def test_each_step_can_be_shown_and_the_drawing_is_the_same_to_the_bit(tiny_models, loaded, editor):
    shown = []
    watched_drawing = drawn(loaded.inpainter, lambda *_: shown.append(predicted_picture()))
    assert [picture.shape for picture in shown] == [(3, SIDE, SIDE)] * 3 and shown[0].dtype == torch.uint8
    assert not torch.equal(shown[0], shown[1]) and not torch.equal(shown[1], shown[2])
    unseen = []
    assert torch.equal(watched_drawing, drawn(editor.models.inpainter, lambda *_: unseen.append(predicted_picture())))
    assert unseen == [None] * 3, "without the option nothing is decoded"
    assert predicted_picture() is None, "nothing is being drawn here"
    assert loaded.weights == editor.models.weights, "what identifies the results does not depend on it"


def test_nothing_is_decoded_where_nobody_looks(loaded, monkeypatch):
    model = loaded.inpainter
    monkeypatch.setattr(model._previews, "picture", lambda _latents: pytest.fail("nobody looks"))
    drawn(model, lambda *_: None)


def test_a_preview_is_what_the_small_autoencoder_makes_of_the_first_picture(loaded, preview_vae):
    from diffusers import AutoencoderTiny

    model = loaded.inpainter
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    own = AutoencoderTiny.from_pretrained(preview_vae).eval()
    with torch.no_grad():
        expected = ((own.decode(latents[:1]).sample[0] / 2 + 0.5).clamp(0, 1) * 255).round()
    assert float((model.preview(latents).float() - expected).abs().max()) <= 1, "the latents as the denoiser has them"
    assert not torch.equal(model.preview(latents), model.decode(latents)[0]), "the full one decodes results alone"


def test_the_last_preview_is_of_the_finished_latents(loaded):
    """With DDIM the prediction at the last step is where the drawing ends."""
    model, shown = loaded.inpainter, []
    pictures, masks = torch.rand(1, 3, SIDE, SIDE), torch.ones(1, 1, SIDE, SIDE)
    run = model.begin(pictures, masks, model.encode_prompt("a tree"), Sampling(seed=1, steps=2, guidance_scale=1.0))
    with watched(lambda *_: shown.append(predicted_picture())):
        finished = model.advance(run)
    difference = shown[-1].float() - model.preview(finished.latents).float()
    assert len(shown) == 2 and float(difference.abs().max()) <= 1


def test_latents_get_the_scale_and_the_shift_that_the_small_autoencoder_expects(preview_vae):
    network, given = load_preview_vae(preview_vae), []
    own = SimpleNamespace(config=SimpleNamespace(scaling_factor=0.5, latent_channels=4))
    network.register_to_config(scaling_factor=2.0, shift_factor=1.5)
    decoder = PreviewDecoder(network, own, cell_px=8)
    network.decoder.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    decoder.picture(torch.full((1, 4, 8, 8), 4.0))
    assert torch.equal(given[0], torch.full((1, 4, 8, 8), 4.0 * 0.5 / 2 + 1.5))


def test_values_that_are_no_numbers_can_be_shown_too(preview_vae):
    own = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0, latent_channels=4))
    picture = PreviewDecoder(load_preview_vae(preview_vae), own, cell_px=8).picture(torch.full((1, 4, 8, 8), torch.nan))
    assert picture.shape == (3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_channels": 16}, "the inpainting model's latents of 4 channels, got one for 16"),
        ({"levels": 3}, "must make 8 x 8 pixels of each latent, as the inpainting model's own does, got 4 x 4"),
    ],
)
def test_one_that_does_not_fit_is_refused_in_a_line(tiny_models, tmp_path, changes, words):
    folder = build_tiny_preview(tmp_path / "other", **changes)
    with pytest.raises(MasklessError, match=words) as refused:
        load(tiny_models, preview_vae=str(folder))
    assert "\n" not in str(refused.value) and "--preview-vae" in str(refused.value)


def test_another_kind_of_autoencoder_is_refused(tiny_models):
    with pytest.raises(MasklessError, match="must be an AutoencoderTiny, such as TAESD, got AutoencoderKL in "):
        load(tiny_models, preview_vae=str(tiny_models / "inpainting" / "vae"))


def test_a_damaged_one_is_refused(tiny_models, preview_vae, tmp_path):
    folder = shutil.copytree(preview_vae, tmp_path / "taesd")
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(MasklessError, match="damaged or cut short"):
        load(tiny_models, preview_vae=str(folder))
    with pytest.raises(MasklessError, match="no such preview_vae model: 'taesd' is neither a folder nor a hub id"):
        load(tiny_models, preview_vae="taesd")


def test_a_folder_of_models_may_hold_it(tiny_models, preview_vae, tmp_path):
    folder = shutil.copytree(tiny_models, tmp_path / "models")
    shutil.copytree(preview_vae, folder / "preview_vae")
    models = load(folder)
    assert models.inpainter.preview(torch.zeros(1, 4, 8, 8)).shape == (3, SIDE, SIDE)
    assert models.names["preview_vae"] == str(folder / "preview_vae")


def test_models_without_a_unet_have_no_previews(tiny_models, preview_vae, tmp_path):
    from tiny_families import build_family

    folder = build_family("flux", tmp_path / "flux")
    parts = {part: str(tiny_models / part) for part in ("dino", "clip")}
    with pytest.raises(MasklessError, match=r"needs an inpainting model with a UNet .*, got a FluxInpaintPipeline"):
        load(folder, preview_vae=str(preview_vae), **parts)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "FluxPipeline"
