"""Inpainting by flow-matching transformers: SD 3, FLUX, FLUX.2 klein, Qwen-Image and Z-Image. Method step 7.

Each model uses its own pipeline of diffusers. The prompt is encoded once, and every picture gets a generator with the
same seed, so that all of them start from the same noise.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.inpainters.denoising import Sampling

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TRAINED_PX = 1024
"""Side in pixels of the squares that all of these models were trained on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PipelinePrompt:
    """An encoded prompt: arguments of the pipeline's call by name, each for one picture."""

    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class FlowFamily:
    """How one family's pipeline is called.

    pipeline: class of diffusers. opens: the classes in model_index.json whose folders it opens. steps, guidance_scale:
    what the authors recommend. encode: from pipeline, prompt and negative prompt to arguments of the call. guidance:
    the argument that gets guidance_scale. settings: further arguments of every call. reads_picture: whether the
    pipeline encodes the prompt together with the picture, for one picture at a time. negative: whether it has a
    negative prompt. parts: from the source to components that replace those that the pipeline would load.
    """

    pipeline: str
    opens: tuple[str, ...]
    steps: int
    guidance_scale: float
    encode: Callable[[DiffusionPipeline, str, str], dict[str, Any]]
    guidance: str = "guidance_scale"
    settings: dict[str, Any] = field(default_factory=dict)
    reads_picture: bool = False
    negative: bool = True
    parts: Callable[[str], dict[str, Any]] | None = None


