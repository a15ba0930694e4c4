"""Loads the models that a preset, a folder, a file or a hub id names, and places them on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models import hub
from maskless.models.clip import Clip
from maskless.models.dino import Dino
from maskless.models.encoders import load_clip, load_dino
from maskless.models.fingerprint import fingerprint_of
from maskless.models.inpainters.eraser import OnnxEraser, onnx_file
from maskless.models.inpainters.loading import InpaintingModel, load_pipeline, make_inpainter
from maskless.models.inpainters.single_file import load_single_file, settings_of
from maskless.models.memory import arrange, is_out_of_memory, memory_advice
from maskless.models.parts import check_weights, one_line_model_errors, read_json
from maskless.models.presets import BY_NAME, PINNED, Preset, with_mirrors

BUNDLED = "storybook"
"""Name of the models that the package contains."""
PARTS = ("inpainting", "dino", "clip")
REDRAW = "redraw"
"""The optional part of a set of models: the model that redraws pictures."""
ERASE = "erase"
"""The optional part that fills the place of what is removed."""
RECOMMENDATIONS = "maskless.json"
"""A file beside model_index.json with the settings that a model works best with: {"steps": ..., "guidance_scale": ...,
"native_px": ...}. Options that the user sets take precedence. A redrawer's file may also have "refine": the fields of a
`Refinement`."""


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a redrawer refines an object that the inpainter has drawn.

    steps: number of denoising steps from pure noise. guidance_scale: scale of classifier-free guidance; at 1 it is off.
    strength: share of the steps that are made, above 0 and up to 1; below 1 the redrawer starts from the drawing's own
    latents.
    """

    steps: int
    guidance_scale: float
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.guidance_scale < 1 or not 0 < self.strength <= 1:
            raise MasklessError(
                "a refinement must have steps and a guidance_scale of at least 1 and a strength above 0 and up to 1, "
                f"got {self.steps}, {self.guidance_scale} and {self.strength}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class EditModels:
    """The frozen networks of an edit. Simultaneous edits can share them, because only their counters change.

    redrawer: a model that takes a picture and draws it as a text describes it, for the tasks that redraw content.
    eraser: one that continues the surroundings, for the tasks that draw nothing new. Each is None if the inpainter
    does that. refinement: how the redrawer refines objects that the inpainter has drawn; None if its
    folder does not recommend it. names: the source of each part, with the commit for a model of the hub. weights: what
    identifies the weights of DINO, CLIP and the inpainting model (`fingerprint_of`), wherever they are. options: the
    options that the models were loaded with; device and dtype are the chosen ones, not "auto". dtype: number format of
    the denoiser. placement: where `options.memory` keeps the networks, for the user; empty for full.
    """

    dino: Dino
    clip: Clip
    inpainter: InpaintingModel
    redrawer: InpaintingModel | None = None
    eraser: InpaintingModel | None = None
    refinement: Refinement | None = None
    names: dict[str, str]
    weights: Mapping[str, str] = field(default_factory=dict)
    options: ModelOptions
    device: torch.device
    dtype: torch.dtype
    placement: str = ""

    @property
    def memory(self) -> str:
        """The memory level: full, balanced, low or minimal."""
        return self.options.memory

    @property
    def unet_forwards(self) -> int:
        """Calls of the denoisers so far, counted per picture: the inpainter's and those of the other models that
        draw."""
        models = (self.inpainter, self.redrawer, self.eraser)
        return sum({id(model): model.unet_forwards for model in models if model is not None}.values())

    def for_redrawing(self) -> EditModels:
        """The same models with the redrawer, if there is one, as the inpainter. Its drawings are not refined."""
        return self if self.redrawer is None else replace(self, inpainter=self.redrawer, refinement=None)

    def for_erasing(self) -> EditModels:
        """The same models with the eraser, if there is one, as the inpainter."""
        return self if self.eraser is None else replace(self, inpainter=self.eraser, refinement=None)


@dataclass(frozen=True, kw_only=True)
class LocalPart:
    """One of the models, on this disk.

    path: a folder or a file. name: the folder or file that the user named, or the hub id and its commit.
    """

    path: Path
    name: str


def load_models(options: ModelOptions | None = None) -> EditModels:
    """Load the models that the options name; the bundled ones by default.

    Raises:
        MasklessError: unknown models, missing or damaged files, or a device that is not available.
    """
    options = options or ModelOptions()
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    parts = fetch_models(options)
    common: dict[str, Any] = {"memory": options.memory, "allow_pickle": options.allow_pickle}
    for_denoisers: dict[str, Any] = {"dtype": dtype, "offline": options.offline, **common}
    # Weights created under torch.inference_mode could not be used in computations with gradients later.
    with torch.inference_mode(False), _quiet_libraries():
        dino = _load_part(load_dino, parts["dino"], "DINO", **common)
        clip = _load_part(load_clip, parts["clip"], "CLIP", **common)
        chosen: dict[str, Any] = {"scheduler": options.scheduler, "lora": options.lora or ""}
        chosen["preset"] = _preset(options.models)
        inpainter, networks = _load_part(_load_inpainter, parts["inpainting"], "inpainting", **chosen, **for_denoisers)
        weights = {"dino": fingerprint_of([dino.model]), "clip": fingerprint_of([clip.model])}
        of_file = isinstance(inpainter, OnnxEraser)
        weights["inpainting"] = inpainter.fingerprint if of_file else fingerprint_of(networks)
        redrawer, refinement = None, None
        if REDRAW in parts:
            refinement = _load_part(_load_refinement, parts[REDRAW], REDRAW, memory=options.memory)
            redrawer, further = _load_part(_load_redrawer, parts[REDRAW], REDRAW, **for_denoisers)
            networks += further
        eraser = _load_part(_load_eraser, parts[ERASE], ERASE, memory=options.memory) if ERASE in parts else None
        try:
            placement = arrange(networks, [dino.model, clip.model], device=device, memory=options.memory, dtype=dtype)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise MasklessError(f"the models do not fit on {device}; {memory_advice(options.memory)}") from error
    return EditModels(
        dino=dino,
        clip=clip,
        inpainter=inpainter,
        redrawer=redrawer,
        eraser=eraser,
        refinement=refinement,
        names={part: local.name for part, local in parts.items()},
        weights=weights,
        options=replace(options, device=device.type, dtype=str(dtype).removeprefix("torch.")),
        device=device,
        dtype=dtype,
        placement=placement,
    )


def fetch_models(options: ModelOptions, *, progress: bool = False) -> dict[str, LocalPart]:
    """Where each part is on this disk. Missing parts are downloaded first.

    progress: whether to show progress bars of downloads on stderr.

    Raises:
        MasklessError: unknown models, damaged files, or a failed download.
    """
    found = {}
    named: dict[str, Any] = {"dino": options.dino, "clip": options.clip, "redraw": options.redraw}
    named[ERASE] = options.erase
    for part, source in model_sources(options.models, **named).items():
        if not hub.is_hub_id(source) or Path(source).exists():
            found[part] = LocalPart(path=Path(source), name=source)
            continue
        wanted: dict[str, Any] = {"allow_pickle": options.allow_pickle, "progress": progress}
        snapshot = hub.fetch(with_commits(source), offline=options.offline, **wanted)
        try:
            check_weights(snapshot.folder)
        except MasklessError:
            if options.offline or hub.is_offline():
                raise
            # A file in the cache is damaged: those that are not what their hashes say are downloaded again.
            snapshot = hub.fetch(with_commits(source), again=True, **wanted)
            check_weights(snapshot.folder)
        found[part] = LocalPart(path=snapshot.folder, name=snapshot.name)
    return found


def on_disk(models: str) -> bool:
    """Whether all parts of a preset are on this disk, so that it can be loaded offline."""
    sources = model_sources(models).values()
    return all(Path(source).exists() or hub.find(with_commits(source)) is not None for source in sources)


def with_commits(source: str) -> list[str]:
    """A hub id and its mirrors, each with its pinned commit if it has one. owner/name@revision does not change."""
    if "@" in source:
        return [source]
    return [f"{repo_id}@{PINNED[repo_id]}" if repo_id in PINNED else repo_id for repo_id in with_mirrors(source)]


def model_sources(
    models: str,
    *,
    dino: str | None = None,
    clip: str | None = None,
    redraw: str | None = None,
    erase: str | None = None,
) -> dict[str, str]:
    """The folder, file or hub id of each part.

    models, dino, clip, redraw, erase: the options of these names, see `ModelOptions`.

    Raises:
        MasklessError: unknown models, or a folder with missing or damaged files.
    """
    root = Path(str(resources.files("maskless"))) / "assets" / BUNDLED if models == BUNDLED else Path(models)
    preset = _preset(models)
    if preset is not None:
        found: dict[str, str | None] = {"inpainting": preset.inpainting[0], "dino": preset.dino, "clip": preset.clip}
        found |= {ERASE: preset.erase} if preset.erase else {}
    elif all((root / part).is_dir() for part in PARTS):
        found = {part: str(root / part) for part in PARTS}
        found |= {part: str(root / part) for part in (REDRAW, ERASE) if (root / part).is_dir()}
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
    found |= {part: own for part, own in (("dino", dino), ("clip", clip), (REDRAW, redraw), (ERASE, erase)) if own}
    for part, source in found.items():
        if source is None:
            raise MasklessError(
                f"{models} is only an inpainting model; name the {part} model to use with it (--{part})"
            )
        if Path(source).is_dir():
            check_weights(Path(source))
        elif Path(source).is_file() and part in ("clip", REDRAW):
            raise MasklessError(f"the {part} model must be a folder or a hub id, got the file {source}")
        elif not Path(source).is_file() and not hub.is_hub_id(source):
            raise MasklessError(f"no such {part} model: {source!r} is neither a folder nor a hub id such as owner/name")
    return {part: str(source) for part, source in found.items()}


def _preset(models: str) -> Preset | None:
    """The preset of this name; None for the bundled models, and for a folder or file of this name."""
    return None if models == BUNDLED or Path(models).exists() else BY_NAME.get(models)


def resolve_device(name: str) -> torch.device:
    """The device of this name; auto is CUDA if available, else MPS if available, else the CPU.

    Raises:
        MasklessError: an unknown name, or a device that is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, usable in available.items() if usable))
    if name not in available:
        raise MasklessError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    if not available[name]:
        raise MasklessError(f"device {name} is not available here; use --device auto or cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of this name; auto is the fastest that the device supports natively.

    Raises:
        MasklessError: an unknown name.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        # With AVX512-BF16 alone, without AMX, bfloat16 takes 1.3 to 1.9 times as long (docs/performance.md).
        native = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in known:
        raise MasklessError(f"dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return known[name]


def _load_inpainter(
    source: Path, *, dtype: torch.dtype, offline: bool, allow_pickle: bool, preset: Preset | None = None, **chosen: Any
) -> tuple[InpaintingModel, list[torch.nn.Module]]:
    """The inpainting model on the CPU, and its networks. preset: the one that it is of, if any."""
    onnx = onnx_file(source)
    if onnx is not None:
        if chosen.get("lora") or chosen.get("scheduler"):
            raise MasklessError(f"{onnx} takes no LoRA and no scheduler: it erases in one step")
        return OnnxEraser(onnx), []
    if source.is_file():
        settings = settings_of(source)
        if not Path(settings).is_dir():
            settings = str(hub.fetch(with_commits(settings), offline=offline, settings_only=True).folder)
        pipeline = load_single_file(source, Path(settings))
    else:
        pipeline = load_pipeline(str(source), dtype=dtype, allow_pickle=allow_pickle)
    recommended = _recommendations(source)
    inpainter = make_inpainter(
        pipeline,
        dtype=dtype,
        allow_pickle=allow_pickle,
        native_px=recommended.get("native_px"),
        recommended_steps=recommended.get("steps") or (preset.steps if preset is not None else None),
        recommended_guidance=recommended.get("guidance_scale"),
        **chosen,
    )
    return inpainter, [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def _load_redrawer(source: Path, **chosen: Any) -> tuple[InpaintingModel, list[torch.nn.Module]]:
    """The model that redraws pictures, on the CPU, and its networks."""
    model, networks = _load_inpainter(source, **chosen)
    if not model.takes_picture:
        raise MasklessError(
            f"the redraw model must take the picture that it edits as input, like InstructPix2Pix; {source} does not"
        )
    return model, networks


def _load_eraser(source: Path) -> OnnxEraser:
    """The model that fills the place of what is removed."""
    onnx = onnx_file(source)
    if onnx is None:
        raise MasklessError(f"the erase model must be an ONNX file, or a folder with one; {source} has none")
    return OnnxEraser(onnx)


def _load_refinement(source: Path) -> Refinement | None:
    """What a redrawer's folder recommends under "refine"."""
    recommended = _recommendations(source).get("refine")
    if recommended is None:
        return None
    try:
        return Refinement(**recommended)
    except TypeError as error:
        raise MasklessError(
            f'"refine" in {source / RECOMMENDATIONS} must hold steps, guidance_scale and strength as numbers, '
            f"got {recommended!r}"
        ) from error


def _load_part(load: Any, part: LocalPart, kind: str, *, memory: str, **options: Any) -> Any:
    """Load one part.

    Raises:
        MasklessError: it cannot be read; the message says which model it is and why.
    """
    try:
        with one_line_model_errors(f"cannot read the {kind} model {part.name}"):
            return load(part.path, **options)
    except (RuntimeError, MemoryError, OSError) as error:
        raise MasklessError(f"not enough memory for the {kind} model {part.name}; {memory_advice(memory)}") from error


def _recommendations(source: Path) -> dict[str, Any]:
    """The content of a model's RECOMMENDATIONS file; empty if it has none."""
    path = source / RECOMMENDATIONS
    return read_json(path) if path.is_file() else {}


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Hide the libraries' progress bars and advice in a block; their settings are restored afterwards."""
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
