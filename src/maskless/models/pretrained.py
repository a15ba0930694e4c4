"""Loads the models that a preset, a folder, a file or a hub id names, and places them on the device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models import hub
from maskless.models.compilation import compile_denoisers
from maskless.models.devices import resolve_device, resolve_dtype
from maskless.models.encoders import Encoders, load_clip, load_dino
from maskless.models.fingerprint import fingerprint_of
from maskless.models.grounders import load_grounder
from maskless.models.inpainters.eraser import OnnxEraser, onnx_file
from maskless.models.inpainters.gguf_transformer import load_transformer
from maskless.models.inpainters.loading import PREVIEWS_NEED_UNET, InpaintingModel, load_pipeline, make_inpainter
from maskless.models.inpainters.previews import load_preview_vae
from maskless.models.inpainters.single_file import load_single_file, settings_of
from maskless.models.memory import arrange, is_out_of_memory, memory_advice, share_equal_weights, store_in_float16
from maskless.models.parts import one_line_model_errors, read_json
from maskless.models.presets import Preset
from maskless.models.sources import (
    ENCODERS,
    ERASE,
    GROUNDER,
    PREVIEW,
    REDRAW,
    TRANSFORMER,
    LocalPart,
    fetch_models,
    preset_of,
    with_commits,
)

RECOMMENDATIONS = "maskless.json"
"""A file beside model_index.json with the settings that a model works best with: {"steps": ..., "guidance_scale": ...,
"native_px": ...}. Options that the user sets take precedence. A redrawer's file may also have "refine": the fields of a
`Refinement`."""


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a redrawer refines an object that the inpainter has drawn.

    steps: number of denoising steps from pure noise. guidance_scale: scale of classifier-free guidance; at 1 it is off.
    strength: share of the steps that are made, above 0 and up to 1; below 1 the redrawer starts from the drawing's own
    latents. keep_unchanged: recommended value of the option of this name.
    """

    steps: int
    guidance_scale: float
    strength: float = 1.0
    keep_unchanged: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.guidance_scale < 1 or not 0 < self.strength <= 1:
            raise MasklessError(
                "a refinement must have steps and a guidance_scale of at least 1 and a strength above 0 and up to 1, "
                f"got {self.steps}, {self.guidance_scale} and {self.strength}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class EditModels(Encoders):
    """The frozen networks of an edit. Simultaneous edits can share them, because only their counters change.

    redrawer: a model that takes a picture and draws it as a text describes it, for the tasks that redraw content.
    eraser: one that continues the surroundings, for the tasks that draw nothing new. Each is None if the inpainter does
    that. refinement: how the redrawer refines objects that the inpainter has drawn; None if its folder does not
    recommend it. In `options`, dtype too is the chosen one. dtype: number format of the denoiser. placement: where
    `options.memory` keeps the networks, for the user; empty for full. See `Encoders` for the rest.
    """

    inpainter: InpaintingModel
    redrawer: InpaintingModel | None = None
    eraser: InpaintingModel | None = None
    refinement: Refinement | None = None
    dtype: torch.dtype
    placement: str = ""

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
        encoders = _read_encoders(parts, options)
        chosen: dict[str, Any] = {"scheduler": options.scheduler, "lora": options.lora or ""}
        if TRANSFORMER in parts:
            chosen["transformer"] = parts[TRANSFORMER].path
        chosen["preset"] = preset_of(options.models)
        if PREVIEW in parts:
            chosen[PREVIEW] = _load_part(load_preview_vae, parts[PREVIEW], "preview", **common)
        inpainter, networks = _load_part(_load_inpainter, parts["inpainting"], "inpainting", **chosen, **for_denoisers)
        of_file = isinstance(inpainter, OnnxEraser)
        weights = _fingerprints(encoders)
        weights["inpainting"] = inpainter.fingerprint if of_file else fingerprint_of(networks)
        redrawer, refinement, further = None, None, []
        if REDRAW in parts:
            refinement = _load_part(_load_refinement, parts[REDRAW], REDRAW, memory=options.memory)
            redrawer, further = _load_part(_load_redrawer, parts[REDRAW], REDRAW, **for_denoisers)
            share_equal_weights(networks, further)
            networks += further
        eraser = _load_part(_load_eraser, parts[ERASE], ERASE, memory=options.memory) if ERASE in parts else None
        placement = _placed(networks, encoders, device=device, memory=options.memory, dtype=dtype)
        if options.compile:
            placement = compile_denoisers(networks, device)
        elif device.type == "cpu" and options.memory != "minimal":
            store_in_float16(further)
    return EditModels(
        **encoders,
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


def load_encoders(options: ModelOptions | None = None) -> Encoders:
    """Load DINO, CLIP and the grounder alone, by the same options as `load_models`.

    No inpainting model is read or downloaded.

    Raises:
        MasklessError: see `load_models`.
    """
    options = options or ModelOptions()
    device = resolve_device(options.device)
    parts = fetch_models(options, wanted=ENCODERS)
    with torch.inference_mode(False), _quiet_libraries():
        encoders = _read_encoders(parts, options)
        _placed([], encoders, device=device, memory=options.memory, dtype=torch.float32)
    return Encoders(
        **encoders,
        names={part: local.name for part, local in parts.items()},
        weights=_fingerprints(encoders),
        options=replace(options, device=device.type),
        device=device,
    )


def _read_encoders(parts: Mapping[str, LocalPart], options: ModelOptions) -> dict[str, Any]:
    """DINO, CLIP and the grounder on the CPU, by the names of the fields of `Encoders`."""
    common: dict[str, Any] = {"memory": options.memory, "allow_pickle": options.allow_pickle}
    return {
        "dino": _load_part(load_dino, parts["dino"], "DINO", **common),
        "clip": _load_part(load_clip, parts["clip"], "CLIP", **common),
        "grounder": _load_part(load_grounder, parts[GROUNDER], GROUNDER, **common) if GROUNDER in parts else None,
    }


def _fingerprints(encoders: Mapping[str, Any]) -> dict[str, str]:
    """What identifies the weights of each network."""
    return {part: fingerprint_of([encoder.model]) for part, encoder in encoders.items() if encoder is not None}


def _placed(networks: Sequence[torch.nn.Module], encoders: Mapping[str, Any], **chosen: Any) -> str:
    """Place the networks of the inpainting model and the encoders, and return what was done; see `arrange`."""
    others = [encoder.model for encoder in encoders.values() if encoder is not None]
    try:
        return arrange(networks, others, **chosen)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        advice = memory_advice(chosen["memory"])
        raise MasklessError(f"the models do not fit on {chosen['device']}; {advice}") from error


def _load_inpainter(
    source: Path, *, dtype: torch.dtype, offline: bool, allow_pickle: bool, transformer: Path | None = None,
    preset: Preset | None = None, **chosen: Any,
) -> tuple[InpaintingModel, list[torch.nn.Module]]:  # fmt: skip
    """The inpainting model on the CPU, and its networks. transformer: a GGUF file with its denoiser. preset: the one
    that it is of, if any."""
    onnx = onnx_file(source)
    if onnx is not None:
        if transformer is not None or chosen.get("lora") or chosen.get("scheduler"):
            raise MasklessError(f"{onnx} takes no LoRA, no scheduler and no transformer: it erases in one step")
        if chosen.get(PREVIEW) is not None:
            raise MasklessError(f"{PREVIEWS_NEED_UNET}, got the file {onnx}; leave --preview-vae out")
        return OnnxEraser(onnx), []
    if source.is_file():
        if transformer is not None:
            raise MasklessError(f"--transformer needs a model in a folder or of the hub, got the file {source}")
        settings = settings_of(source)
        if not Path(settings).is_dir():
            settings = str(hub.fetch(with_commits(settings), offline=offline, settings_only=True).folder)
        pipeline = load_single_file(source, Path(settings))
    else:
        network = None if transformer is None else load_transformer(transformer, source, dtype=dtype)
        pipeline = load_pipeline(str(source), dtype=dtype, allow_pickle=allow_pickle, transformer=network)
    recommended = _recommendations(source)
    inpainter = make_inpainter(
        pipeline,
        dtype=dtype,
        allow_pickle=allow_pickle,
        native_px=recommended.get("native_px"),
        recommended_steps=recommended.get("steps") or (None if preset is None else preset.steps),
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
