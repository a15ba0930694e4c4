"""A name or a folder becomes loaded models: the one place where weights are read and a device is chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from maskless.data.errors import MasklessError
from maskless.models import hub
from maskless.models.clip import Clip
from maskless.models.dino import Dino
from maskless.models.encoders import load_clip, load_dino, read_json
from maskless.models.inpainters.loading import InpaintingModel, load_pipeline, make_inpainter
from maskless.models.inpainters.single_file import load_single_file, settings_of
from maskless.models.memory import is_out_of_memory, less_memory, place
from maskless.models.presets import BY_NAME, PINNED, with_mirrors

BUNDLED = "storybook"
PARTS = ("inpainting", "dino", "clip")
REDRAW = "redraw"
"""The part that a set of models may have or not."""
RECOMMENDATIONS = "maskless.json"
"""Beside model_index.json: {"steps": ..., "guidance_scale": ...}, what a model works best with. The user's own choice
always comes first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EditModels:
    """The frozen networks of an edit.

    redrawer: a model that sees a picture and draws it as a text describes it, for the tasks that draw over what is
    there; None where the inpainter does that. names: where each came from, by part; of the hub's with the commit.
    memory: full, balanced, low or minimal. placement: what that level does here, in a few words; empty for full.
    """

    dino: Dino
    clip: Clip
    inpainter: InpaintingModel
    redrawer: InpaintingModel | None = None
    names: dict[str, str]
    device: torch.device
    dtype: torch.dtype
    memory: str = "full"
    placement: str = ""


@dataclass(frozen=True, kw_only=True)
class Located:
    """A part on this disk: a folder or a file, and its name, which for one of the hub says the commit."""

    path: Path
    name: str


