"""The inpainting model, frozen, behind one protocol: a folder or hub id becomes its family's class. Method step 7."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.inpainters.flow import FAMILIES, FlowInpainter
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.inpainters.lora import add_lora, parse_loras
from maskless.models.inpainters.schedulers import SCHEDULERS

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
"""Class in model_index.json to the class that opens its folder, where the denoiser is a UNet on latents."""
PIPELINES = UNET_PIPELINES | {opened: family.pipeline for family in FAMILIES for opened in family.opens}
KNOWN = (
    "Stable Diffusion (1.5, 2, XL, 3), InstructPix2Pix, FLUX (Fill, dev, schnell, Kontext), FLUX.2 klein, "
    "Qwen-Image(-Edit) or Z-Image"
)


@runtime_checkable
class InpaintingModel(Protocol):
    """What the engine asks of an inpainting model; StableDiffusionInpainter says what each means."""

    pipeline: Any
    native_px: int
    cell_px: int
    sees_picture: bool
    unet_forwards: int
    resumable: bool
    recommended_steps: int | None
    recommended_guidance: float | None

    @property
    def device(self) -> torch.device: ...

    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> Any: ...

    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: Any,
        *,
        seed: int,
        steps: int,
        guidance_scale: float,
        strength: float = 1.0,
    ) -> UInt8[Tensor, "N 3 S S"]: ...


def load_pipeline(source: str, *, dtype: torch.dtype = torch.float32, allow_pickle: bool = False) -> Any:
    """The inpainting pipeline for a folder or a hub id, without a safety checker.

    Args:
        dtype: of a transformer and its text encoders, which are too large for another; a UNet's parts are float32.
        allow_pickle: also read weights that are not safetensors. Loading those can run code.
    Raises:
        MasklessError: a kind of pipeline that does not inpaint.
    """
    import diffusers
    from diffusers.utils import is_accelerate_available

    kind = str(diffusers.DiffusionPipeline.load_config(source).get("_class_name"))
    if kind not in PIPELINES:
        raise MasklessError(f"{source} is a {kind}, which cannot inpaint here; use a model of {KNOWN}")
    chosen = getattr(diffusers, PIPELINES[kind])
    checked = chosen in (diffusers.StableDiffusionInpaintPipeline, diffusers.StableDiffusionInstructPix2PixPipeline)
    options: dict[str, Any] = {"safety_checker": None, "requires_safety_checker": False} if checked else {}
    family = next((family for family in FAMILIES if family.pipeline == chosen.__name__), None)
    if family is not None and family.parts is not None:
        options |= family.parts(source)
    dtype = torch.float32 if kind in UNET_PIPELINES else dtype
    pipeline = chosen.from_pretrained(
        source,
        dtype=dtype,
        use_safetensors=None if allow_pickle else True,
        low_cpu_mem_usage=is_accelerate_available(),
        **options,
    )
    for part in pipeline.components.values():
        # Without accelerate, diffusers 0.42 leaves SD 3's transformer in the format of its file.
        if isinstance(part, torch.nn.Module) and part.dtype != dtype:
            part.to(dtype=dtype)
    return pipeline


def make_inpainter(
    pipeline: Any,
    *,
    dtype: torch.dtype = torch.float32,
    scheduler: str | None = None,
    lora: str = "",
    native_px: int | None = None,
    recommended_steps: int | None = None,
    recommended_guidance: float | None = None,
    allow_pickle: bool = False,
) -> InpaintingModel:
    """The pipeline behind the class of its family.

    Args:
        dtype: of a UNet. scheduler: a name of SCHEDULERS in place of the model's own.
        lora: FILE[:SCALE], several separated by commas.
        native_px: side of the pictures in place of the model's own.
        recommended_steps, recommended_guidance: the model's advice; that of a scheduler made for few steps comes first.
    Raises:
        MasklessError: a model that cannot inpaint, a LoRA or a scheduler that does not go with it.
    """
    for each in parse_loras(lora):
        add_lora(pipeline, each, allow_pickle=allow_pickle)
    advice = SCHEDULERS[scheduler] if scheduler is not None else None
    options: dict[str, Any] = {
        "scheduler": scheduler,
        "native_px": native_px,
        "recommended_steps": (advice and advice.steps) or recommended_steps,
        "recommended_guidance": (advice and advice.guidance_scale) or recommended_guidance,
    }
    if hasattr(pipeline, "unet"):
        return StableDiffusionInpainter(pipeline, dtype=dtype, **options)
    family = next(family for family in FAMILIES if family.pipeline == type(pipeline).__name__)
    return FlowInpainter(pipeline, family, **options)
