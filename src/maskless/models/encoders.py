"""The networks that look at a picture, and loading DINO and CLIP from their folders, or DINO from the files that its
authors released."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import MasklessError, shown
from maskless.data.model_options import ModelOptions
from maskless.data.types import Detections
from maskless.models.clip import Clip
from maskless.models.dino import Dino
from maskless.models.parts import SETTINGS_BYTES, open_network, opening, read_json, require_all_weights, shapes_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ViTModel

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_KINDS = {"vit": "ViTModel", "dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel"}
HEAD_WIDTH = 64
"""Width of an attention head in every released DINO ViT. A file of weights does not contain the number of heads, so it
is computed as the width of the model divided by this."""
RELEASE_WRAPPERS = ("teacher", "state_dict", "model")
"""Keys that a checkpoint may have its weights under."""
RELEASE_PREFIX = re.compile(r"^(module\.)?(backbone\.)?")


@runtime_checkable
class Grounder(Protocol):
    """A model that finds what a text names. model: its network."""

    model: PreTrainedModel

    def find(self, image: Float[Tensor, "3 H W"], text: str) -> Detections:
        """The boxes of what the text names, best first; none if the model finds nothing.

        image: RGB in [0, 1]. The boxes are in its pixels.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoders:
    """The frozen networks that find a region. They draw nothing.

    grounder: a detector that finds what words name; None where the user chose none. names: the source of each part,
    with the commit for a model of the hub. weights: what identifies the weights of each part (`fingerprint_of`),
    wherever they are. options: the options that the models were loaded with; device is the chosen one, not "auto".
    """

    dino: Dino
    clip: Clip
    grounder: Grounder | None = None
    names: dict[str, str]
    weights: Mapping[str, str] = field(default_factory=dict)
    options: ModelOptions
    device: torch.device

    @property
    def memory(self) -> str:
        """The memory level: full, balanced, low or minimal."""
        return self.options.memory


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
        released = convert_released_dino(read_released_dino(source, allow_pickle=allow_pickle), str(source))
        return Dino(released, mean=IMAGENET_MEAN, std=IMAGENET_STD, shorter_px=int(released.config.image_size))
    import transformers

    kind = _model_type(source)
    if kind not in DINO_KINDS:
        raise MasklessError(
            f"the DINO model must be a ViT, DINOv2 or DINOv2 with registers (model_type {', '.join(DINO_KINDS)}), got "
            f"{kind} in {source}"
        )
    without_pooling: dict[str, Any] = {"add_pooling_layer": False} if kind == "vit" else {}
    model: Any = open_network(
        getattr(transformers, DINO_KINDS[kind]),
        source,
        allow_pickle=allow_pickle,
        build=without_pooling,
        attn_implementation="eager",
        dtype=torch.float32,
    )
    mean, std = normalisation(source)
    with opening(source / "config.json"):
        return Dino(model, mean=mean, std=std, shorter_px=int(model.config.image_size))


def load_clip(source: Path, *, allow_pickle: bool = False) -> Clip:
    """CLIP, SigLIP or SigLIP 2 (with a fixed picture size) from a folder in transformers' format, in float32 on the
    CPU.

    allow_pickle: also read weights that are not safetensors.

    Raises:
        MasklessError: another kind of model, or missing weights or settings.
    """
    from transformers import AutoTokenizer, CLIPModel, CLIPTokenizer, SiglipModel

    kind = _model_type(source)
    if kind not in ("clip", "siglip"):
        raise MasklessError(f"the CLIP model must be a CLIP or a SigLIP of fixed picture size, got {kind} in {source}")
    model_class, tokenizer_class = (CLIPModel, CLIPTokenizer) if kind == "clip" else (SiglipModel, AutoTokenizer)
    model: Any = open_network(model_class, source, allow_pickle=allow_pickle, dtype=torch.float32)
    mean, std = normalisation(source)
    with opening(source):
        tokenizer = tokenizer_class.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        return Clip(model, tokenizer, mean=mean, std=std)


def read_released_dino(path: Path, *, allow_pickle: bool) -> dict[str, Tensor]:
    """The weights of the backbone, under the names of the release.

    path: a .safetensors file, or a .pth that holds the weights alone or a full training checkpoint,
    {"teacher": {"backbone.…": …}}.

    Raises:
        MasklessError: a pickle without `allow_pickle`, or a file that is not a dict of tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        shapes_in(path)
        found: Any = load_file(path)
    elif not allow_pickle:
        raise MasklessError(f"{path} is a pickle, which can contain code; read it with --allow-pickle if you trust it")
    else:
        with opening(path):
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
    require_all_weights(source, info)
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


def _model_type(source: Path) -> str:
    """The kind of model that a folder's config.json names."""
    return shown(read_json(source / "config.json", limit=SETTINGS_BYTES).get("model_type"))


def normalisation(source: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB in [0, 1], from the model's preprocessor_config.json."""
    path = source / "preprocessor_config.json"
    if not path.is_file():
        raise MasklessError(f"model file missing: {path}")
    settings = read_json(path)
    found = []
    for name in ("image_mean", "image_std"):
        values: Any = settings.get(name)
        plain = isinstance(values, list) and len(values) == 3 and all(type(v) in (int, float) for v in values)
        if not plain or not all(math.isfinite(v) for v in values) or (name == "image_std" and min(values) <= 0):
            raise MasklessError(f"{name} in {path} must be three numbers, got {shown(values)}")
        found.append(tuple(map(float, values)))
    return found[0], found[1]