def load_models(
    models: str = BUNDLED,
    *,
    dino: str | None = None,
    clip: str | None = None,
    redraw: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    scheduler: str | None = None,
    lora: str | None = None,
    memory: str = "full",
    offline: bool = False,
    allow_pickle: bool = False,
) -> EditModels:
    """The models of that name.

    Args:
        models: "storybook" (bundled) or another preset, a folder with inpainting/, dino/, clip/ and, if it has one,
            redraw/, or the inpainting model alone: a folder with model_index.json, a .safetensors file or a hub id. The
            last three need dino and clip.
        dino, clip: a folder or a hub id in place of what `models` would give; for dino also a file of the released
            weights.
        redraw: a folder or a hub id of an InstructPix2Pix, or another model that sees the picture it edits.
        device: auto, cpu, cuda or mps. dtype: of the UNet: auto, float32, bfloat16 or float16.
        scheduler: a name of SCHEDULERS in place of the inpainting model's own. lora: FILE[:SCALE], separated by commas.
        memory: full, balanced, low or minimal; see maskless.models.memory.
        offline: never ask the hub. allow_pickle: also read weights that are not safetensors.
    Raises:
        MasklessError: unknown models, missing or damaged files, a device that is not there.
    """
    chosen_device = resolve_device(device)
    chosen_dtype = resolve_dtype(dtype, chosen_device)
    parts = fetch_models(models, dino=dino, clip=clip, redraw=redraw, offline=offline, allow_pickle=allow_pickle)
    how: dict[str, Any] = {"memory": memory, "allow_pickle": allow_pickle}
    drawn_by: dict[str, Any] = {"dtype": chosen_dtype, "offline": offline, **how}
    with _quiet_libraries():
        loaded_dino = _loaded(load_dino, parts["dino"], "DINO", **how)
        loaded_clip = _loaded(load_clip, parts["clip"], "CLIP", **how)
        inpainter, networks = _loaded(
            _load_inpainter, parts["inpainting"], "inpainting", scheduler=scheduler, lora=lora or "", **drawn_by
        )
        redrawer = None
        if REDRAW in parts:
            redrawer, further = _loaded(_load_redrawer, parts[REDRAW], REDRAW, **drawn_by)
            networks += further
        try:
            others = [loaded_dino.model, loaded_clip.model]
            placement = place(networks, others, device=chosen_device, memory=memory, dtype=chosen_dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise MasklessError(f"the models do not fit on {chosen_device}; {less_memory(memory)}") from error
    return EditModels(
        dino=loaded_dino,
        clip=loaded_clip,
        inpainter=inpainter,
        redrawer=redrawer,
        names={part: located.name for part, located in parts.items()},
        device=chosen_device,
        dtype=chosen_dtype,
        memory=memory,
        placement=placement,
    )


def fetch_models(
    models: str = BUNDLED,
    *,
    dino: str | None = None,
    clip: str | None = None,
    redraw: str | None = None,
    offline: bool = False,
    allow_pickle: bool = False,
    progress: bool = False,
) -> dict[str, Located]:
    """Each part on this disk, downloaded where it is not there yet; the arguments are those of `load_models`.

    progress: show how far the download is, on stderr.
    """
    found = {}
    for part, source in model_sources(models, dino=dino, clip=clip, redraw=redraw).items():
        if not hub.is_hub_id(source) or Path(source).exists():
            found[part] = Located(path=Path(source), name=source)
            continue
        snapshot = hub.fetch(_asked(source), offline=offline, allow_pickle=allow_pickle, progress=progress)
        check_weights(snapshot.folder)
        found[part] = Located(path=snapshot.folder, name=snapshot.name)
    return found


def on_disk(models: str) -> bool:
    """Whether all parts of a preset are there, so that it loads offline."""
    sources = model_sources(models).values()
    return all(Path(source).exists() or hub.find(_asked(source)) is not None for source in sources)


def _asked(source: str) -> list[str]:
    """A hub id and its mirrors, each at the commit that is pinned for it; owner/name@revision is taken as it stands."""
    if "@" in source:
        return [source]
    return [f"{repo_id}@{PINNED[repo_id]}" if repo_id in PINNED else repo_id for repo_id in with_mirrors(source)]


def model_sources(
    models: str, *, dino: str | None = None, clip: str | None = None, redraw: str | None = None
) -> dict[str, str]:
    """Folder or hub id of each part; folders are checked to be there and whole."""
    root = Path(str(resources.files("maskless"))) / "assets" / BUNDLED if models == BUNDLED else Path(models)
    preset = None if models == BUNDLED or root.exists() else BY_NAME.get(models)
    if preset is not None:
        found: dict[str, str | None] = {"inpainting": preset.inpainting[0], "dino": preset.dino, "clip": preset.clip}
    elif all((root / part).is_dir() for part in PARTS):
        found = {part: str(root / part) for part in PARTS}
        if (root / REDRAW).is_dir():
            found[REDRAW] = str(root / REDRAW)
    elif (root / "model_index.json").is_file() or root.is_file() or (hub.is_hub_id(models) and not root.exists()):
        found = {"inpainting": str(root) if root.exists() else models, "dino": None, "clip": None}
    elif root.exists():
        missing = [part for part in PARTS if not (root / part).is_dir()]
        raise MasklessError(f"models folder {root} must hold {', '.join(PARTS)}; missing: {', '.join(missing)}")
    else:
        raise MasklessError(
            f"models must be one of {', '.join(BY_NAME)}, a folder, a .safetensors file or a hub id (owner/name), "
            f"got {models!r}"
        )
    found |= {part: own for part, own in (("dino", dino), ("clip", clip), (REDRAW, redraw)) if own}
    for part, source in found.items():
        if source is None:
            raise MasklessError(f"{models} is an inpainting model alone; say which {part} goes with it (--{part})")
        if Path(source).is_dir():
            check_weights(Path(source))
        elif Path(source).is_file() and part in ("clip", REDRAW):
            raise MasklessError(f"the {part} model must be a folder or a hub id, got the file {source}")
        elif not Path(source).is_file() and not hub.is_hub_id(source):
            raise MasklessError(f"no such {part} model: {source!r} is neither a folder nor a hub id such as owner/name")
    return {part: str(source) for part, source in found.items()}


def check_weights(folder: Path) -> None:
    """Raise a MasklessError that names the file where weights are missing, cut short or not safetensors."""
    from safetensors import SafetensorError, safe_open

    for index in sorted(folder.rglob("*.safetensors.index.json")):
        shards = set(read_json(index).get("weight_map", {}).values())
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
        read_json(path)


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
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        native = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in known:
        raise MasklessError(f"dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return known[name]


def _load_inpainter(
    source: Path, *, dtype: torch.dtype, offline: bool, allow_pickle: bool, **chosen: Any
) -> tuple[InpaintingModel, list[torch.nn.Module]]:
    """The inpainting model on the CPU, and the networks that it is made of."""
    if source.is_file():
        settings = settings_of(source)
        if not Path(settings).is_dir():
            settings = str(hub.fetch(_asked(settings), offline=offline, settings_only=True).folder)
        pipeline = load_single_file(source, Path(settings))
    else:
        pipeline = load_pipeline(str(source), dtype=dtype, allow_pickle=allow_pickle)
    recommended = _recommendations(source)
    inpainter = make_inpainter(
        pipeline,
        dtype=dtype,
        allow_pickle=allow_pickle,
        native_px=recommended.get("native_px"),
        recommended_steps=recommended.get("steps"),
        recommended_guidance=recommended.get("guidance_scale"),
        **chosen,
    )
    return inpainter, [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def _load_redrawer(source: Path, **chosen: Any) -> tuple[InpaintingModel, list[torch.nn.Module]]:
    model, networks = _load_inpainter(source, **chosen)
    if not model.sees_picture:
        raise MasklessError(
            f"the redraw model must see the picture that it edits, as InstructPix2Pix does; {source} does not"
        )
    return model, networks


def _loaded(load: Any, part: Located, kind: str, *, memory: str, **options: Any) -> Any:
    """The part, or one line that says which model could not be read and why."""
    try:
        return load(part.path, **options)
    except MasklessError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise MasklessError(f"no memory for the {kind} model {part.name}; {less_memory(memory)}") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MasklessError(f"cannot read the {kind} model {part.name}: {reason}") from error


def _recommendations(source: Path) -> dict[str, Any]:
    path = source / RECOMMENDATIONS
    return read_json(path) if path.is_file() else {}


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
