"""Adds LoRA files to a pipeline's weights, so that they cost no time per step and need no other library."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskless.data.errors import MasklessError, first_line

PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline that a LoRA may change. A key that begins with none of them belongs to the denoiser."""
LAYER = re.compile(
    r"(?P<module>.+?)(?:\.lora_linear_layer|\.lora|_lora)?(?:\.|_)(?P<side>down|up|A|B)(?:\.default)?\.weight"
)

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


def parse_loras(text: str) -> tuple[LoraFile, ...]:
    """The LoRA files in a string FILE[:SCALE], in which several are separated by commas.

    Raises:
        MasklessError: a scale that is not a number.
    """
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        source, colon, scale = part.rpartition(":")
        if not colon or Path(part).exists() or not source:
            found.append(LoraFile(source=part))
            continue
        try:
            found.append(LoraFile(source=source, scale=float(scale)))
        except ValueError as error:
            raise MasklessError(
                f"no such LoRA file: {part}; write FILE or FILE:SCALE, such as style.safetensors:0.8"
            ) from error
    return tuple(found)


def add_lora(pipeline: DiffusionPipeline, lora: LoraFile, *, allow_pickle: bool = False) -> int:
    """Add a LoRA to the weights of the pipeline.

    allow_pickle: also read weights that are not safetensors.

    Returns:
        The number of changed layers.
    Raises:
        MasklessError: a missing file, a file without LoRA weights, or a LoRA that was made for another model.
    """
    layers = _layers(pipeline, lora, allow_pickle)
    if not layers:
        raise MasklessError(f"{lora.source} contains no LoRA weights")
    weights = {name: _weight(pipeline, name) for name in layers}
    wrong = [name for name, weight in weights.items() if not _fits(weight, layers[name])]
    if wrong:
        raise MasklessError(
            f"LoRA {lora.source} was made for another model: {len(wrong)} of its {len(layers)} layers do not fit "
            f"{type(pipeline).__name__}, the first is {wrong[0]}; use one for this family, or the model it was made for"
        )
    with torch.no_grad():
        for name, layer in layers.items():
            weight = weights[name]
            assert weight is not None
            change = lora.scale * layer.change().to(weight.device)
            weight.copy_(weight.float() + change.reshape(weight.shape))
    return len(layers)


def _layers(pipeline: DiffusionPipeline, lora: LoraFile, allow_pickle: bool) -> dict[str, Layer]:
    """The changes by the name of the layer in the pipeline, such as unet.mid_block.attentions.0.proj_in."""
    weights, alphas, metadata = _read(pipeline, lora, allow_pickle)
    sides: dict[str, dict[str, Tensor]] = {}
    for key, value in weights.items():
        found = LAYER.fullmatch(key)
        if found is None:
            raise MasklessError(f"LoRA {lora.source} contains a weight that is not of a LoRA layer: {key}")
        side = "down" if found["side"] in ("down", "A") else "up"
        sides.setdefault(_module_name(pipeline, found["module"]), {})[side] = value
    alphas = {_module_name(pipeline, _without_side(key.removesuffix(".alpha"))): each for key, each in alphas.items()}
    layers = {}
    for name, pair in sides.items():
        if set(pair) != {"down", "up"}:
            raise MasklessError(f"LoRA {lora.source} is incomplete: {name} has only one of its two matrices")
        alpha = alphas.get(name, metadata.get(f"{name.split('.')[0]}.lora_alpha", pair["down"].shape[0]))
        layers[name] = Layer(down=pair["down"], up=pair["up"], alpha=float(alpha))
    return layers


def _read(
    pipeline: DiffusionPipeline, lora: LoraFile, allow_pickle: bool
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Weights, alphas and metadata, under the names that diffusers uses, whatever program wrote the file."""
    read = getattr(pipeline, "lora_state_dict", None)
    if read is None:
        raise MasklessError(f"{type(pipeline).__name__} does not support LoRA")
    path, source = Path(lora.source), lora.source
    options: dict[str, Any] = {}
    if path.is_file():
        source, options = str(path.parent), {"weight_name": path.name}
    elif not path.is_dir() and (source.count("/") != 1 or source.startswith((".", "/"))):
        raise MasklessError(f"no such LoRA file: {source}")
    if path.is_file() and path.suffix != ".safetensors" and not allow_pickle:
        raise MasklessError(
            f"LoRA {source} is not a .safetensors file; other formats can contain code and need --allow-pickle"
        )
    if hasattr(pipeline, "unet"):
        options["unet_config"] = pipeline.unet.config
    if "return_alphas" in inspect.signature(read).parameters:
        options["return_alphas"] = True
    from safetensors import SafetensorError

    try:
        found = read(source, use_safetensors=None if allow_pickle else True, return_lora_metadata=True, **options)
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        reason = first_line(error)
        raise MasklessError(
            f"cannot read {lora.source} as a LoRA for {type(pipeline).__name__}: {reason}; use one for this family"
        ) from error
    weights, alphas = found[0], found[1] if len(found) == 3 and found[1] else {}
    return weights, alphas, found[-1] or {}


def _without_side(key: str) -> str:
    """The name of the module in a key of a LoRA file."""
    found = LAYER.fullmatch(key)
    return key if found is None else found["module"]


def _module_name(pipeline: DiffusionPipeline, name: str) -> str:
    """The layer's name in the pipeline; the file may use a name of an older version of diffusers."""
    name = name.replace(".processor", "")
    if name.split(".")[0] not in PARTS:
        name = f"{_denoiser(pipeline)}.{name}"
    if name.startswith("text_encoder"):
        return re.sub(r"\.self_attn\.to_(q|k|v|out)$", r".self_attn.\1_proj", name)
    return re.sub(r"\.to_out$", ".to_out.0", name)


def _denoiser(pipeline: DiffusionPipeline) -> str:
    """The name of the pipeline's denoiser."""
    return "unet" if hasattr(pipeline, "unet") else "transformer"


def _weight(pipeline: DiffusionPipeline, name: str) -> Tensor | None:
    """The weight that a LoRA layer changes; None if the pipeline has no layer of this name."""
    part, _, module = name.partition(".")
    root = getattr(pipeline, part, None)
    # transformers 5.6 removed a level of modules from CLIP's text model; LoRA files still use the old names.
    for path in (module, module.removeprefix("text_model."), f"text_model.{module}"):
        try:
            return root.get_submodule(path).weight if root is not None else None
        except AttributeError:
            continue
    return None


def _fits(weight: Tensor | None, layer: Layer) -> bool:
    """Whether the shapes of a layer's matrices fit the weight."""
    return (
        weight is not None
        and layer.up.shape[0] == weight.shape[0]
        and layer.down[0].numel() == weight[0].numel()
        and layer.up[0].numel() == layer.down.shape[0]
    )
