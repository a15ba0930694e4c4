"""Finds and reads LoRA files: the weights under the names of the file, and the names of the layers in a pipeline."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from maskless.data.errors import MasklessError, first_line

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline that a LoRA may change. A key that begins with none of them belongs to the denoiser."""
LAYER = re.compile(
    r"(?P<module>.+?)(?:\.lora_linear_layer|\.lora|_lora)?(?:\.|_)(?P<side>down|up|A|B)(?:\.default)?\.weight"
)
"""A key of one of the two matrices of a layer, in the naming of any of the programs that write LoRA files."""
PEFT_PREFIX, PEFT_SETTINGS = "base_model.model.", "adapter_config.json"
"""How keys of PEFT's files begin, and the file beside them with their scale."""
DIFFUSERS_SETTINGS = "lora_adapter_metadata"
"""The entry in the header of diffusers' files with their scale."""
USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""The file that is read from a folder with several."""
KOHYA = ("lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")
"""How keys of kohya's programs begin; then the layer's name follows, with underscores for dots."""
UNDERSCORED = ("lycoris_", "lora_transformer_")
"""Further prefixes of names of the denoiser's layers with underscores for dots."""


@dataclass(frozen=True, kw_only=True)
class ScaleSettings:
    """The scale of a file's layers. alpha: lora_alpha of layers without their own. patterns: lora_alpha by the end of
    the layer's name. by_root: whether the change is divided by the root of the rank, and not by the rank."""

    alpha: float
    patterns: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False

    def alpha_of(self, module: str, rank: int) -> float:
        """The alpha of a layer, as it is divided by the rank."""
        own = [alpha for end, alpha in self.patterns.items() if re.fullmatch(rf"(.*\.)?({end})", module)]
        alpha = own[0] if own else self.alpha
        return alpha * rank**0.5 if self.by_root else alpha


