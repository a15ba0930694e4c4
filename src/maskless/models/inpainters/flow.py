"""Inpainting by flow-matching transformers: SD 3, FLUX, FLUX.2 klein, Qwen-Image and Z-Image. Method step 7.

Each model uses its own pipeline of diffusers. The prompt is encoded once, and every picture gets a generator with the
same seed, so that all of them start from the same noise.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError, MasklessWarning
from maskless.models.inpainters.denoising import Sampling, step_completed
from maskless.models.inpainters.flow_families import FlowFamily
from maskless.models.inpainters.overflow import is_finite, leave_float16, not_finite
from maskless.models.inpainters.weighting import NOTATION, is_weighted, without_weights
from maskless.models.parts import one_line_model_errors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FAILED = "the inpainting model cannot be computed, its settings and files do not fit together"
TRAINED_PX = 1024
"""Side in pixels of the squares that all of these models were trained on."""
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
"""The scheduler of all of these families."""
SHOWN_LETTERS = 60
"""How much of a text that is left out a warning shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PipelinePrompt:
    """An encoded prompt: arguments of the pipeline's call by name, each for one picture; and the prompt and negative
    prompt that they encode."""

    arguments: dict[str, Any]
    texts: tuple[str, str]


class FlowInpainter:
    """A pipeline of one of the families in flow_families.py.

    The attributes are those of InpaintingModel; unet_forwards counts calls of the transformer. A pipeline of diffusers
    can only run from its first step to its last, so `denoiser` is None. A scheduler counts its steps, so each call
    works with a copy of it, and simultaneous edits can share the model.
    """

    denoiser, follows_prompt = None, True

    redraws_window = False

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
        own = type(pipeline.scheduler).__name__
        if own != FLOW_SCHEDULER:
            raise MasklessError(
                f"the scheduler of {family.pipeline} must be {FLOW_SCHEDULER}, got {own}; other schedulers are not "
                "supported for flow-matching models"
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
        self._family, self.takes_picture = family, family.takes_picture
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
        # Another thread must not use the networks while they change their number format.
        self._in_float16 = threading.Lock()
        pipeline.transformer.register_forward_hook(self._count, with_kwargs=True)

    @property
    def device(self) -> torch.device:
        return self.pipeline._execution_device

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PipelinePrompt:
        """Both texts, encoded once for all candidates. A text may be longer than the model can read; then the user is
        warned of the part that is left out.

        Raises:
            MasklessError: a negative prompt, if the family has none, or words with a weight.
        """
        if negative_prompt and not self._family.negative:
            raise MasklessError(f"{self._family.pipeline} has no negative prompt; leave --negative-prompt out")
        if is_weighted(prompt, negative_prompt):
            raise MasklessError(
                f"weights such as {NOTATION} work with Stable Diffusion 1.5, 2 and XL only, not with "
                f"{self._family.pipeline}; write the words without"
            )
        with self._encoding, quiet_libraries():
            texts = (self._readable(without_weights(prompt)), self._readable(without_weights(negative_prompt)))
            return PipelinePrompt(arguments=self._family.encode(self.pipeline, *texts), texts=texts)

    def _readable(self, text: str) -> str:
        """The part of a text that the model can read; a warning names the rest."""
        text, rest = self._family.split(self.pipeline, text)
        if rest:
            shown = rest if len(rest) <= SHOWN_LETTERS else f"{rest[:SHOWN_LETTERS]}…"
            warnings.warn(
                f"the text is too long for {self._family.pipeline}, which leaves out its end, {len(rest)} letters: "
                f"“{shown.strip()}”",
                MasklessWarning,
                stacklevel=3,
            )
        return text

    def draw_noise(self, seed: int, side_px: int | None = None) -> None:
        """None: the pipeline draws the noise from the seed itself."""

    @one_line_model_errors(FAILED)
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
        with self._in_float16 if self._dtype == torch.float16 else contextlib.nullcontext():
            drawn = self._draw(images, masks, prompt, sampling)
            if not is_finite(drawn) and self._dtype == torch.float16:
                networks = [part for part in self.pipeline.components.values() if isinstance(part, torch.nn.Module)]
                leave_float16([self.pipeline.transformer, *networks])
                drawn = self._draw(images, masks, self.encode_prompt(*prompt.texts), sampling)
        if not is_finite(drawn):
            raise not_finite(self._dtype)
        size = (images.shape[2], images.shape[3])
        if tuple(drawn.shape[2:]) != size:
            drawn = F.interpolate(drawn, size=size, mode="bicubic", antialias=True, align_corners=False)
        return (drawn.clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    @property
    def _dtype(self) -> torch.dtype:
        return self.pipeline.transformer.dtype

    def _draw(
        self, images: Float[Tensor, "N 3 S S"], masks: Float[Tensor, "N 1 S S"], prompt: PipelinePrompt,
        sampling: Sampling,
    ) -> Float[Tensor, "N 3 s s"]:  # fmt: skip
        """The drawn pictures in [0, 1], at the pipeline's own size."""
        if not self._family.reads_picture:
            return self._run_pipeline(images, masks, prompt, len(images), sampling)
        pairs = zip(images, masks, strict=True)
        return torch.cat(
            [self._run_pipeline(_to_pil(image[None]), mask[None], prompt, 1, sampling) for image, mask in pairs]
        )

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
        with quiet_libraries():
            output = pipeline(
                image=images,
                mask_image=masks,
                height=self.native_px,
                width=self.native_px,
                num_inference_steps=sampling.steps,
                strength=sampling.strength,
                generator=[torch.Generator().manual_seed(sampling.seed) for _ in range(count)],
                output_type="pt",
                callback_on_step_end=_step_completed,
                **{name: _repeated(value, count) for name, value in prompt.arguments.items()},
                **guidance,
            )
        return output.images.float()

    def _count(self, _module: Any, positional: Any, named: dict[str, Any], _output: Any) -> None:
        self.unet_forwards += len(named["hidden_states"] if "hidden_states" in named else positional[0])


def _step_completed(pipeline: Any, step: int, timestep: Any, changed: Any) -> dict[str, Any]:
    """What a pipeline calls after each step; it changes nothing."""
    step_completed(step + 1, pipeline.num_timesteps, timestep, changed.get("latents"))
    return {}


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide what diffusers and transformers log in a block for developers; their levels are restored afterwards."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)


def _repeated(value: Any, count: int) -> Any:
    """An argument for one picture, repeated for a batch of pictures."""
    if isinstance(value, Tensor):
        return value.expand(count, *value.shape[1:])
    return value * count if isinstance(value, list) else value


def _to_pil(image: Float[Tensor, "1 3 S S"]) -> list[Any]:
    from diffusers.image_processor import VaeImageProcessor

    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(image))
