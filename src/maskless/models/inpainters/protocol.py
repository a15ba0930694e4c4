"""The protocols of an inpainting model, and of one whose denoising can be controlled step by step. Method step 7."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.models.inpainters.denoising import Denoising, PromptEmbedding, Sampling


@runtime_checkable
class InpaintingModel(Protocol):
    """A model that repaints the masked part of square pictures.

    native_px: side in pixels of the pictures that it draws. cell_px: side in pixels of the square that one latent
    stands for. takes_picture: whether its input includes the content under the mask, which it redraws as the prompt
    describes. redraws_window: whether what it returns outside the mask is its own drawing as well, which may lie
    elsewhere than in the picture; False where the picture is restored there at each step, or given as known.
    follows_prompt: whether the prompt decides what it draws; else it continues the surroundings, each time
    in the same way. unet_forwards: calls of the denoiser so far, counted per picture. recommended_steps,
    recommended_guidance: what the model's folder or its scheduler recommends; None if nothing is recommended. denoiser:
    the same model as a Denoiser; None if it can only run from start to end.
    """

    pipeline: Any
    native_px: int
    cell_px: int
    takes_picture: bool
    redraws_window: bool
    follows_prompt: bool
    unet_forwards: int
    recommended_steps: int | None
    recommended_guidance: float | None

    @property
    def device(self) -> torch.device: ...

    @property
    def denoiser(self) -> Denoiser | None: ...

    def encode_prompt(self, prompt: str, negative_prompt: str = "") -> Any:
        """Both texts, encoded for the model. Call it once for all candidates."""

    def draw_noise(self, seed: int, side_px: int | None = None) -> Float[Tensor, "1 C h w"] | None:
        """The initial noise of a square of this side in pixels, native_px by default, at the size of its latents.

        It is None if the model draws the noise from the seed itself and cannot be given any.
        """

    def inpaint(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: Any,
        sampling: Sampling,
    ) -> UInt8[Tensor, "N 3 S S"]:
        """Repaint the masked part of each picture.

        Args:
            images: RGB in [0, 1], S = native_px.
            masks: 1 where to repaint, 0 where to keep. A Denoiser also takes values between them, see `SoftMask`.
            prompt: the result of `encode_prompt`.
            sampling: see `Sampling`.
        Returns:
            RGB 0..255 on the CPU. Outside the mask it is only approximately the input, so paste the masked part back.
        """


@runtime_checkable
class Denoiser(Protocol):
    """An inpainting model whose runs can be stopped between two steps, and that can predict their result."""

    def begin(
        self,
        images: Float[Tensor, "N 3 S S"],
        masks: Float[Tensor, "N 1 S S"],
        prompt: PromptEmbedding,
        sampling: Sampling,
    ) -> Denoising:
        """A run before its first step. The arguments are those of `inpaint`."""

    def advance(self, run: Denoising, steps: int | None = None) -> Denoising:
        """The run after this many more steps, or at its end. None makes all remaining steps."""

    def predict_clean(
        self,
        run: Denoising,
        noisy: Float[Tensor, "N C h w"],
        timestep: Tensor,
        prompt: PromptEmbedding,
        guidance_scale: float,
    ) -> Float[Tensor, "N C h w"]:
        """The clean latents that the model predicts from noisy ones.

        run: provides the mask, the surroundings and the scheduler. noisy: the UNet's input at this timestep.
        """

    def latents_of(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """The scaled latents of pictures in [-1, 1]."""

    def decode(self, latents: Float[Tensor, "N C h w"]) -> UInt8[Tensor, "N 3 S S"]:
        """The pictures of scaled latents, RGB 0..255 on the CPU."""

    def preview(self, latents: Float[Tensor, "N C h w"]) -> UInt8[Tensor, "3 S S"] | None:
        """The first picture of scaled latents, roughly, by the preview autoencoder, RGB 0..255 on the CPU; None if the
        model has none."""
