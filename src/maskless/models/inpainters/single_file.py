"""Loads inpainting models from one .safetensors file, with weights under the names of the original training code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from maskless.data.errors import MasklessError
from maskless.models.presets import BY_NAME

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
SECOND_TEXT_ENCODER = "conditioner.embedders.1.model.ln_final.weight"
TEXT_WIDTHS = {768: "sd15", 1024: "sd2"}
"""Presets by the width of their text encoder, which differs between Stable Diffusion 1.5 and 2."""


def settings_of(path: Path) -> str:
    """Where the settings of this file's model are: a folder of the same name beside the file, or else a hub id.

    Raises:
        MasklessError: the file is damaged, or is not a Stable Diffusion inpainting model.
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
        raise MasklessError(f"an inpainting model must have a UNet with 9 input channels, got {channels} in {path}")
    if SECOND_TEXT_ENCODER in names:
        return BY_NAME["sdxl"].inpainting[0]
    if width not in TEXT_WIDTHS:
        raise MasklessError(f"{path} is not a known kind of model; put its settings (model_index.json …) into {beside}")
    return BY_NAME[TEXT_WIDTHS[width]].inpainting[0]


def load_single_file(path: Path, settings: Path) -> DiffusionPipeline:
    """The inpainting pipeline from a file, in float32.

    settings: folder with model_index.json and the configurations and tokenizers that it names.
    """
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline

    xl = (settings / "text_encoder_2").is_dir()
    options = {} if xl else {"safety_checker": None, "requires_safety_checker": False}
    pipeline = (StableDiffusionXLInpaintPipeline if xl else StableDiffusionInpaintPipeline).from_single_file(
        str(path), config=str(settings), local_files_only=True, torch_dtype=torch.float32, **options
    )
    return pipeline.to(dtype=torch.float32)
