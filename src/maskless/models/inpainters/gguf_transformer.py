"""Opens a transformer whose weights are in a GGUF file, quantized or not, as the denoiser of a pipeline.

Its settings are those of the pipeline's folder. The weights stay quantized in memory; each layer dequantizes its own
while it computes. diffusers does both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskless.data.errors import MasklessError, one_line, shown
from maskless.models.gguf_file import MAX_ENTRIES, GgufHeader, read_header, require_library
from maskless.models.inpainters.loading import network_classes
from maskless.models.memory import is_packed
from maskless.models.parts import (
    SETTINGS_BYTES,
    check_settings,
    one_line_model_errors,
    read_json,
    recording_missing_weights,
    require_room,
)

PREFIX = "model.diffusion_model."
"""What the names of some files begin with."""
MARKS = {
    "Flux2Transformer2DModel": (
        "double_stream_modulation_img.lin.weight",
        "double_stream_modulation_img.linear.weight",
    ),
    "SD3Transformer2DModel": ("joint_blocks.0.x_block.attn.qkv.weight", "pos_embed.proj.weight"),
    "FluxTransformer2DModel": ("vector_in.in_layer.weight", "time_text_embed.text_embedder.linear_1.weight"),
    "QwenImageTransformer2DModel": ("txt_norm.weight",),
    "ZImageTransformer2DModel": ("noise_refiner.0.attention.qkv.weight", "noise_refiner.0.attention.to_q.weight"),
}
"""Weights that tell the class of a network, under the names of the original code and of diffusers; the first that
fits."""
FAMILY = {
    "Flux2Transformer2DModel": "FLUX.2",
    "FluxTransformer2DModel": "FLUX.1",
    "SD3Transformer2DModel": "Stable Diffusion 3",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "ZImageTransformer2DModel": "Z-Image",
}
"""The names of the classes for the user."""
UNET_MARKS = ("input_blocks.0.0.weight", "conv_in.weight")


def check_transformer(path: Path, folder: Path) -> None:
    """Check that a GGUF file holds every weight of the transformer of a pipeline, without reading the weights.

    folder: of the pipeline; it needs the settings only.

    Raises:
        MasklessError: it does not; the message says what it holds, or the weight that is missing or has another shape.
    """
    require_library()
    header = read_header(path)
    kind = _class_of(path, header, folder)
    settings = folder / "transformer" / "config.json"
    check_settings(read_json(settings, limit=SETTINGS_BYTES), settings, weights=len(header.shapes))
    _check_formats(path, header)
    with one_line_model_errors(f"{path} does not fit the {kind.__name__} of {folder}"):
        require_room(kind, folder / "transformer", header.shapes, {})
        _check_weights(path, header.shapes, kind, folder)


def load_transformer(path: Path, folder: Path, *, dtype: torch.dtype) -> nn.Module:
    """The transformer on the CPU.

    folder: of the pipeline that it belongs to. dtype: number format that it computes in.

    Raises:
        MasklessError: see `check_transformer`.
    """
    check_transformer(path, folder)
    from diffusers import GGUFQuantizationConfig

    kind: Any = network_classes(folder, read_json(folder / "model_index.json", limit=SETTINGS_BYTES))["transformer"]
    with one_line_model_errors(f"cannot read {path}"):
        network: nn.Module = kind.from_single_file(
            str(path), config=str(folder), subfolder="transformer", local_files_only=True, torch_dtype=dtype,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        )  # fmt: skip
    _unpack_others(network, dtype)
    return network


def _class_of(path: Path, header: GgufHeader, folder: Path) -> type:
    """The class of the pipeline's transformer, if the file has its weights.

    Raises:
        MasklessError: the pipeline has no transformer, or the file holds another network.
    """
    index = read_json(folder / "model_index.json", limit=SETTINGS_BYTES)
    kind = network_classes(folder, index).get("transformer")
    names = {name.removeprefix(PREFIX) for name in header.shapes}
    found = next((each for each, marks in MARKS.items() if names.intersection(marks)), None)
    if found is None and names.intersection(UNET_MARKS):
        raise MasklessError(
            f"{path} holds a UNet (Stable Diffusion 1.5, 2 or XL), which diffusers does not read from GGUF; use its "
            ".safetensors, as --models FILE.safetensors"
        )
    if kind is None:
        raise MasklessError(
            f"--transformer needs a model with a transformer, and {shown(index.get('_class_name'))} in {folder} has a "
            f"UNet; name one of {', '.join(FAMILY.values())} with --models"
        )
    if found != kind.__name__:
        held = "no denoiser that is known here" if found is None else f"the denoiser of {FAMILY[found]}"
        named = "" if header.architecture is None else f" (architecture {shown(header.architecture)})"
        raise MasklessError(
            f"{path} holds {held}{named}, and {folder} needs that of {FAMILY.get(kind.__name__, kind.__name__)}; name "
            "the model that it belongs to with --models"
        )
    return kind


def _check_formats(path: Path, header: GgufHeader) -> None:
    """Check that diffusers can compute with the number formats of the file."""
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES

    known = {"F32", "F16", *(each.name for each in SUPPORTED_GGUF_QUANT_TYPES)}
    other = {number_format: name for name, number_format in header.formats.items() if number_format not in known}
    if other:
        number_format, name = min(other.items())
        raise MasklessError(
            f"{path} stores {shown(name)} as {number_format}, which diffusers does not read; use a file with "
            f"{', '.join(sorted(known))}"
        )
    if header.entries > MAX_ENTRIES:
        raise MasklessError(
            f"{path} has {header.entries:,} entries in the lists of its header, {MAX_ENTRIES:,} at most are read"
        )


def _check_weights(path: Path, shapes: Mapping[str, tuple[int, ...]], kind: Any, folder: Path) -> None:
    """Load weights without values into the network, so that whatever is missing or has another shape is known.

    Raises:
        MasklessError: a weight is missing or has another shape; the message names the first.
    """
    with torch.device("meta"), recording_missing_weights() as recorded:
        weights = {name: torch.empty(shape) for name, shape in shapes.items()}
        try:
            kind.from_single_file(
                weights, config=str(folder), subfolder="transformer", local_files_only=True, low_cpu_mem_usage=False
            )
        except KeyError as error:
            raise MasklessError(f"model {path} lacks weights, the first is {shown(error.args[0])}") from error
        except IndexError as error:  # the last number of no numbers
            raise MasklessError(f"model {path} lacks all blocks of one kind") from error
        except RuntimeError as error:
            sizes = next((line for line in str(error).splitlines() if "size mismatch" in line), None)
            if sizes is None:
                raise
            raise MasklessError(
                f"{path} does not fit the {kind.__name__} of {folder}: {one_line(sizes)}; it is of another variant of "
                f"{FAMILY[kind.__name__]}"
            ) from error
    missing = {name for _module, names in recorded for name in names}
    if missing:
        raise MasklessError(f"model {path} lacks {len(missing)} weights, the first is {shown(min(missing))}")


def _unpack_others(network: nn.Module, dtype: torch.dtype) -> None:
    """Dequantize the weights that no linear layer dequantizes, such as a norm's in bfloat16."""
    from diffusers.quantizers.gguf.utils import GGUFLinear, dequantize_gguf_tensor

    for module in network.modules():
        kept: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in kept:
            for name, weight in tensors.items():
                if weight is None or not is_packed(weight) or (isinstance(module, GGUFLinear) and name == "weight"):
                    continue
                plain: Tensor = dequantize_gguf_tensor(weight).to(dtype)
                tensors[name] = nn.Parameter(plain, False) if isinstance(weight, nn.Parameter) else plain
