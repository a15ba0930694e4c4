"""Adds LoRA files to a pipeline's weights, so that they cost no time per step and need no other library.

Quantized weights stay as they are; a LoRA is computed beside them.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.inpainters.lora_files import (
    LAYER,
    ScaleSettings,
    alpha_of,
    find_file,
    layer_of,
    module_name,
    read_file,
    scale_settings,
    without_side,
)
from maskless.models.inpainters.lycoris import DecomposedLayer, decomposed_layers, is_beyond_lora
from maskless.models.memory import is_packed

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, kw_only=True)
class LoraFile:
    """source: a file, a folder or a hub id. scale: factor of the change of the weights; 1 is the trained change."""

    source: str
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """The change of one layer's weight, alpha / rank * up @ down (LoRA, arXiv 2106.09685, eq. 3 and section 4.1).

    down: [rank, in, ...]. up: [out, rank, ...].
    """

    down: Tensor
    up: Tensor
    alpha: float

    def change(self) -> Tensor:
        """The change of the weight as a matrix [out, in * ...], in float32."""
        rank = self.down.shape[0]
        return (self.alpha / rank) * (self.up.flatten(1).float() @ self.down.flatten(1).float())

    def merged(self, weight: Tensor, scale: float) -> Tensor:
        """The weight with the share `scale` of the trained change. weight: in float32."""
        return weight + (scale * self.change().to(weight.device)).reshape(weight.shape)

    def fits(self, weight: Tensor | None) -> bool:
        """Whether the shapes of the matrices fit the weight."""
        return (
            weight is not None
            and self.up.shape[0] == weight.shape[0]
            and self.down[0].numel() == weight[0].numel()
            and self.up[0].numel() == self.down.shape[0]
        )


def parse_loras(text: str) -> tuple[LoraFile, ...]:
    """The LoRA files in a string FILE[:SCALE], in which several are separated by commas.

    A comma that is in the name of an existing file does not separate.

    Raises:
        MasklessError: a scale that is not a finite number.
    """
    found, parts = [], text.split(",")
    while parts:
        several = range(len(parts), 1, -1)
        count = next((count for count in several if _exists(",".join(parts[:count]).strip())), 1)
        part, parts = ",".join(parts[:count]).strip(), parts[count:]
        if part:
            found.append(_parse_lora(part))
    return tuple(found)


def _exists(part: str) -> bool:
    """Whether FILE[:SCALE] names an existing file or folder."""
    source, _colon, scale = part.rpartition(":")
    return Path(part).exists() or ("," not in scale and Path(source or part).exists())


def _parse_lora(part: str) -> LoraFile:
    source, colon, scale = part.rpartition(":")
    if not colon or Path(part).exists() or not source:
        return LoraFile(source=part)
    try:
        number = float(scale)
    except ValueError as error:
        raise MasklessError(
            f"no such LoRA file: {part}; write FILE or FILE:SCALE, such as style.safetensors:0.8"
        ) from error
    if not math.isfinite(number):
        raise MasklessError(f"the scale of a LoRA must be a finite number, such as 0.8, got {scale} for {source}")
    return LoraFile(source=source, scale=number)


def add_lora(pipeline: DiffusionPipeline, lora: LoraFile, *, allow_pickle: bool = False) -> int:
    """Add a LoRA to the weights of the pipeline.

    allow_pickle: also read weights that are not safetensors.

    Returns:
        The number of changed layers.
    Raises:
        MasklessError: a missing file, a file without LoRA weights or with parts that are not supported, or a LoRA that
            was made for another model.
    """
    if not hasattr(pipeline, "lora_state_dict"):
        raise MasklessError(f"{type(pipeline).__name__} does not support LoRA")
    path = find_file(lora.source)
    content, settings = read_file(path, allow_pickle=allow_pickle), scale_settings(path)
    layers: dict[str, Layer] | dict[str, DecomposedLayer]
    if is_beyond_lora(content):
        layers = decomposed_layers(pipeline, content, lora.source, settings)
    else:
        layers = _layers(pipeline, lora.source, content, settings)
    if not layers:
        raise MasklessError(f"{lora.source} contains no LoRA weights")
    changed = {name: layer_of(pipeline, name) for name in layers}
    wrong = [name for name, layer in changed.items() if not layers[name].fits(_unpacked_shape(layer))]
    if wrong:
        raise MasklessError(
            f"LoRA {lora.source} was made for another model: {len(wrong)} of its {len(layers)} layers do not fit "
            f"{type(pipeline).__name__}, the first is {wrong[0]}; use one for this family, or the model it was made for"
        )
    packed = [name for name, layer in changed.items() if layer is not None and is_packed(layer.weight)]
    beyond = [name for name in packed if not isinstance(layers[name], Layer)]
    if beyond:
        raise MasklessError(
            f"LoRA {lora.source} is a LyCORIS or DoRA file, which cannot be added to the quantized weights of a GGUF "
            "file; use the model without --transformer, a file in F16, or an ordinary LoRA"
        )
    with torch.no_grad():
        for name, layer in changed.items():
            change: Any = layers[name]
            assert layer is not None and isinstance(layer.weight, Tensor)
            if name in packed:
                _add_beside(layer, change, lora.scale)
            else:
                layer.weight.copy_(change.merged(layer.weight.float(), lora.scale))
    return len(layers)


def _unpacked_shape(layer: torch.nn.Module | None) -> Tensor | None:
    """The weight of a layer, or in place of a quantized one a tensor of its shape without values."""
    weight: Any = None if layer is None else layer.weight
    return torch.empty(weight.quant_shape, device="meta") if is_packed(weight) else weight


def _add_beside(layer: torch.nn.Module, change: Layer, scale: float) -> None:
    """Let a layer whose weight is quantized add the change to its output. Its matrices become buffers of the layer, so
    that they move with it."""
    dtype: Any = layer.compute_dtype
    number = sum(name.startswith("lora_down_") for name in layer._buffers)
    down, up = f"lora_down_{number}", f"lora_up_{number}"
    layer.register_buffer(down, change.down.flatten(1).to(dtype))
    layer.register_buffer(up, (scale * change.alpha / change.down.shape[0] * change.up.flatten(1).float()).to(dtype))

    def add(layer: torch.nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        inner = torch.nn.functional.linear(inputs[0], layer.get_buffer(down))
        return output + torch.nn.functional.linear(inner, layer.get_buffer(up))

    layer.register_forward_hook(add)


def _layers(
    pipeline: DiffusionPipeline, source: str, content: dict[str, Tensor], settings: dict[str, ScaleSettings]
) -> dict[str, Layer]:
    """The changes by the name of the layer in the pipeline, such as unet.mid_block.attentions.0.proj_in."""
    pairs = sum(found is not None and found["side"] in ("down", "A") for found in map(LAYER.fullmatch, content))
    weights, alphas = _renamed(pipeline, source, content)
    sides: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        found = LAYER.fullmatch(key)
        if found is None:
            raise MasklessError(f"LoRA {source} contains a weight that is not of a LoRA layer: {key}")
        side = "down" if found["side"] in ("down", "A") else "up"
        sides.setdefault(module_name(pipeline, found["module"]), {})[side] = value
    if len(sides) < pairs:
        raise MasklessError(
            f"LoRA {source} mixes the names of several programs, and only {len(sides)} of its {pairs} layers can be "
            "read; use another file"
        )
    alphas = {module_name(pipeline, without_side(key.removesuffix(".alpha"))): each for key, each in alphas.items()}
    layers = {}
    for name, pair in sides.items():
        if set(pair) != {"down", "up"}:
            raise MasklessError(f"LoRA {source} is incomplete: {name} has only one of its two matrices")
        alpha = alphas[name] if name in alphas else alpha_of(settings, name, pair["down"].shape[0])
        layers[name] = Layer(down=pair["down"], up=pair["up"], alpha=float(alpha))
    return layers


def _renamed(
    pipeline: DiffusionPipeline, source: str, content: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and alphas under the names that diffusers uses, whatever program wrote the file."""
    read: Any = pipeline.lora_state_dict
    options: dict[str, Any] = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
    if "return_alphas" in inspect.signature(read).parameters:
        options["return_alphas"] = True
    try:
        found = read(dict(content), **options)
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MasklessError(
            f"cannot read {source} as a LoRA for {type(pipeline).__name__}: {reason}; use one for this family"
        ) from error
    weights, alphas = found if isinstance(found, tuple) else (found, None)
    return weights, alphas or {}
