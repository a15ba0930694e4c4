"""A name or a folder becomes loaded models: the one place where weights are read and a device is chosen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from maskless.data.errors import MasklessError
from maskless.models.clip import Clip
from maskless.models.dino import Dino
from maskless.models.inpainting import InpaintingModel, load_pipeline, make_inpainter

BUNDLED = "storybook"
PARTS = ("inpainting", "dino", "clip")
RECOMMENDATIONS = "maskless.json"
"""Beside model_index.json: {"steps": ..., "guidance_scale": ..., "native_px": ...}, what a model works best with. The
user's own choice always comes first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EditModels:
    """The three frozen networks of an edit. names: where each came from, by part."""

    dino: Dino
    clip: Clip
    inpainter: InpaintingModel
    names: dict[str, str]
    device: torch.device
    dtype: torch.dtype


def load_models(
    models: str = BUNDLED,
    *,
    dino: str | None = None,
    clip: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    scheduler: str | None = None,
    lora: str | None = None,
) -> EditModels:
    """The models of that name.

    Args:
        models: "storybook" (bundled), a folder with inpainting/, dino/ and clip/, or the inpainting model alone: a
            folder with model_index.json or a hub id. The last two need dino and clip.
        dino, clip: a folder or a hub id in place of what `models` would give.
        device: auto, cpu, cuda or mps. dtype: of the UNet: auto, float32, bfloat16 or float16.
        scheduler: a name of SCHEDULERS in place of the inpainting model's own. lora: FILE[:SCALE], separated by commas.
    Raises:
        MasklessError: unknown models, missing or damaged files, a device that is not there.
    """
    chosen_device = resolve_device(device)
    chosen_dtype = resolve_dtype(dtype, chosen_device)
    sources = model_sources(models, dino=dino, clip=clip)
    recommended = _recommendations(sources["inpainting"])
    with _quiet_libraries():
        return EditModels(
            dino=_loaded(_load_dino, sources["dino"], "DINO", device=chosen_device),
            clip=_loaded(_load_clip, sources["clip"], "CLIP", device=chosen_device),
            inpainter=_loaded(
                _load_inpainter,
                sources["inpainting"],
                "inpainting",
                device=chosen_device,
                dtype=chosen_dtype,
                scheduler=scheduler,
                lora=lora or "",
                native_px=recommended.get("native_px"),
                recommended_steps=recommended.get("steps"),
                recommended_guidance=recommended.get("guidance_scale"),
            ),
            names=sources,
            device=chosen_device,
            dtype=chosen_dtype,
        )


def model_sources(models: str, *, dino: str | None = None, clip: str | None = None) -> dict[str, str]:
    """Folder or hub id of each part; folders are checked to be there and whole."""
    root = Path(str(resources.files("maskless"))) / "assets" / BUNDLED if models == BUNDLED else Path(models)
    if all((root / part).is_dir() for part in PARTS):
        found: dict[str, str | None] = {part: str(root / part) for part in PARTS}
    elif (root / "model_index.json").is_file() or (models.count("/") == 1 and not root.exists()):
        found = {"inpainting": str(root) if root.exists() else models, "dino": None, "clip": None}
    elif root.exists():
        missing = [part for part in PARTS if not (root / part).is_dir()]
        raise MasklessError(f"models folder {root} must hold {', '.join(PARTS)}; missing: {', '.join(missing)}")
    else:
        raise MasklessError(f"models must be {BUNDLED!r}, a folder or a hub id such as owner/name, got {models!r}")
    found["dino"], found["clip"] = dino or found["dino"], clip or found["clip"]
    for part, source in found.items():
        if source is None:
            raise MasklessError(f"{models} is an inpainting model alone; say which {part} goes with it (--{part})")
        if Path(source).is_dir():
            check_weights(Path(source))
        elif source.count("/") != 1 or source.startswith((".", "/")):
            raise MasklessError(f"no such {part} model: {source!r} is neither a folder nor a hub id such as owner/name")
    return {part: str(source) for part, source in found.items()}


