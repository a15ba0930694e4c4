"""The training of the decoder alone: the encoder stays, and all who use the autoencoder get the new decoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny

from maskless.storybook.train import ASSETS
from maskless.storybook.training import autoencoder, decoder
from maskless.storybook.training.loop import Run


def _run(folder: Path) -> Run:
    return Run(name="decoder", output=folder, minutes=1, device=torch.device("cpu"), workers=0)


def test_only_the_decoder_is_trained(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ASSETS)
    vae = decoder.build(_run(tmp_path))["vae"]
    assert all(p.requires_grad for p in vae.decoder.parameters())
    assert not any(p.requires_grad for p in vae.encoder.parameters())


def test_its_examples_are_the_autoencoders_of_other_seeds() -> None:
    assert decoder.example is autoencoder.example and decoder.loss is autoencoder.loss
    assert decoder.FIRST_SEED > 0 and decoder.EXPORT == autoencoder.EXPORT


def test_a_new_decoder_is_exported_to_the_redrawer_too(tmp_path: Path) -> None:
    for part in ("inpainting", "redraw"):
        shutil.copytree(ASSETS / part / "vae", tmp_path / "models" / part / "vae")
    run = _run(tmp_path)
    model = decoder.build(run)
    with torch.no_grad():
        next(model["vae"].decoder.parameters()).add_(0.5)
    decoder.export(model, run.models)
    for folder in (run.models / part / "vae" for part in ("inpainting", "redraw")):
        vae = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32)
        for name, value in vae.state_dict().items():
            assert torch.allclose(value, model["vae"].state_dict()[name], atol=1e-3), f"{folder}: {name}"
        assert "_name_or_path" not in (folder / "config.json").read_text("utf-8")
