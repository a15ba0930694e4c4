"""Between the components of a MasklessInpaintPipeline and the models of an Editor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging

from maskless.data.model_options import ModelOptions
from maskless.models.clip import Clip
from maskless.models.dino import Dino
from maskless.models.encoders import IMAGENET_MEAN, IMAGENET_STD, Encoders
from maskless.models.inpainters.loading import make_inpainter
from maskless.models.pretrained import RECOMMENDATIONS, EditModels, Refinement

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
USUAL = {"dino": (IMAGENET_MEAN, IMAGENET_STD), "clip": (CLIP_MEAN, CLIP_STD)}


def components_of(models: Encoders) -> dict[str, Any]:
    """The arguments of a MasklessInpaintPipeline for loaded models; without those that draw for encoders alone."""
    found: dict[str, Any] = {
        "dino": models.dino.model,
        "clip": models.clip.model,
        "clip_tokenizer": models.clip.tokenizer,
        "normalisation": {
            part: [each.mean.flatten().tolist(), each.std.flatten().tolist()]
            for part, each in (("dino", models.dino), ("clip", models.clip))
        },
    }
    if isinstance(models, EditModels):
        found |= {"inpainting": models.inpainter.pipeline, "inpainting_settings": _settings(models.inpainter)}
        if models.redrawer is not None:
            found |= {"redraw": models.redrawer.pipeline, "redraw_settings": _settings(models.redrawer)}
            if models.refinement is not None:
                found["redraw_settings"]["refine"] = vars(models.refinement)
    return found


def edit_models(pipeline: Any) -> EditModels:
    """The models of an Editor that are the components of a MasklessInpaintPipeline, on its device."""
    dtype = _dtype_of(pipeline.inpainting)
    mean_std = pipeline.config.normalisation or USUAL
    (dino_mean, dino_std), (clip_mean, clip_std) = mean_std["dino"], mean_std["clip"]
    size = int(pipeline.dino.config.image_size)
    redraw, settings = pipeline.redraw, pipeline.config.redraw_settings or {}
    refine = settings.get("refine")
    return EditModels(
        dino=Dino(pipeline.dino, mean=tuple(dino_mean), std=tuple(dino_std), shorter_px=size),
        clip=Clip(pipeline.clip, pipeline.clip_tokenizer, mean=tuple(clip_mean), std=tuple(clip_std)),
        inpainter=_inpainter(pipeline.inpainting, dtype, pipeline.config.inpainting_settings or {}),
        redrawer=None if redraw is None else _inpainter(redraw, _dtype_of(redraw), settings),
        refinement=None if redraw is None or refine is None else Refinement(**refine),
        names={part: type(component).__name__ for part, component in pipeline.components.items()},
        options=ModelOptions(device=pipeline.device.type, dtype=str(dtype).removeprefix("torch.")),
        device=pipeline.device,
        dtype=dtype,
    )


def save_as_models_folder(pipeline: Any, folder: Path) -> None:
    """Add to what diffusers has saved what Maskless needs to load the same folder: the tokenizer and the normalisation
    beside the encoders, and the recommended settings beside the pipelines."""
    pipeline.clip_tokenizer.save_pretrained(str(folder / "clip"))
    for part, (mean, std) in (pipeline.config.normalisation or USUAL).items():
        _write(folder / part / "preprocessor_config.json", {"image_mean": list(mean), "image_std": list(std)})
    for part in ("inpainting", "redraw"):
        settings = pipeline.config[f"{part}_settings"]
        if settings and getattr(pipeline, part) is not None:
            _write(folder / part / RECOMMENDATIONS, settings)


def _settings(inpainter: Any) -> dict[str, Any]:
    """The recommendations of an inpainting model, as in its maskless.json."""
    values = {
        "steps": inpainter.recommended_steps,
        "guidance_scale": inpainter.recommended_guidance,
        "native_px": inpainter.native_px,
    }
    return {name: value for name, value in values.items() if value is not None}


def _inpainter(pipeline: Any, dtype: torch.dtype, settings: dict[str, Any]) -> Any:
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # diffusers warns of the conversion to a number format that the UNet already has
    try:
        return make_inpainter(
            pipeline,
            dtype=dtype,
            native_px=settings.get("native_px"),
            recommended_steps=settings.get("steps"),
            recommended_guidance=settings.get("guidance_scale"),
        )
    finally:
        logging.set_verbosity(before)


def _dtype_of(pipeline: Any) -> torch.dtype:
    """The number format of a pipeline's denoiser."""
    return (pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer).dtype


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