def check_weights(folder: Path) -> None:
    """Raise a MasklessError that names the file where weights are missing, cut short or not safetensors."""
    from safetensors import SafetensorError, safe_open

    for index in sorted(folder.rglob("*.safetensors.index.json")):
        shards = set(_read_json(index).get("weight_map", {}).values())
        for shard in sorted(shards):
            if not (index.parent / shard).is_file():
                raise MasklessError(f"model file missing: {index.parent / shard}, named in {index.name}")
    weights = sorted(folder.rglob("*.safetensors"))
    if not weights and not list(folder.rglob("*.bin")):
        raise MasklessError(f"no model weights (*.safetensors) in {folder}")
    for path in weights:
        try:
            with safe_open(path, framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise MasklessError(f"model file damaged or cut short: {path} ({error})") from error
    for path in sorted(folder.rglob("config.json")):
        _read_json(path)


def resolve_device(name: str) -> torch.device:
    """The device of that name; auto takes CUDA, then MPS, then the CPU."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, there in available.items() if there))
    if name not in available:
        raise MasklessError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    if not available[name]:
        raise MasklessError(f"device {name} is not available here; use --device auto or cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of that name; auto takes the fastest that the device computes in."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in known:
        raise MasklessError(f"dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return known[name]


def _load_dino(source: str, *, device: torch.device) -> Dino:
    from transformers import AutoConfig, ViTModel

    kind = AutoConfig.from_pretrained(source).model_type
    if kind != "vit":
        raise MasklessError(f"the DINO model must be a ViT (model_type vit), got {kind} in {source}")
    model, info = ViTModel.from_pretrained(
        source, add_pooling_layer=False, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    _require_all_keys(source, info)
    mean, std = _normalisation(source)
    return Dino(model.to(device), mean=mean, std=std, shorter_px=int(model.config.image_size))


def _load_clip(source: str, *, device: torch.device) -> Clip:
    from transformers import CLIPModel, CLIPTokenizer

    model, info = CLIPModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    _require_all_keys(source, info)
    mean, std = _normalisation(source)
    return Clip(model.to(device), CLIPTokenizer.from_pretrained(source), mean=mean, std=std)


def _load_inpainter(source: str, *, device: torch.device, dtype: torch.dtype, **options: Any) -> InpaintingModel:
    return make_inpainter(load_pipeline(source, dtype=dtype).to(device), dtype=dtype, **options)


def _loaded(load: Any, source: str, part: str, **options: Any) -> Any:
    """The part, or one line that says which model could not be read and why."""
    try:
        return load(source, **options)
    except MasklessError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MasklessError(f"cannot read the {part} model {source}: {reason}") from error


def _require_all_keys(source: str, info: dict[str, Any]) -> None:
    missing = sorted(info["missing_keys"])
    if missing:
        raise MasklessError(f"model {source} lacks {len(missing)} weights, the first is {missing[0]}")


def _normalisation(source: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of RGB in [0, 1], from preprocessor_config.json."""
    from transformers import AutoImageProcessor

    if Path(source).is_dir():
        path = Path(source) / "preprocessor_config.json"
        if not path.is_file():
            raise MasklessError(f"model file missing: {path}")
        settings = _read_json(path)
    else:
        settings = AutoImageProcessor.from_pretrained(source).to_dict()
    try:
        return tuple(settings["image_mean"]), tuple(settings["image_std"])
    except KeyError as error:
        raise MasklessError(f"preprocessor_config.json of {source} must give {error}") from error


def _recommendations(source: str) -> dict[str, Any]:
    path = Path(source) / RECOMMENDATIONS
    return _read_json(path) if path.is_file() else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MasklessError(f"model file damaged or unreadable: {path} ({error})") from error


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No progress bars or advice from the libraries while loading; their settings are put back afterwards."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
