"""What an edit with Stable Diffusion 2 would compute beside a plain inpainting, counted without computing it.

    python benchmarks/operations.py [--steps 20] [--json]

An edit of the sample by the bundled models is made once, and the pictures are counted that each of its networks gets.
Then each is counted with the operations of the network of its kind at its published size: Stable Diffusion 2 inpainting
at 512 pixels, DINO ViT-B/8 and CLIP ViT-B/16 at 224. The operations are those of matrix products and convolutions. Two
rows are printed: of an edit that inpaints one region, as the sample's does, and of one that compares three.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from full_size import STAGES
from previews import AUTOENCODER
from speed import CAPTION, PROMPT, SAMPLE
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModel, ViTConfig, ViTModel

from maskless import Editor

SIDE, LATENTS = 512, 64


def pictures_of_an_edit() -> Counter[str]:
    """How many pictures DINO and CLIP get in an edit that inpaints one region."""
    editor, seen = Editor.from_pretrained("storybook"), Counter[str]()

    def count(name: str) -> Callable[..., None]:
        def hook(_network: nn.Module, given: tuple[Any, ...], named: dict[str, Any], _output: Any) -> None:
            pixels = given[0] if given else named["pixel_values"]
            seen[name] += len(pixels)

        return hook

    networks = {"dino": editor.models.dino.model, "clip": editor.models.clip.model.vision_model.embeddings}
    for name, network in networks.items():
        network.register_forward_hook(count(name), with_kwargs=True)
    result = editor.edit(SAMPLE, caption=CAPTION, prompt=PROMPT)
    assert result.cost.inpaintings == 1, "the sample's region is clearly the right one"
    return seen


@torch.no_grad()
def operations() -> dict[str, int]:
    """The operations of one pass of each network at its published size, for one picture."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=LATENTS, in_channels=9, block_out_channels=STAGES, cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20), use_linear_projection=True,
        )  # fmt: skip
        vae = AutoencoderKL(**AUTOENCODER)
        dino = ViTModel(ViTConfig(patch_size=8), add_pooling_layer=False)
        clip = CLIPVisionModel(CLIPVisionConfig(patch_size=16))
        picture, small = torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 3, 224, 224)
        noisy, text = torch.randn(1, 9, LATENTS, LATENTS), torch.randn(1, 77, 1024)
        latents, time = torch.randn(1, 4, LATENTS, LATENTS), torch.tensor(500)
    works: dict[str, Callable[[], Any]] = {
        "unet": lambda: unet(noisy, time, text),
        "encode": lambda: vae.encode(picture),
        "decode": lambda: vae.decode(latents),
        "dino": lambda: dino(small),
        "clip": lambda: clip(small),
    }
    counted = {}
    for name, work in works.items():
        with FlopCounterMode(display=False) as counter:
            work()
        counted[name] = counter.get_total_flops()
    return counted


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    one, seen = operations(), pictures_of_an_edit()
    plain = 2 * options.steps * one["unet"] + one["encode"] + one["decode"]
    looking = seen["dino"] * one["dino"] + seen["clip"] * one["clip"]
    rows = [
        {"figure": f"operations of an edit of {count} region{'s' * (count > 1)} / of a plain inpainting",
         "value": round((count * plain + looking) / plain, 2)}
        for count in (1, 3)
    ]  # fmt: skip
    rows.append({"figure": "pictures for CLIP, for DINO", "value": f"{seen['clip']}, {seen['dino']}"})
    print(json.dumps(rows, indent=2) if options.json else "\n".join(f"{row['figure']}: {row['value']}" for row in rows))


if __name__ == "__main__":
    main()