class FlowInpainter:
    """A pipeline of one of the families below.

    The attributes are those of InpaintingModel; unet_forwards counts calls of the transformer. A pipeline of diffusers
    can only run from its first step to its last, so `denoiser` is None. A scheduler counts its steps, so each call
    works with a copy of it, and simultaneous edits can share the model.
    """

    denoiser = None

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        family: FlowFamily,
        *,
        scheduler: str | None = None,
        native_px: int | None = None,
        recommended_steps: int | None = None,
        recommended_guidance: float | None = None,
    ) -> None:
        """scheduler: None or euler, which all families use. Other arguments replace the family's values."""
        if scheduler not in (None, "euler"):
            raise MasklessError(
                f"scheduler {scheduler} does not work with {family.pipeline}, a flow-matching model; leave the "
                "option out"
            )
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        pipeline.set_progress_bar_config(disable=True)
        if pipeline.scheduler.config.get("stochastic_sampling"):
            # A stochastic scheduler would draw the noise of each candidate from torch's global generator.
            deterministic = type(pipeline.scheduler).from_config(pipeline.scheduler.config, stochastic_sampling=False)
            pipeline.register_modules(scheduler=deterministic)
        self.pipeline = pipeline
        self._family, self.takes_picture = family, family.reads_picture
        self.cell_px = int(pipeline.vae_scale_factor) * 2
        self.native_px = native_px or TRAINED_PX // self.cell_px * self.cell_px
        if family.reads_picture:
            # Such a pipeline always draws at its own size, and its pictures are resized to native_px.
            self.cell_px = max(1, self.cell_px * self.native_px // TRAINED_PX)
        if self.native_px % self.cell_px:
            raise MasklessError(f"native_px must be a multiple of {self.cell_px} for this model, got {self.native_px}")
        distilled = bool(pipeline.config.get("is_distilled", False))
        self.recommended_steps: int | None = recommended_steps or (4 if distilled else family.steps)
        self.recommended_guidance: float | None = recommended_guidance or (1.0 if distilled else family.guidance_scale)
        self.unet_forwards = 0
        # A fast tokenizer keeps its padding between calls, and some families call one with two kinds of it.
        self._encoding = threading.Lock()
        pipeline.transformer.register_forward_hook(self._count, with_kwargs=True)

    @property
    def device(self) -> torch.device:
        return self.pipeline._execution_device

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PipelinePrompt:
        """Both texts, encoded once for all candidates.

        Raises:
            MasklessError: a negative prompt, if the family has none.
        """
        if negative_prompt and not self._family.negative:
            raise MasklessError(f"{self._family.pipeline} has no negative prompt; leave --negative-prompt out")
        with self._encoding:
            return PipelinePrompt(arguments=self._family.encode(self.pipeline, prompt, negative_prompt))

    def draw_noise(self, seed: int, side_px: int | None = None) -> None:
        """None: the pipeline draws the noise from the seed itself."""

    @torch.no_grad()
    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PipelinePrompt,
        sampling: Sampling,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture; see InpaintingModel.inpaint. `sampling.noise` must be None."""
        assert sampling.noise is None
        if self._family.reads_picture:
            drawn = torch.cat(
                [
                    self._run_pipeline(_to_pil(image[None]), mask[None], prompt, 1, sampling)
                    for image, mask in zip(images, masks, strict=True)
                ]
            )
        else:
            drawn = self._run_pipeline(images, masks, prompt, len(images), sampling)
        size = (images.shape[2], images.shape[3])
        if tuple(drawn.shape[2:]) != size:
            drawn = F.interpolate(drawn, size=size, mode="bicubic", antialias=True, align_corners=False)
        return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    def _run_pipeline(
        self,
        images: Any,
        masks: Tensor,
        prompt: PipelinePrompt,
        count: int,
        sampling: Sampling,
    ) -> Float[Tensor, "N 3 s s"]:
        """One call of the pipeline for `count` pictures: the drawn pictures in [0, 1], at the pipeline's own size."""
        guidance = {self._family.guidance: sampling.guidance_scale} | self._family.settings
        if self._family.pipeline == "ZImageInpaintPipeline" and sampling.guidance_scale <= 1:
            guidance["guidance_scale"] = 0.0
        pipeline = copy.copy(self.pipeline)
        pipeline.scheduler = copy.deepcopy(self.pipeline.scheduler)
        with _quiet_diffusers():
            output = pipeline(
                image=images,
                mask_image=masks,
                height=self.native_px,
                width=self.native_px,
                num_inference_steps=sampling.steps,
                strength=sampling.strength,
                generator=[torch.Generator().manual_seed(sampling.seed) for _ in range(count)],
                output_type="pt",
                **{name: _repeated(value, count) for name, value in prompt.arguments.items()},
                **guidance,
            )
        return output.images.float()

    def _count(self, _module: Any, positional: Any, named: dict[str, Any], _output: Any) -> None:
        self.unet_forwards += len(named["hidden_states"] if "hidden_states" in named else positional[0])


@contextlib.contextmanager
def _quiet_diffusers() -> Iterator[None]:
    """Hide the advice that diffusers' pipelines log in a block; the log level is restored afterwards."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _repeated(value: Any, count: int) -> Any:
    """An argument for one picture, repeated for a batch of pictures."""
    if isinstance(value, Tensor):
        return value.expand(count, *value.shape[1:])
    return value * count if isinstance(value, list) else value


def _to_pil(image: Float[Tensor, "1 3 S S"]) -> list[Any]:
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(image))


def _encode_sd3(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    encoded = pipeline.encode_prompt(prompt, prompt, prompt, negative_prompt=negative_prompt)
    return dict(zip(names, encoded, strict=True))


def _encode_flux(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    hidden, pooled, _ids = pipeline.encode_prompt(prompt, prompt)
    found = {"prompt_embeds": hidden, "pooled_prompt_embeds": pooled}
    if negative_prompt:
        hidden, pooled, _ids = pipeline.encode_prompt(negative_prompt, negative_prompt)
        found |= {"negative_prompt_embeds": hidden, "negative_pooled_prompt_embeds": pooled}
        found["true_cfg_scale"] = TRUE_GUIDANCE
    return found


def _encode_klein(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    texts = {"prompt_embeds": prompt, "negative_prompt_embeds": negative_prompt}
    return {name: pipeline.encode_prompt(text)[0] for name, text in texts.items()}


def _encode_qwen(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    found = {}
    # An empty negative prompt is given as a space, as in the model's own examples.
    for name, text in {"prompt": prompt, "negative_prompt": negative_prompt or " "}.items():
        found[f"{name}_embeds"], found[f"{name}_embeds_mask"] = pipeline.encode_prompt(text)
    return found


def _pass_texts(_pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "negative_prompt": negative_prompt or " "}


def _picture_processor(source: str) -> dict[str, Any]:
    """Qwen-VL's processor for pictures and texts only. That of transformers needs torchvision for videos."""
    from transformers import Qwen2VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureProcessor(Qwen2VLProcessor):
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None, **_ignored: Any) -> None:
            self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    return {"processor": PictureProcessor.from_pretrained(source, subfolder="processor")}


def _encode_z_image(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> dict[str, Any]:
    encoded = pipeline.encode_prompt(prompt, negative_prompt=negative_prompt)
    return dict(zip(("prompt_embeds", "negative_prompt_embeds"), encoded, strict=True))


TRUE_GUIDANCE = 2.0
"""Guidance scale for negative prompts of FLUX. Its guidance_scale, an input of the network, does not affect them."""

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
        encode=_pass_texts,
        reads_picture=True,
        parts=_picture_processor,
    ),
    FlowFamily(
        pipeline="ZImageInpaintPipeline",
        opens=("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline"),
        steps=50,
        guidance_scale=5.0,
        encode=_encode_z_image,
    ),
)
