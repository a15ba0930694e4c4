"""One edit at full size on each memory level: time and peak memory of Stable Diffusion 2 inpainting, DINO ViT-B/8 and
CLIP ViT-B/16 with random weights, built from their published sizes, so that nothing is downloaded.

    python benchmarks/full_size.py [--levels full low] [--device cpu] [--steps 2] [--anchors 1] [--json]

What the pictures show means nothing; what they cost does not depend on the weights. Each level runs in a process of its
own, for the peak is a process's. 12 GB of memory are enough on a CPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from maskless import EditConfig, Editor
from maskless.data.choices import DEVICES, DTYPES, MEMORY
from maskless.data.model_options import ModelOptions
from maskless.engine.stopwatch import peak_memory_mb
from maskless.models.clip import Clip
from maskless.models.devices import resolve_device, resolve_dtype
from maskless.models.dino import Dino
from maskless.models.inpainters.loading import StableDiffusionInpainter
from maskless.models.memory import arrange
from maskless.models.pretrained import EditModels

ASSETS = Path(str(resources.files("maskless"))) / "assets"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP_PIXELS = {"mean": (0.481, 0.458, 0.408), "std": (0.269, 0.261, 0.276)}
TEXT = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
STAGES = (320, 640, 1280, 1280)


def build_pipeline(dtype: torch.dtype) -> Any:
    """Stable Diffusion 2 inpainting; the UNet in dtype, the rest in float32, as `maskless` loads it."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    with torch.device("meta"):  # 866 million numbers, drawn once and in their final format
        unet = diffusers.UNet2DConditionModel(
            sample_size=64, in_channels=9, out_channels=4, block_out_channels=STAGES, cross_attention_dim=1024,
            attention_head_dim=(5, 10, 20, 20), use_linear_projection=True,
        ).to(dtype)  # fmt: skip
    unet = unet.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.02, generator=generator)
            else:
                weight.fill_(float(name.endswith("weight")))
    return diffusers.StableDiffusionInpaintPipeline(
        vae=diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        unet=unet,
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT, hidden_act="gelu")),
        tokenizer=CLIPTokenizer.from_pretrained(ASSETS / "storybook" / "inpainting" / "tokenizer"),
        scheduler=diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def build_models(device: torch.device, dtype: torch.dtype, memory: str) -> EditModels:
    """All three networks at full size, placed on the device as that memory level has it."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, ViTConfig, ViTModel

    vit = ViTModel(ViTConfig(patch_size=8, attn_implementation="eager"), add_pooling_layer=False)
    dino = Dino(vit, shorter_px=224, **IMAGENET)
    tokenizer = CLIPTokenizer.from_pretrained(ASSETS / "storybook" / "clip")
    clip = Clip(CLIPModel(CLIPConfig(vision_config={"patch_size": 16})), tokenizer, **CLIP_PIXELS)
    pipeline = build_pipeline(dtype)
    inpainter = StableDiffusionInpainter(pipeline, dtype=dtype)
    networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    placement = arrange(networks, [dino.model, clip.model], device=device, memory=memory, dtype=dtype)
    return EditModels(
        dino=dino, clip=clip, inpainter=inpainter, names={"inpainting": "sd2, random"},
        options=ModelOptions(device=device.type, memory=memory), device=device, dtype=dtype, placement=placement,
    )  # fmt: skip


def measure(level: str, device: str, dtype: str, steps: int, anchors: int) -> dict[str, Any]:
    """One edit of a picture of 512 pixels a side: one inpainting for each anchor, no caption to look for."""
    on = resolve_device(device)
    began = time.perf_counter()
    models = build_models(on, resolve_dtype(dtype, on), level)
    built, loaded_mb = time.perf_counter() - began, peak_memory_mb(on)
    config = EditConfig(steps=steps, guidance_scale=7.5, iterations=0, anchors=anchors, views=1)
    image = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0))
    began, cpu_began = time.perf_counter(), time.process_time()
    cost = Editor(models, config).edit(image, prompt="a blue house").cost
    return {
        "level": level, "device": str(on), "dtype": str(models.dtype).removeprefix("torch."), "steps": steps,
        "build_seconds": round(built, 1), "built_mb": round(loaded_mb),
        "edit_seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu_began, 1),
        "inpaintings": cost.inpaintings, "unet_forwards": cost.unet_forwards,
        "inpainting_seconds": round(cost.seconds["inpainting"], 1), "peak_mb": round(cost.peak_memory_mb),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--levels", nargs="+", choices=MEMORY, default=list(MEMORY))
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument(
        "--anchors", type=int, default=1, help="inpaintings, which come in batches at full and balanced"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a level")
    asked = parser.parse_args()
    if len(asked.levels) == 1:
        print(json.dumps(measure(asked.levels[0], asked.device, asked.dtype, asked.steps, asked.anchors)), flush=True)
        return
    for level in asked.levels:
        same = ["--device", asked.device, "--dtype", asked.dtype, "--steps", str(asked.steps)]
        same += ["--anchors", str(asked.anchors)]
        run = subprocess.run([sys.executable, __file__, "--levels", level, *same], capture_output=True, text=True)
        if run.returncode:
            print(f"{level}: failed: {(run.stderr.strip().splitlines() or ['killed'])[-1]}", flush=True)
            continue
        found = json.loads(run.stdout.splitlines()[-1])
        if asked.json:
            print(json.dumps(found), flush=True)
        else:
            times = f"{found['edit_seconds']:7.1f} s ({found['cpu_seconds']:.1f} s of CPU)"
            what = f"{found['inpaintings']} inpaintings of {asked.steps} steps, {found['dtype']} on {found['device']}"
            print(f"{level:<9} {found['peak_mb'] / 1e3:5.1f} GB  {times}  {what}", flush=True)


if __name__ == "__main__":
    main()
