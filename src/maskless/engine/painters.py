"""Ways to draw in a known region: fill it, or redraw its content with an instruction-following model or with FlowEdit.

A painter is a function of pictures, masks and a sampling. Each run chooses its painter once, by its plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.config import ResolvedConfig
from maskless.data.types import EditRequest
from maskless.models.inpainters.denoising import Sampling
from maskless.models.inpainters.flowedit import flowedit
from maskless.models.inpainters.protocol import InpaintingModel

FILL_CANDIDATES = 4
"""Number of candidates of a fill."""
MAX_REDRAW_GUIDANCE = 8.0
"""Maximum guidance scale of a redrawing, unless the config's own is larger (docs/results.md). That of Stable Diffusion
is usually 7.5."""

Paint = Callable[[Float[Tensor, "N 3 S S"], Float[Tensor, "N 1 S S"], Sampling], UInt8[Tensor, "N 3 S S"]]
"""From pictures in [0, 1], masks of 0 (keep) and 1 (may change), and a sampling to the drawn pictures, RGB 0..255."""


@dataclass(frozen=True, kw_only=True)
class RedrawPlan:
    """How the content of a region is redrawn in place.

    guidance_factor: multiple of the usual guidance scale, up to MAX_REDRAW_GUIDANCE. FlowEdit guides from the caption
    to the prompt; a model that takes the picture guides from an empty text to the prompt. step_factor: multiple of the
    usual number of steps from pure noise; a small strength makes only a share of them, so they should be finer.
    scale: the window is drawn at this multiple of its own size, in tiles if that is larger than the model's size.
    """

    guidance_factor: float = 1.0
    step_factor: int = 1
    scale: int = 1


@dataclass(frozen=True, kw_only=True)
class FillPlan:
    """How the candidates for a known region are drawn.

    strengths: the strength of each candidate, above 0 and up to 1. Candidates of the same strength differ by their
    noise, those of different strengths start from the same. erase: the content under the mask is replaced by a
    continuation of its surroundings first, so that nothing of it shows through at the seam. thin_marks: the mask
    consists of thin marks, which are only filled in tiles and not in the whole window at once. redraw: how the content
    is redrawn in place; None fills the region. refine: the region gets an object, which the redrawer refines if the
    models have a refinement; not together with erase, thin_marks or redraw. changes: values of options that replace the
    user's.
    """

    strengths: tuple[float, ...] = (1.0,) * FILL_CANDIDATES
    erase: bool = False
    thin_marks: bool = False
    redraw: RedrawPlan | None = None
    refine: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert not (self.refine and (self.erase or self.thin_marks or self.redraw or self.keeps_layout))

    def limited(self, strength: float) -> FillPlan:
        """The plan with at most this strength. Below 1 an object is not refined, so that it keeps its layout."""
        if strength >= 1:
            return self
        return replace(self, strengths=tuple(min(own, strength) for own in self.strengths), refine=False)

    @property
    def keeps_layout(self) -> bool:
        """Whether any candidate starts from the picture's own latents."""
        return min(self.strengths) < 1

    def sampling(self, config: ResolvedConfig, number: int) -> Sampling:
        """The sampling of candidate `number`, counted from 0."""
        steps, guidance = config.steps, config.guidance_scale
        if self.redraw is not None:
            steps *= self.redraw.step_factor
            guidance = max(guidance, min(self.redraw.guidance_factor * guidance, MAX_REDRAW_GUIDANCE))
        strength = self.strengths[number]
        seed = config.seed + self.strengths[:number].count(strength)
        return Sampling(seed=seed, steps=steps, guidance_scale=guidance, strength=strength)


def painter(inpainter: InpaintingModel, plan: FillPlan, request: EditRequest, negative_prompt: str) -> Paint:
    """The painter of a plan; it encodes the texts of the request once."""
    if plan.redraw is not None and not inpainter.takes_picture:
        return flowedit_painter(inpainter, request, negative_prompt)
    return inpainting_painter(inpainter, request, negative_prompt)


def inpainting_painter(inpainter: InpaintingModel, request: EditRequest, negative_prompt: str) -> Paint:
    """A painter that draws the prompt: a model that takes the picture redraws it, other models fill the mask."""
    prompt = inpainter.encode_prompt(request.prompt, negative_prompt.strip() and negative_prompt)

    def paint(
        pictures: Float[Tensor, "N 3 S S"], masks: Float[Tensor, "N 1 S S"], sampling: Sampling
    ) -> UInt8[Tensor, "N 3 S S"]:
        return inpainter.inpaint(pictures, masks, prompt, sampling)

    return paint


def flowedit_painter(inpainter: InpaintingModel, request: EditRequest, negative_prompt: str) -> Paint:
    """A painter that redraws the object of the caption as the prompt describes it, with FlowEdit."""
    denoiser = inpainter.denoiser
    assert denoiser is not None, "a plan uses FlowEdit only if the model has a denoiser"
    avoided = ", ".join(text for text in (request.caption, negative_prompt) if text.strip())
    target, source = inpainter.encode_prompt(request.prompt, avoided), inpainter.encode_prompt(request.caption)

    def paint(
        pictures: Float[Tensor, "N 3 S S"], masks: Float[Tensor, "N 1 S S"], sampling: Sampling
    ) -> UInt8[Tensor, "N 3 S S"]:
        return flowedit(denoiser, pictures, masks, source, target, replace(sampling, noise=None))

    return paint
