"""Loads inpainting models from one .safetensors file, with weights under the names of the original training code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maskless.data.errors import MasklessError, shown
from maskless.models.inpainters.latent_unet import WITH_MASK, WITHOUT_MASK
from maskless.models.inpainters.loading import network_classes
from maskless.models.parts import (
    SETTINGS_BYTES,
    check_settings,
    open_network,
    opening,
    read_json,
    recording_missing_weights,
    require_room,
    shapes_in,
)
from maskless.models.presets import BY_NAME

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FIRST_CONVOLUTION = "model.diffusion_model.input_blocks.0.0.weight"
SECOND_TEXT_ENCODER = "conditioner.embedders.1.model.ln_final.weight"
SD2_WIDTH = 1024
TEXT_WIDTHS = {768: "sd15", SD2_WIDTH: "sd2"}
"""Presets by the width of their text encoder, which differs between Stable Diffusion 1.5 and 2."""


NAMES = {"vae": "autoencoder", "text_encoder": "text encoder", "text_encoder_2": "second text encoder"}
PARTS = {
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
"""What the names of the weights of each part begin with."""


def settings_of(path: Path) -> str:
    """Where the settings of this file's model are: a folder of the same name beside the file, or else a hub id.

    Raises:
        MasklessError: the file is damaged, or is not a Stable Diffusion inpainting model.
    """
    if path.suffix != ".safetensors":
        raise MasklessError(
            f"a model in one file must be a .safetensors file, got {path}; a .ckpt is a pickle, which can hold code, "
            "so use the .safetensors of the same model, which most authors offer, or convert it"
        )
    shapes = shapes_in(path)
    if FIRST_CONVOLUTION not in shapes:
        raise MasklessError(f"{path} is not a Stable Diffusion checkpoint: it has no {FIRST_CONVOLUTION}")
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return str(beside)
    channels = shapes[FIRST_CONVOLUTION][1]
    text = next((name for name in sorted(shapes) if name.endswith("attn2.to_k.weight")), None)
    width = shapes[text][1] if text else None
    if channels not in (WITH_MASK, WITHOUT_MASK):
        raise MasklessError(
            f"a model in one file must have a UNet with {WITH_MASK} input channels, or with {WITHOUT_MASK} if it was "
            f"not trained for inpainting, got {channels} in {path}"
        )
    if SECOND_TEXT_ENCODER in shapes:
        return BY_NAME["sdxl"].inpainting[0]
    if channels == WITHOUT_MASK and width == SD2_WIDTH:
        raise MasklessError(
            f"{path} is a Stable Diffusion 2 checkpoint with {WITHOUT_MASK} channels, some of which predict noise and "
            f"some velocity; put its settings (model_index.json …) into {beside}"
        )
    if width not in TEXT_WIDTHS:
        raise MasklessError(f"{path} is not a known kind of model; put its settings (model_index.json …) into {beside}")
    return BY_NAME[TEXT_WIDTHS[width]].inpainting[0]


def load_single_file(path: Path, settings: Path) -> DiffusionPipeline:
    """The inpainting pipeline from a file, in float32.

    A part that the file lacks is read from the folder of the settings, if it has weights there.

    settings: folder with model_index.json and the configurations and tokenizers that it names.

    Raises:
        MasklessError: a part or a weight is missing, or they do not fit the settings; the message names it.
    """
    from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline, UNet2DConditionModel

    shapes = shapes_in(path)
    classes = network_classes(settings, read_json(settings / "model_index.json", limit=SETTINGS_BYTES))
    xl = "text_encoder_2" in classes
    options: dict[str, Any] = {} if xl else {"safety_checker": None, "requires_safety_checker": False}
    for part, kind in classes.items():
        config = settings / part / "config.json"
        check_settings(read_json(config, limit=SETTINGS_BYTES), config, weights=len(shapes))
        if part in PARTS and not any(name.startswith(PARTS[part]) for name in shapes):
            options[part] = _from_settings(path, settings / part, part, kind)
        else:
            with opening(settings / part):
                require_room(kind, settings / part, shapes, {})
    # With accelerate, diffusers would leave missing weights without values and then fail to move them.
    common: dict[str, Any] = {"local_files_only": True, "torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    with opening(path), recording_missing_weights() as missing:
        # The settings are those of a model for inpainting, unless they are beside the file.
        options["unet"] = UNet2DConditionModel.from_single_file(
            str(path), config=str(settings), subfolder="unet", in_channels=shapes[FIRST_CONVOLUTION][1], **common
        )
        pipeline = (StableDiffusionXLInpaintPipeline if xl else StableDiffusionInpaintPipeline).from_single_file(
            str(path), config=str(settings), **common, **options
        )
    _require_complete(path, pipeline, missing)
    return pipeline.to(dtype=torch.float32)


def _from_settings(path: Path, folder: Path, part: str, kind: type) -> torch.nn.Module:
    """A part that the file lacks, from the folder of its settings."""
    if not any(folder.glob("*.safetensors")):
        own = path.with_suffix("") / part
        raise MasklessError(
            f"{path} has no {NAMES[part]} (weights that begin with {' or '.join(PARTS[part])}), so it is not a whole "
            f"model; use the complete checkpoint, or put {part} with its weights into {own}"
        )
    return open_network(kind, folder, torch_dtype=torch.float32)


def _require_complete(
    path: Path, pipeline: DiffusionPipeline, missing: list[tuple[torch.nn.Module, list[str]]]
) -> None:
    """Check that the file had every weight of every network.

    Raises:
        MasklessError: one is missing; the message names it as diffusers does.
    """
    for part, network in pipeline.components.items():
        if not isinstance(network, torch.nn.Module):
            continue
        modules = set(map(id, network.modules()))
        names = {name for module, each in missing if id(module) in modules for name in each}
        names |= {name for name, weight in network.named_parameters() if weight.is_meta}  # as accelerate leaves them
        if names:
            raise MasklessError(
                f"model {path} lacks {len(names)} weights of its {part}, the first is {shown(min(names))}"
            )
