"""The parameters and the state of a denoising run: its sampling, what it is conditioned on, and its latents."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.errors import EditCancelled

OnStep = Callable[[int, int], bool | None]
"""Called after each denoising step with its number, from 1, and the number of steps of the drawing. It cancels the edit
if it returns True."""
_ON_STEP: ContextVar[OnStep | None] = ContextVar("on_step", default=None)
_AT: ContextVar[tuple[Tensor | None, Tensor | None]] = ContextVar("at", default=(None, None))
Predicted = Callable[[], UInt8[Tensor, "3 S S"] | None]
"""Computes the picture that a model expects to end at, RGB 0..255; None if it has no preview autoencoder."""
_PREDICTED: ContextVar[Predicted | None] = ContextVar("predicted", default=None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampling:
    """How a model samples its pictures.

    seed: seed of the noise; every picture starts from the same noise, whatever batch it is in. steps: number of
    denoising steps from pure noise. guidance_scale: scale of classifier-free guidance; at 1 the negative prompt is not
    used, at half the cost. strength: share of the steps that are made, above 0 and up to 1. Below 1 the masked part
    starts from the picture's own latents, noised to the level at which those steps begin, and so keeps its layout.
    noise: the initial noise of all pictures (M = 1) or of each (M = N), in the format of `draw_noise`, instead of that
    of the seed.
    """

    seed: int
    steps: int
    guidance_scale: float
    strength: float = 1.0
    noise: Float[Tensor, "M C h w"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptEmbedding:
    """The embeddings that the denoiser is conditioned on. T is a multiple of the text encoder's context.

    prompt, negative: hidden states of the prompt and of the negative prompt. pooled, negative_pooled: pooled states of
    SDXL's second text encoder; None for other models.
    """

    prompt: Float[Tensor, "1 T C"]
    negative: Float[Tensor, "1 T C"]
    pooled: Float[Tensor, "1 P"] | None = None
    negative_pooled: Float[Tensor, "1 P"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SoftMask:
    """Masks with values between 0 and 1, by differential diffusion (arXiv 2306.00950): a pixel of value v keeps the
    picture's own content, noised, until only the share v of the steps is left, and is free from then on.

    amount: the values, 0 to 1. source: the clean latents of the whole pictures.
    """

    amount: Float[Tensor, "N 1 h w"]
    source: Float[Tensor, "N C h w"]

    def __getitem__(self, pictures: list[int]) -> SoftMask:
        """The masks of some pictures only."""
        return SoftMask(amount=self.amount[pictures], source=self.source[pictures])

    def free(self, steps_done: int, steps: int) -> Float[Tensor, "N 1 h w"]:
        """1 where the latents may differ from the picture's after this many of the steps, else 0."""
        return (self.amount > 1 - steps_done / steps).to(self.amount)


@dataclass(frozen=True, kw_only=True, eq=False)
class Denoising:
    """A batch of pictures between two denoising steps, with everything that the remaining steps need.

    step: number of completed steps, of len(timesteps). latents: the present latents. clean_latents: the clean latents
    that the model predicted in the latest `advance` that did not finish the run; `known` before the first one. mask:
    1 where to repaint, 0 where to keep. known: the latents of the picture, without its masked part if the UNet takes a
    mask. noise: the initial noise, one for all pictures or one for each. soft: of masks with values
    between 0 and 1; None for masks of 0 and 1.
    """

    step: int
    timesteps: Tensor
    latents: Float[Tensor, "N C h w"]
    clean_latents: Float[Tensor, "N C h w"]
    mask: Float[Tensor, "N 1 h w"]
    known: Float[Tensor, "N C h w"]
    noise: Float[Tensor, "M C h w"]
    scheduler: Any
    prompt: PromptEmbedding
    guidance_scale: float
    seed: int
    soft: SoftMask | None = None

    @property
    def finished(self) -> bool:
        return self.step >= len(self.timesteps)

    def __getitem__(self, pictures: list[int]) -> Denoising:
        """The same run for some of its pictures only."""
        scheduler, count = copy.deepcopy(self.scheduler), len(self.latents)
        for name, value in vars(scheduler).items():
            if isinstance(value, list):
                setattr(scheduler, name, [_rows(each, pictures, count) for each in value])
            else:
                setattr(scheduler, name, _rows(value, pictures, count))
        parts = {name: getattr(self, name)[pictures] for name in ("latents", "clean_latents", "mask", "known")}
        soft = None if self.soft is None else self.soft[pictures]
        return replace(self, scheduler=scheduler, soft=soft, **parts)


def _rows(value: Any, rows: list[int], count: int) -> Any:
    """The given rows of a batch of latents that a scheduler keeps. Other values are returned unchanged."""
    return value[rows] if isinstance(value, Tensor) and value.ndim == 4 and len(value) == count else value


@contextmanager
def watched(on_step: OnStep | None) -> Iterator[None]:
    """Call a function after each denoising step that this thread makes in a block; None calls nothing.

    with watched(lambda step, total: stop.is_set()):
        result = run.result()  # raises EditCancelled when the function returns True; a later call continues the run
    """
    before = _ON_STEP.set(on_step)
    try:
        yield
    finally:
        _ON_STEP.reset(before)


def completed_step() -> tuple[Tensor | None, Tensor | None]:
    """The timestep of the denoising step that was completed last, and the latents after it, each None if the model does
    not say it. For the function that `watched` calls."""
    return _AT.get()


def predicted_picture() -> UInt8[Tensor, "3 S S"] | None:
    """What the first of the pictures that are being drawn is expected to become, RGB 0..255 on the CPU: the prediction
    at the denoising step that was completed last, decoded by the preview autoencoder.

    It is None if the model has no preview autoencoder. It is computed at each call; where nobody calls it, nothing is.
    For the function that `watched` calls.
    """
    predicted = _PREDICTED.get()
    return None if predicted is None else predicted()


def step_completed(
    step: int,
    total: int,
    timestep: Tensor | None = None,
    latents: Tensor | None = None,
    predicted: Predicted | None = None,
) -> None:
    """Tell the watching function, if there is one, that a denoising step is complete.

    timestep, latents: what `completed_step` returns to it. predicted: what `predicted_picture` calls for it.

    Raises:
        EditCancelled: it returned True.
    """
    on_step = _ON_STEP.get()
    if on_step is None:
        return
    at, shown = _AT.set((timestep, latents)), _PREDICTED.set(predicted)
    try:
        cancelled = on_step(step, total)
    finally:
        _AT.reset(at)
        _PREDICTED.reset(shown)
    if cancelled:
        raise EditCancelled(f"cancelled after denoising step {step} of {total}")


def restore_outside(run: Denoising, scheduler: Any, latents: Tensor, step: int) -> Float[Tensor, "N C h w"]:
    """The latents, with those outside the mask replaced by the picture's at the noise level of this step.

    step: the number of steps that are done. Of a soft mask, only what is free by then counts as inside.
    """
    known, mask = run.known, run.mask
    if run.soft is not None:
        known, mask = run.soft.source, run.soft.free(step, len(run.timesteps))
    if step < len(run.timesteps):
        noise = run.noise.expand(len(known), -1, -1, -1)
        known = scheduler.add_noise(known, noise, run.timesteps[step].expand(len(known)))
    return (1 - mask) * known + mask * latents
