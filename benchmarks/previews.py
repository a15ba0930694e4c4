"""What a preview of a drawing costs beside a denoising step and beside the full autoencoder, in one run.

    python benchmarks/previews.py [--repeats 3] [--side 256] [--json]

The networks have the architectures of LCM-Dreamshaper (Stable Diffusion 1.5) and of TAESD and random weights, in
float32 on the CPU (6 GB of memory). Every figure is a ratio of medians, with the range of the ratios of each turn.
Threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from speed import in_turns

UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8,
    "time_cond_proj_dim": 256, "sample_size": 64,
}  # fmt: skip
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


def measured(side: int, repeats: int) -> list[dict[str, Any]]:
    """The rows. side: of the picture, in pixels, a multiple of 64."""
    unet, full, small = UNet2DConditionModel(**UNET).eval(), AutoencoderKL(**AUTOENCODER).eval(), AutoencoderTiny()
    latents, text = torch.randn(1, 4, side // 8, side // 8), torch.randn(1, 77, 768)
    guidance = torch.randn(1, UNET["time_cond_proj_dim"])
    with torch.no_grad():
        step, decoding, preview = in_turns(
            repeats,
            lambda: unet(latents, 500, text, timestep_cond=guidance),
            lambda: full.decode(latents),
            lambda: small.eval().decode(latents),
        )
    pairs = {
        "a preview beside a denoising step": (preview, step),
        "the full autoencoder's decoding beside a denoising step": (decoding, step),
        "a preview beside the full autoencoder's decoding": (preview, decoding),
    }
    return [
        {
            "figure": name, "value": round(median(ours) / median(theirs), 3),
            "low": round(min(a / b for a, b in zip(ours, theirs, strict=True)), 3),
            "high": round(max(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        }
        for name, (ours, theirs) in pairs.items()
    ]  # fmt: skip


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measured(options.side, options.repeats)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['figure']}: {row['value']} ({row['low']} to {row['high']})")


if __name__ == "__main__":
    main()