def find_file(source: str) -> Path:
    """The file of a LoRA: a file, the one in a folder, or owner/name or owner/name/FILE on the hub.

    Raises:
        MasklessError: there is none, or there are several.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        name = _only([file.name for file in path.iterdir() if file.is_file()], source, source)
        return path / name
    if source.startswith((".", "/", "~")) or "/" not in source or source.endswith("/"):
        raise MasklessError(f"no such LoRA file: {source}")
    owner, name, *rest = source.split("/")
    from huggingface_hub import hf_hub_download, list_repo_files

    try:
        file = "/".join(rest) or _only(list_repo_files(f"{owner}/{name}"), source, source)
        return Path(hf_hub_download(f"{owner}/{name}", file))
    except MasklessError:
        raise
    except (OSError, ValueError) as error:  # all errors of the hub's client are of these kinds
        raise MasklessError(
            f"no such LoRA file: {source} is neither a file nor a folder, and the hub answers: {first_line(error)}"
        ) from error


def _only(names: Iterable[str], source: str, folder: str) -> str:
    """The LoRA file among the names of a folder or repository."""
    files = sorted(name for name in names if name.endswith(".safetensors"))
    files = [name for name in USUAL_NAMES if name in files][:1] or files
    if len(files) != 1:
        found = f"several: {', '.join(files)}; name one as {folder}/FILE" if files else "none"
        raise MasklessError(f"{source} must hold one LoRA file (.safetensors), got {found}")
    return files[0]


def read_file(path: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """The weights of a LoRA file by their names in it, without PEFT's prefix.

    Raises:
        MasklessError: it cannot be read, or it is a pickle and those are not allowed.
    """
    if path.suffix != ".safetensors" and not allow_pickle:
        raise MasklessError(
            f"LoRA {path} is not a .safetensors file; other formats can contain code and need --allow-pickle"
        )
    import pickle

    from safetensors.torch import load_file

    try:
        content = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise MasklessError(f"cannot read the LoRA {path}: {first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise MasklessError(f"LoRA {path} must hold tensors by name")
    return {str(name).removeprefix(PEFT_PREFIX): value for name, value in content.items()}


def scale_settings(path: Path) -> dict[str, ScaleSettings]:
    """The scale of a file that PEFT or diffusers wrote, by the part of the pipeline: from its header, or from the
    settings beside it, which hold for every part and have an empty name. Empty if there are none.

    Raises:
        MasklessError: they cannot be read.
    """
    beside, header = path.parent / PEFT_SETTINGS, None
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            header = (opened.metadata() or {}).get(DIFFUSERS_SETTINGS)
    try:
        if header is not None:
            content = json.loads(header)
            parts = {name.partition(".")[0] for name in content}
            named = {part: _settings(content, f"{part}.") for part in parts}
        else:
            named = {"": _settings(json.loads(beside.read_text("utf-8")), "") if beside.is_file() else None}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MasklessError(f"cannot read the scale of the LoRA {path}: {first_line(error)}") from error
    return {part: settings for part, settings in named.items() if settings is not None}


def _settings(content: Mapping[str, Any], prefix: str) -> ScaleSettings | None:
    """The settings under names with this prefix; None if there is no alpha."""
    alpha = content.get(f"{prefix}lora_alpha", content.get(f"{prefix}alpha"))
    if alpha is None:
        return None
    patterns = {str(end): float(each) for end, each in (content.get(f"{prefix}alpha_pattern") or {}).items()}
    return ScaleSettings(alpha=float(alpha), patterns=patterns, by_root=bool(content.get(f"{prefix}use_rslora")))


def alpha_of(settings: Mapping[str, ScaleSettings], name: str, rank: int) -> float:
    """The alpha of a layer that has none of its own, by its name in the pipeline; without settings its rank, which
    means no scaling."""
    part, _, module = name.partition(".")
    found = settings.get(part, settings.get(""))
    return float(rank) if found is None else found.alpha_of(module, rank)


def module_names(pipeline: DiffusionPipeline, prefixes: Iterable[str]) -> dict[str, str]:
    """The names of layers in the pipeline, such as unet.mid_block.attentions.0.proj_in, by their names in a file.

    Raises:
        MasklessError: diffusers does not know a name of kohya's programs.
    """
    prefixes = list(prefixes)
    kohya = [prefix for prefix in prefixes if prefix.startswith(KOHYA)]
    names = _kohya_names(pipeline, kohya) if kohya else {}
    part = denoiser_name(pipeline)
    underscored = {name.replace(".", "_"): name for name, _module in getattr(pipeline, part).named_modules()}
    for prefix in prefixes:
        start = next((start for start in UNDERSCORED if prefix.startswith(start)), None)
        if start is not None:
            inner = prefix.removeprefix(start)
            names[prefix] = f"{part}.{underscored.get(inner, inner)}"
    return {prefix: names[prefix] if prefix in names else module_name(pipeline, prefix) for prefix in prefixes}


def _kohya_names(pipeline: DiffusionPipeline, prefixes: list[str]) -> dict[str, str]:
    """The names that diffusers gives to layers of kohya's: it renames a file that holds nothing else."""
    markers = {prefix: torch.zeros(1, 1) for prefix in prefixes}
    probe = {f"{prefix}.lora_down.weight": marker for prefix, marker in markers.items()}
    probe |= {f"{prefix}.lora_up.weight": torch.zeros(1, 1) for prefix in prefixes}
    options = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
    try:
        converted = pipeline.lora_state_dict(probe, **options)
    except (ValueError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise MasklessError(
            f"the names of the LoRA's layers do not fit {type(pipeline).__name__}: {first_line(error)}"
        ) from error
    renamed = {id(value): key for key, value in (converted[0] if isinstance(converted, tuple) else converted).items()}
    names = {}
    for prefix, marker in markers.items():
        found = LAYER.fullmatch(renamed.get(id(marker), ""))
        names[prefix] = prefix if found is None else module_name(pipeline, found["module"])
    return names


def without_side(key: str) -> str:
    """The name of the module in a key of a LoRA file."""
    found = LAYER.fullmatch(key)
    return key if found is None else found["module"]


def module_name(pipeline: DiffusionPipeline, name: str) -> str:
    """The layer's name in the pipeline; the file may use a name of an older version of diffusers."""
    name = name.replace(".processor", "")
    if name.split(".")[0] not in PARTS:
        name = f"{denoiser_name(pipeline)}.{name}"
    if name.startswith("text_encoder"):
        return re.sub(r"\.self_attn\.to_(q|k|v|out)$", r".self_attn.\1_proj", name)
    return re.sub(r"\.to_out$", ".to_out.0", name)


def denoiser_name(pipeline: DiffusionPipeline) -> str:
    """The name of the pipeline's denoiser."""
    return "unet" if hasattr(pipeline, "unet") else "transformer"


def layer_of(pipeline: DiffusionPipeline, name: str) -> torch.nn.Module | None:
    """The layer that a LoRA changes; None if the pipeline has none of this name."""
    part, _, module = name.partition(".")
    root: Any = getattr(pipeline, part, None)
    # transformers 5.6 removed a level of modules from CLIP's text model; LoRA files still use the old names.
    for path in (module, module.removeprefix("text_model."), f"text_model.{module}"):
        try:
            layer = root.get_submodule(path) if root is not None else None
        except AttributeError:
            continue
        return layer if isinstance(getattr(layer, "weight", None), Tensor) else None
    return None
