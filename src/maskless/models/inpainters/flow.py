"""Inpainting by flow-matching transformers: SD 3, FLUX, FLUX.2 klein, Qwen-Image and Z-Image. Method step 7.

Each is driven through its own pipeline of diffusers: the prompt is encoded once, every picture gets a generator of its
own with the same seed, and everything stays tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError

LARGEST_PX = 1024
"""Side of the square that all of these were trained on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PipelinePrompt:
    """A prompt as the pipeline takes it: arguments of its call, each for one picture."""

    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FlowFamily:
    """How one family's pipeline is called.

    pipeline: class of diffusers. opens: the classes in model_index.json whose folders it opens. steps, guidance_scale:
    the family's own advice. guidance: the argument that guidance_scale goes to. encode: pipeline, prompt and negative
    prompt to the call's arguments. settings: further arguments of every call. sees: the pipeline reads the prompt and
    the picture together, one picture at a time. negative: whether it takes a negative prompt. parts: source to parts of
    the pipeline that its own loading would not give.
    """

    pipeline: str
    opens: tuple[str, ...]
    steps: int
    guidance_scale: float
    encode: Callable[[Any, str, str], dict[str, Any]]
    guidance: str = "guidance_scale"
    settings: dict[str, Any] = field(default_factory=dict)
    sees: bool = False
    negative: bool = True
    parts: Callable[[str], dict[str, Any]] | None = None


class FlowInpainter:
    """A pipeline of one of the families below.

    native_px, cell_px, sees_picture, unet_forwards, recommended_steps, recommended_guidance: as
    StableDiffusionInpainter's; calls of the transformer count as the UNet's. Not resumable: a pipeline of diffusers
    runs from its first step to its last.
    """

    resumable = False

    def __init__(
        self,
        pipeline: Any,
        family: FlowFamily,
        *,
        scheduler: str | None = None,
        native_px: int | None = None,
        recommended_steps: int | None = None,
        recommended_guidance: float | None = None,
    ) -> None:
        """scheduler: None or euler, which is what all of these families use."""
        if scheduler not in (None, "euler"):
            raise MasklessError(
                f"scheduler {scheduler} does not serve {family.pipeline}, which matches flows; leave it out"
            )
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        pipeline.set_progress_bar_config(disable=True)
        if pipeline.scheduler.config.get("stochastic_sampling"):
            # It would draw each candidate's noise from the global seed.
            settled = type(pipeline.scheduler).from_config(pipeline.scheduler.config, stochastic_sampling=False)
            pipeline.register_modules(scheduler=settled)
        self.pipeline = pipeline
        self._family, self.sees_picture = family, family.sees
        self.cell_px = int(pipeline.vae_scale_factor) * 2
        self.native_px = native_px or LARGEST_PX // self.cell_px * self.cell_px
        if family.sees:
            # Such a pipeline draws at its own size, whatever is asked for; what it gives is brought to native_px.
            self.cell_px = max(1, self.cell_px * self.native_px // LARGEST_PX)
        if self.native_px % self.cell_px:
            raise MasklessError(f"native_px must be a multiple of {self.cell_px} for this model, got {self.native_px}")
        distilled = bool(pipeline.config.get("is_distilled", False))
        self.recommended_steps: int | None = recommended_steps or (4 if distilled else family.steps)
        self.recommended_guidance: float | None = recommended_guidance or (1.0 if distilled else family.guidance_scale)
        self.unet_forwards = 0
        pipeline.transformer.register_forward_hook(self._count, with_kwargs=True)

    @property
    def device(self) -> torch.device:
        return self.pipeline._execution_device

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PipelinePrompt:
        """Both texts, once for all candidates.

        Raises:
            MasklessError: a negative prompt, where the family takes none.
        """
        if negative_prompt and not self._family.negative:
            raise MasklessError(f"{self._family.pipeline} takes no negative prompt; leave --negative-prompt out")
        return PipelinePrompt(arguments=self._family.encode(self.pipeline, prompt, negative_prompt))

    @torch.no_grad()
    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PipelinePrompt,
        *,
        seed: int,
        steps: int,
        guidance_scale: float,
        strength: float = 1.0,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture; see StableDiffusionInpainter.inpaint for the arguments."""
        if self._family.sees:
            drawn = torch.cat(
                [
                    self._drawn(_to_pil(image[None]), mask[None], prompt, 1, seed, steps, guidance_scale, strength)
                    for image, mask in zip(images, masks, strict=True)
                ]
            )
        else:
            drawn = self._drawn(images, masks, prompt, len(images), seed, steps, guidance_scale, strength)
        size = (images.shape[2], images.shape[3])
        if tuple(drawn.shape[2:]) != size:
            drawn = F.interpolate(drawn, size=size, mode="bicubic", antialias=True, align_corners=False)
        return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def _drawn(
        self,
        images: Any,
        masks: Tensor,
        prompt: PipelinePrompt,
        count: int,
        seed: int,
        steps: int,
        guidance_scale: float,
        strength: float,
    ) -> Float[Tensor, "N 3 s s"]:
        guidance = {self._family.guidance: guidance_scale} | self._family.settings
        if self._family.pipeline == "ZImageInpaintPipeline" and guidance_scale <= 1:
            guidance["guidance_scale"] = 0.0
        with _quiet_diffusers():
            output = self.pipeline(
                image=images,
                mask_image=masks,
                height=self.native_px,
                width=self.native_px,
                num_inference_steps=steps,
                strength=strength,
                generator=[torch.Generator().manual_seed(seed) for _ in range(count)],
                output_type="pt",
                **{name: _repeated(value, count) for name, value in prompt.arguments.items()},
                **guidance,
            )
        return output.images.float()

    def _count(self, _module: Any, positional: Any, named: dict[str, Any], _output: Any) -> None:
        self.unet_forwards += len(named["hidden_states"] if "hidden_states" in named else positional[0])


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    """No advice from the pipelines; the level is put back afterwards."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _repeated(value: Any, count: int) -> Any:
    """One picture's argument for a batch of them."""
    if isinstance(value, Tensor):
        return value.expand(count, *value.shape[1:])
    return value * count if isinstance(value, list) else value


def _to_pil(image: Float[Tensor, "1 3 S S"]) -> list[Any]:
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(image))


