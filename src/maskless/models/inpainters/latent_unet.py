"""Inpainting by a UNet on latents: Stable Diffusion 1.5, 2 and XL, made for inpainting or not. Method step 7."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.clip import text_pieces
from maskless.models.inpainters.schedulers import choose_scheduler, set_steps, step_options
from maskless.models.inpainters.weighting import encode_weighted, is_weighted

WITH_MASK, WITH_PICTURE, WITHOUT_MASK = 9, 8, 4
"""Input channels of a UNet that is told the mask and the masked picture, of one that is told the whole picture
(InstructPix2Pix, arXiv 2211.09800), and of one that is told neither."""
REMEMBERED = 8
"""Batches of pictures whose latents are kept: tries of one fill, and its tiles, ask for the same again and again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptEmbedding:
    """What the denoiser is conditioned on, with and without the prompt; T is a whole number of contexts.

    pooled, negative_pooled: of SDXL's second text encoder; None for the others.
    """

    prompt: Float[Tensor, "1 T C"]
    negative: Float[Tensor, "1 T C"]
    pooled: Float[Tensor, "1 P"] | None = None
    negative_pooled: Float[Tensor, "1 P"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """A batch of pictures between two denoising steps, with all that the steps to come need.

    step: how many were taken, of len(timesteps). latents: as they are now. foreseen: the model's guess, at its last
    step, of how they will end. mask, known: at the latents' size, 1 where to repaint, and what is around it. noise:
    that they started from, one for all or one each.
    """

    step: int
    timesteps: Tensor
    latents: Float[Tensor, "N C h w"]
    foreseen: Float[Tensor, "N C h w"]
    mask: Float[Tensor, "N 1 h w"]
    known: Float[Tensor, "N C h w"]
    noise: Float[Tensor, "M C h w"]
    scheduler: Any
    prompt: PromptEmbedding
    guidance_scale: float
    seed: int

    @property
    def finished(self) -> bool:
        return self.step >= len(self.timesteps)

    def __getitem__(self, pictures: list[int]) -> Denoising:
        """The same run of some of its pictures only."""
        scheduler, count = copy.deepcopy(self.scheduler), len(self.latents)
        for name, value in vars(scheduler).items():
            if isinstance(value, list):
                setattr(scheduler, name, [_rows(each, pictures, count) for each in value])
            else:
                setattr(scheduler, name, _rows(value, pictures, count))
        parts = {name: getattr(self, name)[pictures] for name in ("latents", "foreseen", "mask", "known")}
        return replace(self, scheduler=scheduler, **parts)


class StableDiffusionInpainter:
    """The parts of a Stable Diffusion pipeline and a denoising loop on tensors.

    A UNet of 9 input channels is told the mask and the picture without what is under it, one of 8 the whole picture;
    for those of 8 and of 4 what is outside the mask is put back, noised as it should be, after each step.

    native_px: side of the square pictures it works on. cell_px: side of the square that one latent stands for.
    sees_picture: it is told what is under the mask. unet_forwards: denoiser calls so far, counted per picture.
    resumable: a run can be stopped between two steps, with `begin`, `advance` and `picture`.
    recommended_steps, recommended_guidance: what the model's folder or the scheduler advises; None where nothing does.
    """

    resumable = True

    def __init__(
        self,
        pipeline: Any,
        *,
        dtype: torch.dtype = torch.float32,
        scheduler: str | None = None,
        native_px: int | None = None,
        recommended_steps: int | None = None,
        recommended_guidance: float | None = None,
    ) -> None:
        """scheduler: a name of SCHEDULERS in place of the model's own. native_px: in place of the model's own."""
        channels = pipeline.unet.config.in_channels
        if channels not in (WITH_MASK, WITH_PICTURE, WITHOUT_MASK):
            raise MasklessError(
                f"an inpainting model must have a UNet of {WITH_MASK} input channels, of {WITH_PICTURE} where it edits "
                f"by instruction, or of {WITHOUT_MASK} where it was not made for either, got {channels}"
            )
        self.pipeline = pipeline
        self.vae = pipeline.vae.eval().requires_grad_(False)
        self.unet = pipeline.unet.to(dtype=dtype, memory_format=torch.channels_last).eval().requires_grad_(False)
        self._texts = _text_encoders(pipeline)
        self._told_mask, self.sees_picture = channels == WITH_MASK, channels == WITH_PICTURE
        self._scheduler = choose_scheduler(pipeline.scheduler, scheduler)
        self.cell_px = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.native_px = native_px or int(self.unet.config.sample_size) * self.cell_px
        whole = self.cell_px * 2 ** (len(self.unet.config.block_out_channels) - 1)
        if self.native_px % whole:
            raise MasklessError(f"native_px must be a multiple of {whole} for this model, got {self.native_px}")
        self.recommended_steps = recommended_steps
        self.recommended_guidance = recommended_guidance
        self.unet_forwards = 0
        self._remembered: OrderedDict[bytes, Tensor] = OrderedDict()

    @property
    def device(self) -> torch.device:
        return self.pipeline._execution_device

    @torch.no_grad()
    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> PromptEmbedding:
        """Both texts, once for all candidates. A text longer than the context is encoded in pieces laid end to end,
        so nothing is cut off; the shorter of the two is filled up with empty pieces. Weights are compel's to read."""
        if is_weighted(prompt, negative_prompt):
            return PromptEmbedding(**encode_weighted(self.pipeline, prompt, negative_prompt))
        hidden, pooled = [], None
        for tokenizer, encoder in self._texts:
            context = int(encoder.config.max_position_embeddings)
            texts = [text_pieces(tokenizer, text, context) for text in (prompt, negative_prompt)]
            longest = max(len(pieces) for pieces in texts)
            empty = text_pieces(tokenizer, "", context)
            both, pools = [], []
            for pieces in texts:
                ids = [piece.ids for piece in pieces + empty * (longest - len(pieces))]
                states, pool = self._encoded(encoder, torch.tensor(ids, device=self.device))
                both.append(states)
                pools.append(pool)
            hidden.append(both)
            pooled = pools
        if len(hidden) == 1:
            return PromptEmbedding(prompt=hidden[0][0], negative=hidden[0][1])
        longest = max(both[0].shape[1] for both in hidden)
        joined = [torch.cat([_filled(both[at], longest) for both in hidden], dim=-1) for at in (0, 1)]
        assert pooled is not None
        if not negative_prompt and self.pipeline.config.get("force_zeros_for_empty_prompt"):
            joined[1], pooled[1] = torch.zeros_like(joined[0]), torch.zeros_like(pooled[0])
        return PromptEmbedding(prompt=joined[0], negative=joined[1], pooled=pooled[0], negative_pooled=pooled[1])

    def _encoded(self, encoder: Any, ids: Tensor) -> tuple[Tensor, Any]:
        """The hidden states of all pieces end to end, [1, T, C], and the first one's pooled state, [1, P], for SDXL."""
        if len(self._texts) == 1:
            states, pooled = encoder(input_ids=ids).last_hidden_state, None
        else:
            output = encoder(input_ids=ids, output_hidden_states=True)
            states, pooled = output.hidden_states[-2], output[0][:1]
        return states.reshape(1, -1, states.shape[-1]), pooled

    def draw_noise(self, seed: int, side_px: int | None = None) -> Float[Tensor, "1 C h w"]:
        """The noise of all candidates of one image (mistake 9), on the CPU so that every device starts alike."""
        side = (side_px or self.native_px) // self.cell_px
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, int(self.vae.config.latent_channels), side, side, generator=generator)

    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        *,
        seed: int,
        steps: int,
        guidance_scale: float,
        strength: float = 1.0,
        noise: Float[Tensor, "M C h w"] | None = None,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture.

        Args:
            images: RGB in [0, 1], S = native_px. masks: 1 where to repaint, 0 where to keep.
            seed: of the noise; every picture starts from the same, in whatever batch it comes. noise: one or N instead.
            steps: denoising steps. guidance_scale: 1 does without the negative prompt, at half the cost.
            strength: share of the steps that are taken, above 0 and up to 1. Below 1 the masked part starts from the
                picture's own latents, noised to where those steps begin, and keeps its layout.
        Returns:
            RGB 0..255 on the CPU. What is outside the mask is only close to the input; paste the inside back.
        """
        how: dict[str, Any] = {"seed": seed, "steps": steps, "guidance_scale": guidance_scale, "strength": strength}
        return self.picture(self.advance(self.begin(images, masks, prompt, noise=noise, **how)))

    @torch.no_grad()
    def begin(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        *,
        seed: int,
        steps: int,
        guidance_scale: float,
        strength: float = 1.0,
        noise: Float[Tensor, "M C h w"] | None = None,
    ) -> Denoising:
        """A run before its first step; the arguments are those of `inpaint`."""
        scheduler = copy.deepcopy(self._scheduler)
        noise = (self.draw_noise(seed) if noise is None else noise).to(self.device)
        set_steps(scheduler, steps, self.device)
        timesteps, latents = self._start(scheduler, images, noise, strength)
        around = (images * 2 - 1) * (masks < 0.5) if self._told_mask else images * 2 - 1
        known = self.latents_of(around)
        return Denoising(
            step=0,
            timesteps=timesteps,
            latents=latents,
            foreseen=known,
            mask=F.interpolate(masks.to(self.device), size=known.shape[-2:]),
            known=known,
            noise=noise,
            scheduler=scheduler,
            prompt=prompt,
            guidance_scale=guidance_scale,
            seed=seed,
        )

    @torch.no_grad()
    def advance(self, run: Denoising, steps: int | None = None) -> Denoising:
        """The run after so many more steps, or at its end; the one given stays as it is and can be continued again.

        However often a run is stopped on its way, it ends with the same bits.
        """
        scheduler, count = copy.deepcopy(run.scheduler), len(run.latents)
        stop = len(run.timesteps) if steps is None else min(len(run.timesteps), run.step + steps)
        latents, foreseen = run.latents, run.foreseen
        for step in range(run.step, stop):
            timestep = run.timesteps[step]
            scaled = scheduler.scale_model_input(latents, timestep)
            prediction = self._predicted(run, scaled, timestep, run.prompt, run.guidance_scale)
            if step + 1 == stop < len(run.timesteps):
                foreseen = _foreseen(scheduler, prediction, timestep, scaled)
            options = step_options(scheduler, run.seed, step, count)
            latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
            if not self._told_mask:
                latents = _put_back(run, scheduler, latents, step + 1)
        return replace(run, step=max(stop, run.step), latents=latents, foreseen=foreseen, scheduler=scheduler)

    def foresee(
        self,
        run: Denoising,
        noisy: Float[Tensor, "N C h w"],
        timestep: Tensor,
        prompt: PromptEmbedding,
        guidance_scale: float,
    ) -> Float[Tensor, "N C h w"]:
        """The clean latents that the model sees in noisy ones, with the mask and surroundings of a run."""
        return _foreseen(run.scheduler, self._predicted(run, noisy, timestep, prompt, guidance_scale), timestep, noisy)

    def _predicted(
        self, run: Denoising, scaled: Tensor, timestep: Tensor, prompt: PromptEmbedding, guidance_scale: float
    ) -> Tensor:
        """The UNet's answer to scaled latents, guided."""
        guided = guidance_scale > 1 and not self._told_guidance
        conditioned = self._conditioned(prompt, len(scaled), guided, guidance_scale)
        inputs = torch.cat([scaled, *self._told(run)], dim=1)
        inputs = (torch.cat([inputs, inputs]) if guided else inputs).to(
            self.unet.dtype, memory_format=torch.channels_last
        )
        prediction = self.unet(inputs, timestep, **conditioned).sample.float()
        self.unet_forwards += inputs.shape[0]
        if not guided:
            return prediction
        plain, prompted = prediction.chunk(2)
        return plain + guidance_scale * (prompted - plain)

    def _told(self, run: Denoising) -> list[Tensor]:
        """What the UNet sees beside the noisy latents; InstructPix2Pix knows the picture's latents unscaled."""
        if self._told_mask:
            return [run.mask, run.known]
        return [run.known / self.vae.config.scaling_factor] if self.sees_picture else []

    @torch.no_grad()
    def picture(self, run: Denoising) -> UInt8[Tensor, "N 3 S S"]:
        """RGB 0..255 on the CPU: how the run ended, or on its way what the model foresees."""
        return self.decode(run.latents if run.finished else run.foreseen)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "N C h w"]) -> UInt8[Tensor, "N 3 S S"]:
        """RGB 0..255 on the CPU of scaled latents."""
        decoded = self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()
        return ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).cpu()

    @torch.no_grad()
    def encode(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """Unscaled latents of pictures in [-1, 1]: an AutoencoderKL's mode, an AutoencoderTiny's only ones."""
        encoded = self.vae.encode(pictures.to(self.vae.dtype))
        return (encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()).float()

    @property
    def _told_guidance(self) -> bool:
        """Whether the UNet takes the guidance scale as an input, as those distilled to few steps do."""
        return self.unet.config.time_cond_proj_dim is not None

    def _start(self, scheduler: Any, images: Tensor, noise: Tensor, strength: float) -> tuple[Tensor, Tensor]:
        """The timesteps to take and the latents to start from: pure noise, or the picture's latents noised in part."""
        noise = noise.expand(images.shape[0], -1, -1, -1)
        timesteps = scheduler.timesteps
        if strength >= 1:
            return timesteps, noise * scheduler.init_noise_sigma
        first = len(timesteps) - max(1, round(len(timesteps) * strength))
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        latents = self.latents_of(images * 2 - 1)
        return timesteps[first:], scheduler.add_noise(latents, noise, timesteps[first].expand(images.shape[0]))

    @torch.no_grad()
    def latents_of(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """Scaled latents of pictures in [-1, 1]; a batch seen lately is not encoded again.

        By whole batches: then what a picture gives can never hang on what came before it.
        """
        content = pictures.detach().cpu().contiguous()
        key = hashlib.blake2b(content.reshape(-1).numpy(), digest_size=16).digest() + bytes(str(content.shape), "ascii")
        if key not in self._remembered:
            self._remembered[key] = self.encode(pictures.to(self.device)) * self.vae.config.scaling_factor
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(key)
        return self._remembered[key]

    def _conditioned(self, prompt: PromptEmbedding, count: int, guided: bool, guidance_scale: float) -> dict[str, Any]:
        """The UNet's further arguments: texts, and where it takes them SDXL's sizes or the guidance scale."""

        def stacked(plain: Tensor, prompted: Tensor) -> Tensor:
            rows = prompted.expand(count, *prompted.shape[1:])
            return torch.cat([plain.expand(count, *plain.shape[1:]), rows]) if guided else rows

        dtype = self.unet.dtype
        given: dict[str, Any] = {"encoder_hidden_states": stacked(prompt.negative, prompt.prompt).to(dtype)}
        if prompt.pooled is not None and prompt.negative_pooled is not None:
            pooled = stacked(prompt.negative_pooled, prompt.pooled).to(dtype)
            size = float(self.native_px)
            sizes = torch.tensor([[size, size, 0.0, 0.0, size, size]], device=self.device, dtype=dtype)
            given["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": sizes.expand(len(pooled), -1)}
        if self._told_guidance:
            scale = torch.tensor([guidance_scale - 1.0]).expand(count)
            width = int(self.unet.config.time_cond_proj_dim)
            embedded = self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=width)
            given["timestep_cond"] = embedded.to(self.device, dtype)
        return given


def _text_encoders(pipeline: Any) -> list[tuple[Any, Any]]:
    """(tokenizer, text encoder), one pair or SDXL's two."""
    pairs = [(pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        pairs.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    if any(encoder is None for _tokenizer, encoder in pairs):
        raise MasklessError("the model lacks a text encoder; SDXL's refiner, for one, does not inpaint alone")
    return [(tokenizer, encoder.eval().requires_grad_(False)) for tokenizer, encoder in pairs]


def _filled(states: Tensor, length: int) -> Tensor:
    return F.pad(states, (0, 0, 0, length - states.shape[1]))


def _put_back(run: Denoising, scheduler: Any, latents: Tensor, step: int) -> Tensor:
    """The latents with those outside the mask replaced by the picture's own, noised as they should be at this step."""
    known = run.known
    if step < len(run.timesteps):
        noise = run.noise.expand(len(known), -1, -1, -1)
        known = scheduler.add_noise(known, noise, run.timesteps[step].expand(len(known)))
    return (1 - run.mask) * known + run.mask * latents


def _foreseen(scheduler: Any, prediction: Tensor, timestep: Tensor, scaled: Tensor) -> Tensor:
    """The clean latents that a prediction stands for. scaled: the UNet's input, which is sqrt(a) clean + sqrt(1 - a)
    noise for every scheduler here; a as in eq. 4 of DDPM, arXiv 2006.11239."""
    a = scheduler.alphas_cumprod[int(timestep)].to(scaled)
    kind = scheduler.config.prediction_type
    if kind == "sample":
        return prediction
    if kind == "v_prediction":
        return a.sqrt() * scaled - (1 - a).sqrt() * prediction
    return (scaled - (1 - a).sqrt() * prediction) / a.sqrt()


def _rows(value: Any, rows: list[int], count: int) -> Any:
    """Some rows of what a scheduler remembers of a batch of latents; anything else as it is."""
    return value[rows] if isinstance(value, Tensor) and value.ndim == 4 and len(value) == count else value
