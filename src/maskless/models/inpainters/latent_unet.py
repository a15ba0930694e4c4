"""Inpainting with a UNet on latents: Stable Diffusion 1.5, 2 and XL, trained for inpainting or not. Method step 7."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.inpainters.denoising import (
    Denoising,
    PromptEmbedding,
    Sampling,
    SoftMask,
    restore_outside,
    step_completed,
)
from maskless.models.inpainters.overflow import is_finite, leave_float16, not_finite
from maskless.models.inpainters.previews import PreviewDecoder
from maskless.models.inpainters.schedulers import choose_scheduler, clean_latents, set_steps, start_at, step_options
from maskless.models.inpainters.weighting import WeightedPiece, weighted_pieces, with_weights
from maskless.models.memory import execution_device
from maskless.models.parts import one_line_model_errors

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, DiffusionPipeline, SchedulerMixin

WITH_MASK, WITH_PICTURE, WITHOUT_MASK = 9, 8, 4
"""Numbers of input channels: of a UNet whose input includes the mask and the masked picture, of one whose input
includes the whole picture (InstructPix2Pix, arXiv 2211.09800), and of one with neither."""
FAILED = "the inpainting model cannot be computed, its settings and files do not fit together"
CACHED_BATCHES = 8
"""Number of batches of pictures whose latents are kept, because all candidates of a fill encode the same pictures."""


class StableDiffusionInpainter:
    """The parts of a Stable Diffusion pipeline and a denoising loop on tensors.

    A UNet with 9 input channels gets the mask and the picture without its masked part, one with 8 gets the whole
    picture. With 8 or 4 channels, the latents outside the mask are replaced after each step by those of the picture at
    the noise level of that step.

    The attributes are those of InpaintingModel.
    """

    follows_prompt, redraws_window = True, False

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        *,
        dtype: torch.dtype = torch.float32,
        scheduler: str | None = None,
        native_px: int | None = None,
        recommended_steps: int | None = None,
        recommended_guidance: float | None = None,
        preview_vae: AutoencoderTiny | None = None,
    ) -> None:
        """dtype: number format of the UNet. scheduler: a name of SCHEDULERS. The scheduler and native_px replace the
        model's own. preview_vae: a small autoencoder of the same latents, for `preview` alone."""
        channels = pipeline.unet.config.in_channels
        if channels not in (WITH_MASK, WITH_PICTURE, WITHOUT_MASK):
            raise MasklessError(
                f"an inpainting model must have a UNet with {WITH_MASK} input channels, with {WITH_PICTURE} if it "
                f"follows instructions, or with {WITHOUT_MASK} if it was trained for neither, got {channels}"
            )
        self.pipeline = pipeline
        self.vae = pipeline.vae.eval().requires_grad_(False)
        self.unet = pipeline.unet.to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
        self._dtype = self.unet.dtype  # diffusers looks through all modules for it
        self._texts = _text_encoders(pipeline)
        self._takes_mask, self.takes_picture = channels == WITH_MASK, channels == WITH_PICTURE
        self._scheduler = choose_scheduler(pipeline.scheduler, scheduler)
        self.cell_px = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.native_px = native_px or int(self.unet.config.sample_size) * self.cell_px
        whole = self.cell_px * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if self.native_px % whole:
            raise MasklessError(f"native_px must be a multiple of {whole} for this model, got {self.native_px}")
        self.recommended_steps, self.recommended_guidance = recommended_steps, recommended_guidance
        self.unet_forwards = 0
        self._statistics = _latent_statistics(self.vae)
        self._previews = None if preview_vae is None else PreviewDecoder(preview_vae, self.vae, cell_px=self.cell_px)
        # Another thread must not use the UNet while it changes its number format.
        self._in_float16 = threading.Lock()
        self._latents_cache: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def device(self) -> torch.device:
        return execution_device(self.unet)  # the pipeline's own property looks through all modules, for 5 ms

    @property
    def denoiser(self) -> StableDiffusionInpainter:
        """This model itself, whose steps `begin` and `advance` control."""
        return self

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PromptEmbedding:
        """Both texts, encoded once for all candidates.

        A text longer than the context is encoded in pieces, whose hidden states are concatenated, so that nothing is
        cut off (mistake 12). The shorter of the two texts is padded with empty pieces. Words can have weights; see
        weighting.py.
        """
        hidden, pooled = [], None
        for tokenizer, encoder in self._texts:
            context = int(encoder.config.max_position_embeddings)
            texts = [weighted_pieces(tokenizer, text, context) for text in (prompt, negative_prompt)]
            longest = max(len(pieces) for pieces in texts)
            empty = weighted_pieces(tokenizer, "", context)
            encoded = [
                self._encode_pieces(encoder, pieces + empty * (longest - len(pieces)), empty) for pieces in texts
            ]
            hidden.append([states for states, _pool in encoded])
            pooled = [pool for _states, pool in encoded]
        if len(hidden) == 1:
            return PromptEmbedding(prompt=hidden[0][0], negative=hidden[0][1])
        longest = max(both[0].shape[1] for both in hidden)
        joined = [torch.cat([_zero_padded(both[at], longest) for both in hidden], dim=-1) for at in (0, 1)]
        assert pooled is not None
        if not negative_prompt and self.pipeline.config.get("force_zeros_for_empty_prompt"):
            joined[1], pooled[1] = torch.zeros_like(joined[0]), torch.zeros_like(pooled[0])
        return PromptEmbedding(prompt=joined[0], negative=joined[1], pooled=pooled[0], negative_pooled=pooled[1])

    def _encode_pieces(
        self, encoder: Any, pieces: list[WeightedPiece], empty: list[WeightedPiece]
    ) -> tuple[Tensor, Any]:
        """The concatenated hidden states of all pieces [1, T, C] and, for SDXL, the first's pooled state [1, P].

        empty: the one piece of an empty text, from which weights lead away.
        """
        states, pooled = self._hidden_states(encoder, pieces)
        if any(weight != 1 for piece in pieces for weight in piece.weights):
            states = with_weights(states, self._hidden_states(encoder, empty)[0], pieces)
        return states.reshape(1, -1, states.shape[-1]), pooled

    def _hidden_states(self, encoder: Any, pieces: list[WeightedPiece]) -> tuple[Tensor, Any]:
        """The hidden states of each piece [N, T, C] and, for SDXL, the first's pooled state [1, P]."""
        ids = torch.tensor([piece.ids for piece in pieces], device=self.device)
        if len(self._texts) == 1:
            return encoder(input_ids=ids).last_hidden_state, None
        output = encoder(input_ids=ids, output_hidden_states=True)
        return output.hidden_states[-2], output[0][:1]

    def draw_noise(self, seed: int, side_px: int | None = None) -> Float[Tensor, "1 C h w"]:
        """The noise of all candidates of one image (mistake 9), drawn on the CPU, so the same for every device."""
        side = (side_px or self.native_px) // self.cell_px
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, int(self.vae.config.latent_channels), side, side, generator=generator)

    @one_line_model_errors(FAILED)
    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        sampling: Sampling,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture; see InpaintingModel.inpaint."""
        return self.picture(self.advance(self.begin(images, masks, prompt, sampling)))

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def begin(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        sampling: Sampling,
    ) -> Denoising:
        """A run before its first step. The arguments are those of `inpaint`."""
        scheduler = copy.deepcopy(self._scheduler)
        noise = (self.draw_noise(sampling.seed) if sampling.noise is None else sampling.noise).to(self.device)
        set_steps(scheduler, sampling.steps, self.device)
        timesteps, latents = self._start(scheduler, images, noise, sampling)
        around = (images * 2 - 1) * (masks <= 0) if self._takes_mask else images * 2 - 1
        known = self.latents_of(around)
        amount = F.interpolate(masks.to(self.device), size=known.shape[-2:])
        between = bool(((amount > 0) & (amount < 1)).any())
        return Denoising(
            step=0,
            timesteps=timesteps,
            latents=latents,
            clean_latents=known,
            mask=(amount > 0).to(amount),
            known=known,
            noise=noise,
            scheduler=scheduler,
            prompt=prompt,
            guidance_scale=sampling.guidance_scale,
            seed=sampling.seed,
            soft=SoftMask(amount=amount, source=self.latents_of(images * 2 - 1)) if between else None,
        )

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def advance(self, run: Denoising, steps: int | None = None) -> Denoising:
        """The run after this many more steps, or at its end; None makes all remaining steps.

        The given run does not change and can be continued again. The result does not depend on how often a run is
        stopped: it is the same bit for bit.
        """
        scheduler, count = copy.deepcopy(run.scheduler), len(run.latents)
        stop = len(run.timesteps) if steps is None else min(len(run.timesteps), run.step + steps)
        latents, clean = run.latents, run.clean_latents
        for step in range(run.step, stop):
            timestep = run.timesteps[step]
            scaled = scheduler.scale_model_input(latents, timestep)
            prediction = self._predict(run, scaled, timestep, run.prompt, run.guidance_scale)
            if step + 1 == stop < len(run.timesteps):
                clean = clean_latents(scheduler, prediction, timestep, scaled)
            options = step_options(scheduler, run.seed, step, count)
            latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
            if run.soft is not None or not self._takes_mask:
                latents = restore_outside(run, scheduler, latents, step + 1)
            predicted = partial(self._predicted, scheduler, prediction, timestep, scaled)
            step_completed(step + 1, len(run.timesteps), timestep, latents, predicted)
        return replace(run, step=max(stop, run.step), latents=latents, clean_latents=clean, scheduler=scheduler)

    @one_line_model_errors(FAILED)
    def predict_clean(
        self,
        run: Denoising,
        noisy: Float[Tensor, "N C h w"],
        timestep: Tensor,
        prompt: PromptEmbedding,
        guidance_scale: float,
    ) -> Float[Tensor, "N C h w"]:
        """The clean latents that the model predicts from noisy ones, with the mask and surroundings of a run."""
        return clean_latents(
            run.scheduler, self._predict(run, noisy, timestep, prompt, guidance_scale), timestep, noisy
        )

    def _predict(
        self, run: Denoising, scaled: Tensor, timestep: Tensor, prompt: PromptEmbedding, guidance_scale: float
    ) -> Tensor:
        """The UNet's prediction for scaled latents. If it overflows in float16, the UNet leaves float16 for good."""
        half = self._dtype == torch.float16
        with self._in_float16 if half else nullcontext():
            prediction = self._guided(run, scaled, timestep, prompt, guidance_scale)
            if half and self._dtype == torch.float16 and not is_finite(prediction):
                self._dtype = leave_float16([self.unet])
                prediction = self._guided(run, scaled, timestep, prompt, guidance_scale)
        return prediction

    def _guided(
        self, run: Denoising, scaled: Tensor, timestep: Tensor, prompt: PromptEmbedding, guidance_scale: float
    ) -> Tensor:
        """The UNet's prediction for scaled latents, with classifier-free guidance (arXiv 2207.12598)."""
        guided = guidance_scale > 1 and not self._takes_guidance
        arguments = self._unet_arguments(prompt, len(scaled), guided, guidance_scale)
        inputs = torch.cat([scaled, *self._extra_channels(run)], dim=1)
        dtype = arguments["encoder_hidden_states"].dtype
        inputs = (torch.cat([inputs, inputs]) if guided else inputs).to(dtype, memory_format=torch.channels_last)
        prediction = self.unet(inputs, timestep, **arguments).sample.float()
        self.unet_forwards += inputs.shape[0]
        if not guided:
            return prediction
        negative, prompted = prediction.chunk(2)
        return negative + guidance_scale * (prompted - negative)

    def _extra_channels(self, run: Denoising) -> list[Tensor]:
        """The other input channels: mask and surroundings, or for InstructPix2Pix the picture's unscaled latents."""
        if self._takes_mask:
            return [run.mask, run.known]
        return [self._unscaled(run.known)] if self.takes_picture else []

    @torch.no_grad()
    def picture(self, run: Denoising) -> UInt8[Tensor, "N 3 S S"]:
        """The result of a finished run, or else the prediction of it at its last step; RGB 0..255 on the CPU."""
        return self.decode(run.latents if run.finished else run.clean_latents)

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "N C h w"]) -> UInt8[Tensor, "N 3 S S"]:
        """The pictures of scaled latents, RGB 0..255 on the CPU.

        Raises:
            MasklessError: the latents or the autoencoder's pictures contain NaN.
        """
        decoded = self.vae.decode(self._unscaled(latents).to(self.vae.dtype)).sample.float()
        if not is_finite(decoded):
            raise not_finite(self._dtype)
        return ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    @torch.no_grad()
    def preview(self, latents: Float[Tensor, "N C h w"]) -> UInt8[Tensor, "3 S S"] | None:
        """The first picture of scaled latents, roughly, by the preview autoencoder; None without one."""
        return None if self._previews is None else self._previews.picture(self._unscaled(latents[:1]))

    def _predicted(self, scheduler: SchedulerMixin, prediction: Tensor, timestep: Tensor, scaled: Tensor) -> Any:
        return None if self._previews is None else self.preview(clean_latents(scheduler, prediction, timestep, scaled))

    @torch.no_grad()
    def encode(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """The unscaled latents of pictures in [-1, 1]; of an AutoencoderKL, the mode of their distribution."""
        encoded = self.vae.encode(pictures.to(self.vae.dtype))
        return (encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()).float()

    def _unscaled(self, latents: Tensor) -> Tensor:
        """Scaled latents as the autoencoder decodes them."""
        latents = latents / self.vae.config.scaling_factor
        if self._statistics is None:
            return latents
        mean, deviation = (each.to(latents) for each in self._statistics)
        return latents * deviation + mean

    @property
    def _takes_guidance(self) -> bool:
        """Whether the guidance scale is an input of the UNet, as it is of those distilled to few steps."""
        return self.unet.config.time_cond_proj_dim is not None

    def _start(
        self, scheduler: SchedulerMixin, images: Tensor, noise: Tensor, sampling: Sampling
    ) -> tuple[Tensor, Tensor]:
        """The timesteps of a run and its initial latents: pure noise, or the noised latents of the pictures."""
        noise = noise.expand(images.shape[0], -1, -1, -1)
        if sampling.strength >= 1:
            return scheduler.timesteps, noise * scheduler.init_noise_sigma
        timesteps, latents = start_at(scheduler, sampling.steps, sampling.strength), self.latents_of(images * 2 - 1)
        return timesteps, scheduler.add_noise(latents, noise, timesteps[0].expand(images.shape[0]))

    @one_line_model_errors(FAILED)
    @torch.no_grad()
    def latents_of(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """The scaled latents of pictures in [-1, 1]. The latents of recent batches are kept and not computed again.

        The cache holds whole batches, so that the latents of a picture never depend on earlier calls: the autoencoder's
        rounding may differ with the size of the batch.
        """
        content = pictures.detach().cpu().contiguous()
        digest = hashlib.blake2b(content.reshape(-1).numpy().data, digest_size=16).digest()
        key = digest + bytes(str(content.shape), "ascii")
        if key not in self._latents_cache:
            latents = self.encode(pictures.to(self.device))
            if self._statistics is not None:
                mean, deviation = (each.to(latents) for each in self._statistics)
                latents = (latents - mean) / deviation
            self._latents_cache[key] = latents * self.vae.config.scaling_factor
            if len(self._latents_cache) > CACHED_BATCHES:
                self._latents_cache.popitem(last=False)
        self._latents_cache.move_to_end(key)
        return self._latents_cache[key]

    def _unet_arguments(
        self, prompt: PromptEmbedding, count: int, guided: bool, guidance_scale: float
    ) -> dict[str, Any]:
        """Further arguments of the UNet: the texts and, if it has these inputs, SDXL's sizes or the guidance scale."""

        def stacked(negative: Tensor, prompted: Tensor) -> Tensor:
            rows = prompted.expand(count, *prompted.shape[1:])
            return torch.cat([negative.expand(count, *negative.shape[1:]), rows]) if guided else rows

        dtype = self._dtype
        arguments: dict[str, Any] = {"encoder_hidden_states": stacked(prompt.negative, prompt.prompt).to(dtype)}
        if prompt.pooled is not None and prompt.negative_pooled is not None:
            pooled = stacked(prompt.negative_pooled, prompt.pooled).to(dtype)
            size = float(self.native_px)
            sizes = torch.tensor([[size, size, 0.0, 0.0, size, size]], device=self.device, dtype=dtype)
            arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
        if self._takes_guidance:
            scale = torch.tensor([guidance_scale - 1.0]).expand(count)
            width = int(self.unet.config.time_cond_proj_dim)
            embedded = self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
            arguments["timestep_cond"] = embedded.to(self.device, dtype)
        return arguments


def _text_encoders(pipeline: DiffusionPipeline) -> list[tuple[Any, Any]]:
    """The pairs of tokenizer and text encoder: one, or two for SDXL."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    if any(encoder is None for _tokenizer, encoder in pairs):
        raise MasklessError("the model lacks a text encoder; SDXL's refiner, for example, cannot inpaint alone")
    return [(tokenizer, encoder.eval().requires_grad_(False)) for tokenizer, encoder in pairs]


def _latent_statistics(vae: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each channel of the autoencoder's latents, [1, C, 1, 1], by which they are
    standardised before they are scaled; None if its configuration has none."""
    mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is None or deviation is None:
        return None
    return torch.tensor(mean).reshape(1, -1, 1, 1), torch.tensor(deviation).reshape(1, -1, 1, 1)


def _zero_padded(states: Tensor, length: int) -> Tensor:
    """Hidden states [1, T, C] padded with zeros to [1, length, C]."""
    return F.pad(states, (0, 0, 0, length - states.shape[1]))
