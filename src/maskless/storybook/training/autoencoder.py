"""The autoencoder: pictures to latents of 4 channels and a quarter of the side, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from maskless.storybook.training.loop import Run, remove_origin
from maskless.storybook.world.scenes import render, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor

BATCH = 8
LEARNING_RATE = 2e-3
WIDTH = 48
EXPORT = "inpainting/vae"
SCALE = 2.0  # the latents, close to mean colours in [-1, 1], have a standard deviation of about 0.5
CROP = 48  # pixels along a training crop; the network is convolutional, so it takes pictures of any size


def build(run: Run) -> nn.ModuleDict:
    """TAESD's architecture, which has no normalisation layers: they wash the colours out when the training is short."""
    vae = AutoencoderTiny(
        encoder_block_out_channels=(WIDTH,) * 3,
        decoder_block_out_channels=(WIDTH,) * 3,
        num_encoder_blocks=(1, 2, 3),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=4,
        scaling_factor=SCALE,
    )
    return nn.ModuleDict({"vae": vae.to(memory_format=torch.channels_last)})


def example(seed: int) -> dict[str, Tensor]:
    """Two crops of one scene, image [2, 3, 48, 48] in [0, 1], some with a grey hole as in the inpainter's input."""
    rng = np.random.default_rng(seed)
    picture = to_tensor(render(seed, int(rng.integers(112, 224))).image)
    crops = []
    for _ in range(2):
        y, x = rng.integers(0, picture.shape[-1] - CROP + 1, 2)
        crop = picture[:, y : y + CROP, x : x + CROP].clone()
        if rng.random() < 0.25:
            a, b = np.sort(rng.integers(0, CROP + 1, (2, 2)), axis=0)
            crop[:, a[0] : b[0], a[1] : b[1]] = 0.5
        crops.append(crop)
    return {"image": torch.stack(crops)}


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """L1, L1 of the picture's gradients (for sharp edges) and L2, of pictures decoded from slightly noisy latents.

    A further term pulls the first three latent channels towards the mean colour of their 4 x 4 pixels, and leaves the
    fourth for the detail. Such smooth latents are learned in minutes and suit a diffusion model.
    """
    image = (batch["image"].flatten(0, 1) * 2 - 1).contiguous(memory_format=torch.channels_last)
    vae: AutoencoderTiny = model["vae"]
    latents = vae.encode(image).latents
    noise = torch.randn(latents.shape, generator=generator, device=image.device)
    decoded = vae.decode(latents + 0.03 * noise).sample.float()
    error = decoded - image
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colour = (latents[:, :3].float() - F.avg_pool2d(image, 4)).abs().mean()
    size = latents.float().square().mean()
    return error.abs().mean() + 0.5 * gradients + error.square().mean() + 0.3 * colour + 1e-3 * size


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images [N, 3, H, W] in [0, 1], one value each."""
    return -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3)).clamp_min(1e-10))


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """The mean PSNR of 64 validation scenes, and a sheet of sixteen above their reconstructions."""
    vae: AutoencoderTiny = model["vae"]
    images = torch.stack([to_tensor(render(split_seed("validation", i)).image) for i in range(64)]).to(vae.device)
    latents = torch.cat([vae.encode(part * 2 - 1).latents for part in images.split(16)])
    decoded = torch.cat([vae.decode(part).sample for part in latents.split(16)]).float().clamp(-1, 1) / 2 + 0.5
    return {"psnr": psnr(decoded, images).mean().item()}, sheet([images[:8], decoded[:8], images[8:16], decoded[8:16]])


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that AutoencoderTiny.from_pretrained opens, in 16 bits."""
    vae = model["vae"]
    copy = AutoencoderTiny.from_config(vae.config)
    copy.load_state_dict(vae.state_dict())
    copy.half().save_pretrained(models / EXPORT)
    remove_origin(models / EXPORT)


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported weights."""
    model["vae"].load_state_dict(load(models).state_dict())


def load(models: Path) -> AutoencoderTiny:
    """The exported autoencoder in fp32, frozen."""
    return (
        AutoencoderTiny.from_pretrained(models / "inpainting" / "vae", torch_dtype=torch.float32)
        .requires_grad_(False)
        .eval()
    )