def _encode_sd3(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    encoded = pipeline.encode_prompt(prompt, prompt, prompt, negative_prompt=negative_prompt)
    return dict(zip(names, encoded, strict=True))


def _encode_flux(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    hidden, pooled, _ids = pipeline.encode_prompt(prompt, prompt)
    found = {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}
    if negative_prompt:
        hidden, pooled, _ids = pipeline.encode_prompt(negative_prompt, negative_prompt)
        found |= {"negative_prompt_embeds": hidden, "negative_pooled_prompt_embeds": pooled}
        found["true_cfg_scale"] = TRUE_GUIDANCE
    return found


def _encode_klein(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    texts = {"prompt_embeds": prompt, "negative_prompt_embeds": negative_prompt}
    return {name: pipeline.encode_prompt(text)[0] for name, text in texts.items()}


def _encode_qwen(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    found = {}
    # A space, as the model's own examples have it: guidance away from no text at all.
    for name, text in {"prompt": prompt, "negative_prompt": negative_prompt or " "}.items():
        found[f"{name}_embeds"], found[f"{name}_embeds_mask"] = pipeline.encode_prompt(text)
    return found


def _texts(_pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "negative_prompt": negative_prompt or " "}


def _without_videos(source: str) -> dict[str, Any]:
    """Qwen-VL's processor of pictures and texts. transformers' own also reads videos, and so needs torchvision."""
    from transformers import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen2VLProcessor):
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None, **_ignored: Any) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return {"processor": PictureProcessor.from_pretrained(source, subfolder="processor")}


def _encode_z_image(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Any]:
    encoded = pipeline.encode_prompt(prompt, negative_prompt=negative_prompt)
    return dict(zip(("prompt_embeds", "negative_prompt_embeds"), encoded, strict=True))


TRUE_GUIDANCE = 2.0
"""Guidance away from a negative prompt for FLUX, whose guidance_scale is an input of the network and knows none."""

FAMILIES = (
    FlowFamily(
        pipeline="StableDiffusion3InpaintPipeline",
        opens=("StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"),
        steps=40,
        guidance_scale=7.0,
        encode=_encode_sd3,
    ),
    FlowFamily(
        pipeline="FluxFillPipeline",
        opens=("FluxFillPipeline",),
        steps=50,
        guidance_scale=30.0,
        encode=_encode_flux,
        negative=False,
    ),
    FlowFamily(
        pipeline="FluxInpaintPipeline",
        opens=("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline"),
        steps=28,
        guidance_scale=7.0,
        encode=_encode_flux,
    ),
    FlowFamily(
        pipeline="FluxKontextInpaintPipeline",
        opens=("FluxKontextPipeline", "FluxKontextInpaintPipeline"),
        steps=28,
        guidance_scale=3.5,
        encode=_encode_flux,
        settings={"_auto_resize": False},
    ),
    FlowFamily(
        pipeline="Flux2KleinInpaintPipeline",
        opens=("Flux2KleinPipeline", "Flux2KleinInpaintPipeline"),
        steps=50,
        guidance_scale=4.0,
        encode=_encode_klein,
    ),
    FlowFamily(
        pipeline="QwenImageInpaintPipeline",
        opens=("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline"),
        steps=50,
        guidance_scale=4.0,
        guidance="true_cfg_scale",
        encode=_encode_qwen,
    ),
    FlowFamily(
        pipeline="QwenImageEditInpaintPipeline",
        opens=("QwenImageEditPipeline", "QwenImageEditPlusPipeline", "QwenImageEditInpaintPipeline"),
        steps=50,
        guidance_scale=4.0,
        guidance="true_cfg_scale",
        encode=_texts,
        sees=True,
        parts=_without_videos,
    ),
    FlowFamily(
        pipeline="ZImageInpaintPipeline",
        opens=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
        steps=50,
        guidance_scale=5.0,
        encode=_encode_z_image,
    ),
)
