"""Loads DINO and CLIP from their folders, and DINO from the files that its authors released."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.clip import Clip
from maskless.models.dino import Dino

if TYPE_CHECKING:
    from transformers import ViTModel

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_KINDS = {"vit": "ViTModel", "dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
HEAD_WIDTH = 64
"""Width of an attention head in every released DINO ViT. A file of weights does not contain the number of heads, so it
is computed as the width of the model divided by this."""
RELEASE_WRAPPERS = ("teacher", "state_dict", "model")
"""Keys that a checkpoint may have its weights under."""
RELEASE_PREFIX = re.compile(r"^(module\.)?(backbone\.)?")


def load_dino(source: Path, *, allow_pickle: bool = False) -> Dino:
    """DINO, DINOv2 or DINOv2 with registers, in float32 on the CPU.

    Args:
        source: a folder in transformers' format, or a file of the released weights, under the names of
            facebookresearch/dino.
        allow_pickle: also read weights that are not safetensors.
    Raises:
        MasklessError: another kind of model, missing weights or settings, or a pickle without `allow_pickle`.
    """
    if source.is_file():
        model = convert_released_dino(read_released_dino(source, allow_pickle=allow_pickle), str(source))
        return Dino(model, mean=IMAGENET_MEAN, std=IMAGENET_STD, shorter_px=int(model.config.image_size))
    import transformers

    kind = transformers.AutoConfig.from_pretrained(source, local_files_only=True).model_type
    if kind not in DINO_KINDS:
        raise MasklessError(
            f"the DINO model must be a ViT, DINOv2 or DINOv2 with registers (model_type {', '.join(DINO_KINDS)}), got "
            f"{kind} in {source}"
        )
    without_pooling: dict[str, Any] = {"add_pooling_layer": False} if kind == "vit" else {}
    model, info = getattr(transformers, DINO_KINDS[kind]).from_pretrained(
        source, attn_implementation="eager", **without_pooling, **_loading_options(allow_pickle)
    )
    _require_all_keys(source, info)
    mean, std = _normalisation(source)
    return Dino(model, mean=mean, std=std, shorter_px=int(model.config.image_size))


def load_clip(source: Path, *, allow_pickle: bool = False) -> Clip:
    """CLIP, SigLIP or SigLIP 2 (with a fixed picture size) from a folder in transformers' format, in float32 on the
    CPU.

    allow_pickle: also read weights that are not safetensors.

    Raises:
        MasklessError: another kind of model, or missing weights or settings.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPModel, CLIPTokenizer, SiglipModel

    kind = AutoConfig.from_pretrained(source, local_files_only=True).model_type
    if kind not in ("clip", "siglip"):
        raise MasklessError(f"the CLIP model must be a CLIP or a SigLIP of fixed picture size, got {kind} in {source}")
    model_class, tokenizer_class = (CLIPModel, CLIPTokenizer) if kind == "clip" else (SiglipModel, AutoTokenizer)
    model, info = model_class.from_pretrained(source, **_loading_options(allow_pickle))
    _require_all_keys(source, info)
    mean, std = _normalisation(source)
    return Clip(model, tokenizer_class.from_pretrained(source, local_files_only=True), mean=mean, std=std)


def read_released_dino(path: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """The weights of the backbone, under the names of the release.

    path: a .safetensors file, or a .pth that holds the weights alone or a full training checkpoint,
    {"teacher": {"backbone.…": …}}.

    Raises:
        MasklessError: a pickle without `allow_pickle`, or a file that is not a dict of tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        found: Any = load_file(path)
    elif not allow_pickle:
        raise MasklessError(f"{path} is a pickle, which can contain code; read it with --allow-pickle if you trust it")
    else:
        found = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in RELEASE_WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(wrapper), dict):
            found = found[wrapper]
    if not isinstance(found, dict):
        raise MasklessError(f"DINO's weights must be a dict of tensors, got {type(found).__name__} in {path}")
    named = {RELEASE_PREFIX.sub("", str(name)): value for name, value in found.items() if isinstance(value, Tensor)}
    return {name: value for name, value in named.items() if not name.startswith(("head.", "fc_norm."))}


def convert_released_dino(released: dict[str, Tensor], source: str) -> ViTModel:
    """A ViTModel with the weights of a released DINO. Its sizes are read from the shapes of the weights.

    Args:
        released: cls_token, pos_embed, patch_embed.proj.*, norm.* and, under blocks.N, norm1.*, attn.qkv.*,
            attn.proj.*, norm2.*, mlp.fc1.*, mlp.fc2.*
        source: the name of the file, for error messages.
    Raises:
        MasklessError: missing weights, or weights that a ViT does not have.
    """
    from transformers import ViTConfig, ViTModel

    try:
        width, patch_px = released["cls_token"].shape[-1], released["patch_embed.proj.weight"].shape[-1]
        side = math.isqrt(released["pos_embed"].shape[1] - 1)
        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=1 + max(int(name.split(".")[1]) for name in released if name.startswith("blocks.")),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            intermediate_size=released["blocks.0.mlp.fc1.weight"].shape[0],
            image_size=side * patch_px,
            patch_size=patch_px,
            layer_norm_eps=1e-6,
        )
    except (KeyError, ValueError) as error:
        raise MasklessError(f"{source} is not a released DINO ViT: it lacks {error}") from error
    model, info = ViTModel.from_pretrained(
        None,
        config=config,
        state_dict=_renamed(released),
        add_pooling_layer=False,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
    )
    _require_all_keys(Path(source), info)
    if info["unexpected_keys"]:
        raise MasklessError(f"{source} is not a released DINO ViT: it also has {sorted(info['unexpected_keys'])[0]}")
    return model


def _renamed(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released weights under the names of transformers' ViT on disk; qkv is split into query, key and value."""
    top = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    in_block = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    renamed = {}
    for name, value in released.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
        if block is None:
            stem, _, leaf = name.rpartition(".")
            renamed[top[name] if name in top else f"{top.get(stem, stem)}.{leaf}"] = value
        elif block[2] == "attn.qkv":
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[f"encoder.layer.{block[1]}.attention.attention.{part}.{block[3]}"] = rows.clone()
        else:
            renamed[f"encoder.layer.{block[1]}.{in_block.get(block[2], block[2])}.{block[3]}"] = value
    return renamed


def _loading_options(allow_pickle: bool) -> dict[str, Any]:
    safe = None if allow_pickle else True
    return {"dtype": torch.float32, "output_loading_info": True, "local_files_only": True, "use_safetensors": safe}


def _require_all_keys(source: Path, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise MasklessError(f"model {source} lacks {len(missing)} weights, the first is {missing[0]}")


def _normalisation(source: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB in [0, 1], from the model's preprocessor_config.json."""
    path = source / "preprocessor_config.json"
    if not path.is_file():
        raise MasklessError(f"model file missing: {path}")
    settings = read_json(path)
    try:
        return tuple(settings["image_mean"]), tuple(settings["image_std"])
    except KeyError as error:
        raise MasklessError(f"preprocessor_config.json of {source} must contain {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file with a model's settings.

    Raises:
        MasklessError: the file is missing or is not valid JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MasklessError(f"model file damaged or unreadable: {path} ({error})") from error
