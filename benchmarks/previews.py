"""What a preview of a drawing costs beside a denoising step and beside the full autoencoder, in one run.

    python benchmarks/previews.py [--side 512] [--repeats 0] [--json]

The networks have the architectures of LCM-Dreamshaper (Stable Diffusion 1.5) and of TAESD. The operations of matrix
products and convolutions are counted without computing anything. With --repeats the networks also run with random
weights, in float32 on the CPU (6 GB of memory); the ratios are those of medians, with the range of the ratios of each
turn. Threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from speed import in_turns, ratio
from torch.utils.flop_counter import FlopCounterMode

UNET: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768, "attention_head_dim": 8,
    "time_cond_proj_dim": 256, "sample_size": 64,
}  # fmt: skip
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip


Works = dict[str, Callable[[], Any]]
PAIRS = {
    "a preview beside a denoising step": ("preview", "step"),
    "the full autoencoder's decoding beside a denoising step": ("decoding", "step"),
    "a preview beside the full autoencoder's decoding": ("preview", "decoding"),
}


def works(side: int, device: str) -> Works:
    """What is compared, by name. side: of the picture, in pixels, a multiple of 64. device: meta computes nothing."""
    with torch.device(device):
        unet, full, small = (
            each.eval() for each in (UNet2DConditionModel(**UNET), AutoencoderKL(**AUTOENCODER), AutoencoderTiny())
        )
        latents, text = torch.randn(1, 4, side // 8, side // 8), torch.randn(1, 77, UNET["cross_attention_dim"])
        guidance, timestep = torch.randn(1, UNET["time_cond_proj_dim"]), torch.tensor(500)
    return {
        "step": lambda: unet(latents, timestep, text, timestep_cond=guidance),
        "decoding": lambda: full.decode(latents),
        "preview": lambda: small.decode(latents),
    }


@torch.no_grad()
def counted(side: int) -> list[dict[str, Any]]:
    """The rows of the operations."""
    operations = {}
    for name, work in works(side, "meta").items():
        with FlopCounterMode(display=False) as counter:
            work()
        operations[name] = counter.get_total_flops()
    return [
        {"figure": f"operations of {name}", "value": round(operations[ours] / operations[theirs], 3)}
        for name, (ours, theirs) in PAIRS.items()
    ]


@torch.no_grad()
def measured(side: int, repeats: int) -> list[dict[str, Any]]:
    """The rows of the seconds."""
    found = works(side, "cpu")
    seconds = dict(zip(found, in_turns(repeats, *found.values()), strict=True))
    return [ratio(f"seconds of {name}", seconds[ours], seconds[theirs], "") for name, (ours, theirs) in PAIRS.items()]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=0)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = counted(options.side) + (measured(options.side, options.repeats) if options.repeats else [])
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(f"{row['figure']}: {row['value']}" + (f" ({row['low']} to {row['high']})" if "low" in row else ""))


if __name__ == "__main__":
    main()
