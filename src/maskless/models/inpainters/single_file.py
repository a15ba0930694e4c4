"""An inpainting model that comes as one .safetensors file, under the names of its original training code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from maskless.data.errors import MasklessError
from maskless.models.presets import BY_NAME

FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
SECOND_TEXT_ENCODER = "conditioner.embedders.1.model.ln_final.weight"
TEXT_WIDTHS = {768: "sd15", 1024: "sd2"}
"""Presets by the width of their text encoder."""


def settings_of(path: Path) -> str:
    """The hub id of the model whose settings belong to this file; or the folder that holds them, if one of that name
    is beside it.

    Raises:
        MasklessError: the file is not a Stable Diffusion inpainting model.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise MasklessError(f"a model in one file must be a .safetensors file, got {path}")
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return str(beside)
    try:
        with safe_open(path, framework="pt") as opened:
            names = set(opened.keys())
            if FIRST_CONVOLUTION not in names:
                raise MasklessError(f"{path} is not a Stable Diffusion checkpoint: it has no {FIRST_CONVOLUTION}")
            channels = opened.get_slice(FIRST_CONVOLUTION).get_shape()[1]
            text = next((name for name in sorted(names) if name.endswith("attn2.to_k.weight")), None)
            width = opened.get_slice(text).get_shape()[1] if text else None
    except (SafetensorError, OSError) as error:
        raise MasklessError(f"model file damaged or cut short: {path} ({error})") from error
    if channels != 9:
        raise MasklessError(f"an inpainting model must have a UNet of 9 input channels, got {channels} in {path}")
    if SECOND_TEXT_ENCODER in names:
        return BY_NAME["sdxl"].inpainting[0]
    if width not in TEXT_WIDTHS:
        raise MasklessError(f"{path} is of no known model; put its settings (model_index.json …) into {beside}")
    return BY_NAME[TEXT_WIDTHS[width]].inpainting[0]


def load_single_file(path: Path, settings: Path) -> Any:
    """The inpainting pipeline of a file, in float32. settings: a folder with model_index.json and what goes with it."""
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline

    xl = (settings / "text_encoder_2").is_dir()
    options = {} if xl else {"safety_checker": None, "requires_safety_checker": False}
    pipeline = (StableDiffusionXLInpaintPipeline if xl else StableDiffusionInpaintPipeline).from_single_file(
        str(path), config=str(settings), local_files_only=True, torch_dtype=torch.float32, **options
    )
    return pipeline.to(dtype=torch.float32)
