"""Loads the pipeline of an inpainting model, and wraps it in the class of its family."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maskless.data.errors import MasklessError, shown
from maskless.models.inpainters.flow import FlowInpainter
from maskless.models.inpainters.flow_families import FAMILIES
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.inpainters.lora import add_lora, parse_loras
from maskless.models.inpainters.modular import FAMILIES as MODULAR
from maskless.models.inpainters.modular import INDEX, ModularInpainter, build_modular, modular_parts
from maskless.models.inpainters.protocol import InpaintingModel
from maskless.models.inpainters.schedulers import SCHEDULERS
from maskless.models.parts import SETTINGS_BYTES, check_settings, open_network, opening, read_json

UNET_PIPELINES = {
    "StableDiffusionPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionInstructPix2PixPipeline": "StableDiffusionInstructPix2PixPipeline",
    "LatentConsistencyModelPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLInpaintPipeline": "StableDiffusionXLInpaintPipeline",
}
"""From the class in model_index.json to the class that opens its folder, for models with a UNet on latents."""
PIPELINES = UNET_PIPELINES | {opened: family.pipeline for family in FAMILIES for opened in family.opens}
SUPPORTED = (
    "Stable Diffusion (1.5, 2, XL, 3), InstructPix2Pix, FLUX (Fill, dev, schnell, Kontext), FLUX.2 klein, "
    "Qwen-Image(-Edit) or Z-Image"
)
NETWORKS = {
    "diffusers": (
        "AsymmetricAutoencoderKL", "AutoencoderKL", "AutoencoderKLFlux2", "AutoencoderKLQwenImage", "AutoencoderTiny",
        "Flux2Transformer2DModel", "Flux3Transformer2DModel", "FluxTransformer2DModel", "QwenImageTransformer2DModel",
        "SD3Transformer2DModel", "UNet2DConditionModel", "ZImageTransformer2DModel",
    ),
    "transformers": (
        "CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection",
        "Qwen2_5_VLForConditionalGeneration", "Qwen3ForCausalLM", "Qwen3Model", "Qwen3VLForConditionalGeneration",
        "Qwen3_5ForConditionalGeneration", "T5EncoderModel",
    ),
}  # fmt: skip
"""The classes of networks that a pipeline may consist of."""
OTHER_PARTS = ("Tokenizer", "TokenizerFast", "Scheduler", "Processor", "ProcessorFast", "FeatureExtractor")
"""The ends of the names of the other classes that a pipeline may name."""
PREVIEWS_NEED_UNET = (
    "a preview autoencoder needs an inpainting model with a UNet on latents (Stable Diffusion 1.5, 2 or XL)"
)

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, DiffusionPipeline, ModularPipeline


def load_pipeline(
    source: str,
    *,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
    transformer: torch.nn.Module | None = None,
) -> DiffusionPipeline | ModularPipeline:
    """The pipeline of a folder, without a safety checker. Without model_index.json, modular_model_index.json says what
    the folder holds.

    Args:
        dtype: number format of a transformer and its text encoders, which are large; those of a UNet are read in
            float32.
        allow_pickle: also read weights that are not safetensors. Loading those can run code.
        transformer: the denoiser, in place of the one in the folder, which is not read.
    Raises:
        MasklessError: a kind of pipeline that cannot inpaint.
    """
    import diffusers
    from diffusers.utils import is_accelerate_available

    folder = Path(source)
    if not (folder / "model_index.json").is_file():
        if transformer is not None:
            raise MasklessError(f"--transformer needs a model with model_index.json, got the modular one in {source}")
        return _load_modular(folder, dtype=dtype, allow_pickle=allow_pickle)
    index = read_json(folder / "model_index.json", limit=SETTINGS_BYTES)
    kind = shown(index.get("_class_name"))
    if kind not in PIPELINES:
        raise MasklessError(f"{source} is a {kind}, which cannot inpaint here; use a model of {SUPPORTED}")
    chosen = getattr(diffusers, PIPELINES[kind])
    checked = chosen in (diffusers.StableDiffusionInpaintPipeline, diffusers.StableDiffusionInstructPix2PixPipeline)
    options: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False} if checked else {}
    family = next((family for family in FAMILIES if family.pipeline == chosen.__name__), None)
    dtype = torch.float32 if kind in UNET_PIPELINES else dtype
    given = {} if transformer is None else {"transformer": transformer}
    options |= _networks(folder, index, dtype=dtype, allow_pickle=allow_pickle, without=given) | given
    with opening(folder):
        if family is not None and family.parts is not None:
            options |= family.parts(source)
        options["low_cpu_mem_usage"] = is_accelerate_available()  # or diffusers advises to install it
        pipeline = chosen.from_pretrained(source, dtype=dtype, local_files_only=True, **options)
        for part in pipeline.components.values():
            # Without accelerate, diffusers 0.42 keeps SD 3's transformer in the number format of its file.
            if isinstance(part, torch.nn.Module) and part is not transformer and part.dtype != dtype:
                part.to(dtype=dtype)
        return pipeline


def _load_modular(folder: Path, *, dtype: torch.dtype, allow_pickle: bool) -> ModularPipeline:
    """The modular pipeline of a folder."""
    kind, parts = modular_parts(folder)
    networks = _networks(folder, parts, dtype=dtype, allow_pickle=allow_pickle, file=INDEX)
    return build_modular(kind, folder, parts, networks)


def _networks(
    folder: Path,
    index: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    allow_pickle: bool,
    without: Collection[str] = (),
    file: str = "model_index.json",
) -> dict[str, torch.nn.Module]:
    """The networks of a pipeline by their part, each with all of its weights.

    index: see `network_classes`. without: parts that are not read.
    """
    from diffusers.utils import is_accelerate_available

    networks = {}
    for part, kind in network_classes(folder, index, file).items():
        if part in without:
            continue
        low = {"low_cpu_mem_usage": is_accelerate_available()} if kind.__module__.startswith("diffusers.") else {}
        kept = () if is_accelerate_available() else getattr(kind, "_keep_in_fp32_modules", None) or ()
        if kept:
            # Without accelerate, diffusers refuses networks that keep a part in float32. This one is converted below.
            kind = type(kind.__name__, (kind,), {"_keep_in_fp32_modules": None, "__module__": kind.__module__})
        network = open_network(kind, folder / part, allow_pickle=allow_pickle, dtype=dtype, **low)
        for name, module in network.named_modules():
            if name.rpartition(".")[2] in kept:
                module.to(torch.float32)
        networks[part] = network
    return networks


def network_classes(folder: Path, index: Mapping[str, Any], file: str = "model_index.json") -> dict[str, type]:
    """The class of each network of a pipeline by its part. Nothing of the folder is imported.

    index: the content of model_index.json, or `modular_parts`. file: where it comes from, for messages.

    Raises:
        MasklessError: a part of a class that is not supported, or a scheduler with absurd settings; the message names
            it.
    """
    import diffusers
    import transformers

    libraries = {"diffusers": diffusers, "transformers": transformers}
    found = {}
    for part, named in index.items():
        if not isinstance(named, list) or part == "safety_checker" or named == [None, None]:
            continue
        library, kind = named if len(named) == 2 and all(isinstance(each, str) for each in named) else ("", "")
        is_network = kind in NETWORKS.get(library, ())
        # Classes such as AutoTokenizer may choose one that is in the folder.
        is_other = kind.endswith(OTHER_PARTS) and not kind.startswith("Auto")
        if library not in libraries or not (is_network or is_other) or not part.isidentifier():
            raise MasklessError(f"{folder / file} names {shown(named)} as its {shown(part)}, which is not supported")
        if is_network:
            found[part] = getattr(libraries[library], kind)
        elif kind.endswith("Scheduler"):
            path = folder / part / "scheduler_config.json"
            check_settings(read_json(path, limit=SETTINGS_BYTES), path)
    return found


def make_inpainter(
    pipeline: DiffusionPipeline | ModularPipeline,
    *,
    dtype: torch.dtype = torch.float32,
    scheduler: str | None = None,
    lora: str = "",
    native_px: int | None = None,
    recommended_steps: int | None = None,
    recommended_guidance: float | None = None,
    allow_pickle: bool = False,
    preview_vae: AutoencoderTiny | None = None,
) -> InpaintingModel:
    """The pipeline wrapped in the class of its family.

    Args:
        dtype: number format of a UNet.
        scheduler: a name of SCHEDULERS, instead of the model's own scheduler.
        lora: FILE[:SCALE], several separated by commas.
        native_px: side in pixels of the pictures to draw, instead of the model's own.
        recommended_steps, recommended_guidance: recommendations of the model. Those of the scheduler replace them.
        allow_pickle: also read LoRA weights that are not safetensors.
        preview_vae: a small autoencoder that shows drawings while they are made; see `previews`.
    Raises:
        MasklessError: a model that cannot inpaint, or a LoRA, a scheduler or a small autoencoder that does not fit it.
    """
    if preview_vae is not None and not hasattr(pipeline, "unet"):
        raise MasklessError(f"{PREVIEWS_NEED_UNET}, got a {type(pipeline).__name__}; leave --preview-vae out")
    if lora and type(pipeline).__name__ in MODULAR:
        raise MasklessError(f"LoRA files cannot be added to a modular pipeline here, got {lora}; leave --lora out")
    for each in parse_loras(lora):
        add_lora(pipeline, each, allow_pickle=allow_pickle)
    advice = SCHEDULERS[scheduler] if scheduler is not None else None
    options: dict[str, Any] = {
        "scheduler": scheduler,
        "native_px": native_px,
        "recommended_steps": (advice and advice.steps) or recommended_steps,
        "recommended_guidance": (advice and advice.guidance_scale) or recommended_guidance,
    }
    if type(pipeline).__name__ in MODULAR:
        return ModularInpainter(pipeline, **options)
    if hasattr(pipeline, "unet"):
        return StableDiffusionInpainter(pipeline, dtype=dtype, preview_vae=preview_vae, **options)
    family = next(family for family in FAMILIES if family.pipeline == type(pipeline).__name__)
    return FlowInpainter(pipeline, family, **options)
