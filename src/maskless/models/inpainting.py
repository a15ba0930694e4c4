"""The inpainting model, frozen: Stable Diffusion's inpainting form behind one small class. Method step 7."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.clip import text_pieces
from maskless.models.memory import execution_device

DETERMINISTIC = (
    "DDIMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers that draw no noise of their own. Another one would give each candidate its own noise, so DDIM, which reads
the same settings, takes its place."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptEmbedding:
    """What the denoiser is conditioned on, with and without the prompt; T is a whole number of contexts."""

    prompt: Float[Tensor, "1 T C"]
    negative: Float[Tensor, "1 T C"]


class InpaintingModel(Protocol):
    """What the engine asks of an inpainting model."""

    native_px: int
    unet_forwards: int

    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PromptEmbedding: ...

    def draw_noise(self, seed: int) -> Float[Tensor, "1 C h w"]: ...

    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        *,
        noise: Float[Tensor, "1 C h w"],
        steps: int,
        guidance_scale: float,
        strength: float = 1.0,
    ) -> UInt8[Tensor, "N 3 S S"]: ...


class StableDiffusionInpainter:
    """The parts of a StableDiffusionInpaintPipeline and a denoising loop on tensors.

    native_px: side of the square pictures it works on. unet_forwards: denoiser calls so far, counted per picture.
    recommended_steps, recommended_guidance: what the model's folder advises; None where it says nothing.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        dtype: torch.dtype = torch.float32,
        recommended_steps: int | None = None,
        recommended_guidance: float | None = None,
    ) -> None:
        channels = pipeline.unet.config.in_channels
        if channels != 9:
            raise MasklessError(f"an inpainting model must have a UNet of 9 input channels, got {channels}")
        self.vae = pipeline.vae.eval().requires_grad_(False)
        self.unet = pipeline.unet.to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
        self.text_encoder = pipeline.text_encoder.eval().requires_grad_(False)
        self.tokenizer = pipeline.tokenizer
        self._scheduler = _without_noise(pipeline.scheduler)
        self._factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.native_px = int(self.unet.config.sample_size) * self._factor
        self.recommended_steps = recommended_steps
        self.recommended_guidance = recommended_guidance
        self.unet_forwards = 0

    @property
    def device(self) -> torch.device:
        return execution_device(self.unet)

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PromptEmbedding:
        """Both texts, once for all candidates. A text longer than the context is encoded in pieces laid end to end,
        so nothing is cut off; the shorter of the two is filled up with empty pieces."""
        context = int(self.text_encoder.config.max_position_embeddings)
        texts = [text_pieces(self.tokenizer, text, context) for text in (prompt, negative_prompt)]
        longest = max(len(pieces) for pieces in texts)
        empty = text_pieces(self.tokenizer, "", context)
        encoded = []
        for pieces in texts:
            ids = [piece.ids for piece in pieces + empty * (longest - len(pieces))]
            hidden = self.text_encoder(input_ids=torch.tensor(ids, device=self.device)).last_hidden_state
            encoded.append(hidden.reshape(1, -1, hidden.shape[-1]))
        return PromptEmbedding(prompt=encoded[0], negative=encoded[1])

    def draw_noise(self, seed: int) -> Float[Tensor, "1 C h w"]:
        """The noise of all candidates of one image (mistake 9), on the CPU so that every device starts alike."""
        side = self.native_px // self._factor
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, int(self.vae.config.latent_channels), side, side, generator=generator)

    @torch.no_grad()
    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        *,
        noise: Float[Tensor, "1 C h w"],
        steps: int,
        guidance_scale: float,
        strength: float = 1.0,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture.

        Args:
            images: RGB in [0, 1], S = native_px. masks: 1 where to repaint, 0 where to keep.
            noise: from `draw_noise`; every picture starts from it, in whatever batch it comes.
            steps: denoising steps. guidance_scale: 1 does without the negative prompt, at half the cost.
            strength: share of the steps that are taken, above 0 and up to 1. Below 1 the masked part starts from the
                picture's own latents, noised to where those steps begin, and keeps its layout.
        Returns:
            RGB 0..255 on the CPU. What is outside the mask is only close to the input; paste the inside back.
        """
        count = images.shape[0]
        scheduler = copy.deepcopy(self._scheduler)
        scheduler.set_timesteps(steps, device=self.device)
        timesteps, latents = self._begin(scheduler, images, noise, strength)
        condition = self._condition(images.to(self.device), masks.to(self.device))
        guided = guidance_scale > 1
        embedding = prompt.prompt.expand(count, -1, -1)
        if guided:
            embedding = torch.cat([prompt.negative.expand(count, -1, -1), embedding])
            condition = torch.cat([condition, condition])
        embedding = embedding.to(self.unet.dtype)
        for timestep in timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            stacked = torch.cat([scaled, scaled]) if guided else scaled
            inputs = torch.cat([stacked, condition], dim=1).to(self.unet.dtype, memory_format=torch.channels_last)
            prediction = self.unet(inputs, timestep, encoder_hidden_states=embedding).sample.float()
            self.unet_forwards += inputs.shape[0]
            if guided:
                plain, prompted = prediction.chunk(2)
                prediction = plain + guidance_scale * (prompted - plain)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return self._decode(latents)

    def _begin(self, scheduler: Any, images: Tensor, noise: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """The timesteps to take and the latents to start from: pure noise, or the picture's latents noised in part."""
        noise = noise.to(self.device).expand(images.shape[0], -1, -1, -1)
        timesteps = scheduler.timesteps
        if strength >= 1:
            return timesteps, noise * scheduler.init_noise_sigma
        first = len(timesteps) - max(1, round(len(timesteps) * strength))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        latents = self.encode(images.to(self.device) * 2 - 1) * self.vae.config.scaling_factor
        return timesteps[first:], scheduler.add_noise(latents, noise, timesteps[first].expand(images.shape[0]))

    def _condition(self, images: Tensor, masks: Tensor) -> Tensor:
        """The mask, at the latents' size, and the latents of the picture with its masked part grey: [N, 5, h, w]."""
        grey = (images * 2 - 1) * (masks < 0.5)
        latents = self.encode(grey) * self.vae.config.scaling_factor
        return torch.cat([F.interpolate(masks, size=latents.shape[-2:]), latents], dim=1)

    def encode(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """Unscaled latents of pictures in [-1, 1]: an AutoencoderKL's mode, an AutoencoderTiny's only ones."""
        encoded = self.vae.encode(pictures.to(self.vae.dtype))
        return (encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()).float()

    def _decode(self, latents: Tensor) -> Tensor:
        decoded = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()
        return ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def _without_noise(scheduler: Any) -> Any:
    """The model's own scheduler where it draws no noise, else DDIM with its settings."""
    if type(scheduler).__name__ in DETERMINISTIC and "sde" not in str(scheduler.config.get("algorithm_type", "")):
        return scheduler
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(scheduler.config)


def load_pipeline(source: str, *, allow_pickle: bool = False) -> Any:
    """A StableDiffusionInpaintPipeline from a folder, in float32, without its safety checker. allow_pickle: also read
    weights that are not safetensors."""
    from diffusers import StableDiffusionInpaintPipeline

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(
        source,
        safety_checker=None,
        requires_safety_checker=False,
        low_cpu_mem_usage=False,
        use_safetensors=None if allow_pickle else True,
        local_files_only=True,
    )
    return pipeline.to(dtype=torch.float32)
