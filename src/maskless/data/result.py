"""The result of an edit: its candidates, the steps of the run and its cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from maskless.data.alignment import Alignment
from maskless.data.boxes import corners
from maskless.data.config import ResolvedConfig
from maskless.data.errors import require
from maskless.data.masks import box_mask
from maskless.data.model_options import ModelOptions
from maskless.data.paste import paste_alpha, paste_back, paste_pixels
from maskless.data.picture import SourceImage, save_image
from maskless.data.provenance import Provenance
from maskless.data.tasks import FACTS
from maskless.data.types import Anchors, EditRequest, Losses, Regions

StepValue = int | float | list[int]
"""The possible values in a step's `to_dict`, which JSON can express."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step of a run, for a progress bar, a page or a log.

    The first step of every run, number 0, only analyses the picture and draws nothing.

    step: number of drawing steps that are complete, out of total_steps. inpaintings: number of inpaintings so far.
    seconds: duration of this step.
    """

    step: int
    total_steps: int
    inpaintings: int
    seconds: float

    def to_dict(self) -> dict[str, StepValue]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class DrawnStep(StepRecord):
    """A step that drew something. loss: total loss of the drawn candidate, or the mean over several candidates."""

    loss: float


@dataclass(frozen=True, kw_only=True)
class SearchStep(DrawnStep):
    """One iteration of a search for the region.

    epoch: counted from 1. expected_loss: the value that AnchorNet minimises, after any update in this iteration. It is
    the expectation under pi(m|k), renormalised over the sizes that were evaluated, of the loss plus the cost of the
    location, averaged over the anchors. chosen: size index of each anchor. updates: number of AnchorNet updates so far.
    """

    epoch: int
    expected_loss: float
    chosen: tuple[int, ...]
    updates: int

    def to_dict(self) -> dict[str, StepValue]:
        """Plain values, ready for JSON."""
        return super().to_dict() | {"chosen": list(self.chosen)}


def step_from_dict(values: Mapping[str, StepValue]) -> StepRecord:
    """The inverse of `to_dict`: a step of the right type from these values."""
    plain = cast(dict[str, Any], dict(values))
    if "chosen" in plain:
        return SearchStep(**{**plain, "chosen": tuple(plain["chosen"])})
    return DrawnStep(**plain) if "loss" in plain else StepRecord(**plain)


@dataclass(frozen=True, kw_only=True, eq=False)
class AnchorNetReport:
    """What AnchorNet learned.

    probabilities_before, probabilities_after: pi(m|k) before and after training; rows sum to 1. expected_loss_before,
    expected_loss_after: the expected loss under these two policies, both over all cells that were evaluated.
    """

    probabilities_before: Float[Tensor, "K M"]
    probabilities_after: Float[Tensor, "K M"]
    expected_loss_before: float
    expected_loss_after: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Which regions a placed search considered, best first.

    boxes_xyxy: in pixels of the original, half-open. score: how well each fits the object that the caption names before
    anything is inpainted, in standard deviations over all proposed regions. drawn: how many of them, from the first,
    were inpainted. reason: why no more were, as a clause.
    """

    boxes_xyxy: Int[Tensor, "N 4"]
    score: Float[Tensor, " N"]
    drawn: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of an edit.

    unet_forwards: calls of the denoiser per picture; a step with guidance counts twice. The calls of other edits that
    ran with the same models at the same time are included. seconds: duration by stage. peak_memory_mb: memory of the
    accelerator if one is used, otherwise of the process.
    """

    inpaintings: int
    unet_forwards: int
    seconds: Mapping[str, float]
    peak_memory_mb: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """N edits of one image (method step 7), stored as the windows that the model generated.

    A window is pasted into the picture only when the full candidate is needed, because fifty-four copies of an
    8000-pixel image would take 40 GB.

    windows_xyxy: the windows that were inpainted, each a box with its context, in pixels of the original, half-open;
    they may extend beyond the picture. crops: the generated windows at the model's resolution, RGB, 0 to 255.
    seeds: seed of each candidate's noise; all candidates of a search have the same one (mistake 9).
    feather: width of the seam that is blended inside a region, as a share of its side.
    masks: the pixels that each candidate may change, inside its box; None if that is the whole box.
    alignments: how each candidate lay on the picture, if a model returned a whole picture; empty or None if nothing was
    measured.
    """

    regions: Regions
    windows_xyxy: Int[Tensor, "N 4"]
    crops: UInt8[Tensor, "N 3 h w"]
    seeds: tuple[int, ...]
    feather: float
    masks: Bool[Tensor, "N H W"] | None = None
    alignments: tuple[Alignment | None, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.regions)
        require(len(self.alignments) in (0, count), f"alignments must be {count}, got {len(self.alignments)}")
        require(tuple(self.windows_xyxy.shape) == (count, 4), f"windows_xyxy must be [{count}, 4]")
        require(self.crops.ndim == 4 and self.crops.shape[:2] == (count, 3), f"crops must be [{count}, 3, h, w]")
        require(len(self.seeds) == count, f"seeds must be {count}, got {len(self.seeds)}")
        require(self.masks is None or self.masks.shape[0] == count, f"masks must be [{count}, H, W]")

    def __len__(self) -> int:
        return len(self.regions)

    def alignment(self, index: int) -> Alignment | None:
        """How the candidate at this position lay on the picture; None if nothing was measured."""
        return self.alignments[index] if self.alignments else None

    def kept_px(self, index: int) -> int:
        """How many pixels in the box of the candidate at this position may not change, because its mask leaves them
        out."""
        if self.masks is None:
            return 0
        x0, y0, x1, y1 = corners(self.regions.boxes_xyxy[index])
        return int((~self.masks[index, y0:y1, x0:x1]).sum())

    def __getitem__(self, index: list[int]) -> Candidates:
        """The candidates at these positions, in this order."""
        return Candidates(
            regions=self.regions[index],
            windows_xyxy=self.windows_xyxy[index],
            crops=self.crops[index],
            seeds=tuple(self.seeds[i] for i in index),
            feather=self.feather,
            masks=None if self.masks is None else self.masks[index],
            alignments=tuple(self.alignments[i] for i in index) if self.alignments else (),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EditedImage:
    """One candidate at the original's resolution, pasted into the picture on demand.

    Outside the mask, or outside box_xyxy where there is no mask, every pixel equals the original's, bit for bit and at
    the original's bit depth. The fields are those of one candidate of `Candidates`. keep_alpha: leave the alpha channel
    as it is; otherwise, what was painted is opaque.
    """

    request: EditRequest
    box_xyxy: tuple[int, int, int, int]
    window_xyxy: tuple[int, int, int, int]
    crop: UInt8[Tensor, "3 h w"]
    feather: float
    mask: Bool[Tensor, "H W"] | None = None
    keep_alpha: bool = False

    @classmethod
    def of(cls, request: EditRequest, candidates: Candidates, index: int, *, keep_alpha: bool = False) -> EditedImage:
        """Candidate number `index` of a request."""
        return cls(
            request=request,
            box_xyxy=corners(candidates.regions.boxes_xyxy[index]),
            window_xyxy=corners(candidates.windows_xyxy[index]),
            crop=candidates.crops[index],
            feather=candidates.feather,
            mask=None if candidates.masks is None else candidates.masks[index],
            keep_alpha=keep_alpha,
        )

    @property
    def _region(self) -> Tensor | None:
        """The mask, or its grey values if it is soft."""
        return self.mask if self.request.amount is None else self.request.amount

    def region(self) -> Bool[Tensor, "H W"]:
        """The region that was drawn: the request's mask, or else the box. What is kept inside it belongs to it, too."""
        return self.request.mask if self.request.mask is not None else box_mask(self.box_xyxy, self.request.size_yx)

    def touched(self) -> Bool[Tensor, "H W"]:
        """Where the candidate may differ from the original."""
        if self.mask is not None:
            return self.mask
        return box_mask(self.box_xyxy, self.request.size_yx)

    def tensor(self) -> Float[Tensor, "3 H W"]:
        """RGB in [0, 1]."""
        crop = self.crop.to(torch.float32) / 255
        return paste_back(
            self.request.image, crop, self.window_xyxy, self.box_xyxy, feather=self.feather, mask=self._region
        )

    def pixels(self) -> np.ndarray:
        """[H, W, 3] at the source's bit depth: uint16 for a 16-bit source, else uint8."""
        source = self.request.source
        alpha = None if self.keep_alpha else source.alpha
        crop = self.crop.to(torch.float32) / 255
        return paste_pixels(
            source.pixels, crop, self.window_xyxy, self.box_xyxy, feather=self.feather, mask=self._region, alpha=alpha
        )

    @property
    def source(self) -> SourceImage:
        """The source with the alpha channel of the edit, for saving."""
        source = self.request.source
        if source.alpha is None or self.keep_alpha:
            return source
        return replace(source, alpha=paste_alpha(source.alpha, self.box_xyxy, feather=self.feather, mask=self._region))

    def pil(self) -> Image.Image:
        """An 8-bit RGB picture."""
        pixels = self.pixels()
        return Image.fromarray((pixels >> 8).astype("uint8") if pixels.dtype == "uint16" else pixels)

    @property
    def provenance(self) -> Provenance:
        """What was done to the picture."""
        request = self.request
        facts, (height, width) = FACTS[request.task], request.size_yx
        generated = facts.whole_picture and facts.draws_on_nothing and request.mask is None
        x0, y0, x1, y1 = self.box_xyxy
        box = (max(0, x0), max(0, y0), min(width, x1), min(height, y1))
        return Provenance(box_xyxy=box, size_px=(width, height), generated=generated)

    def save(
        self,
        path: str | Path,
        *,
        text: Mapping[str, str] | None = None,
        quality: int | None = None,
        provenance: bool = True,
    ) -> None:
        """Write a picture file with the source's alpha channel, colour profile and metadata; see `save_image`.

        provenance: say in its XMP that a model has drawn in it, and where.
        """
        mark = self.provenance if provenance else None
        save_image(path, self.pixels(), source=self.source, text=text, quality=quality, provenance=mark)


@dataclass(frozen=True, kw_only=True, eq=False)
class EditResult:
    """The result of an edit: its candidates, their losses and scores, and how they were found.

    A learned or exhaustive search returns one candidate per anchor, a placed search one per inpainted region. A fill,
    whose region is known, returns one candidate per try; its anchors are None. anchor_net is None where nothing was
    learned, placement where no placed search was made.

    config: the options that the user chose. used: the options that were in effect, which a task may change.
    models: the options that the models were loaded with.
    order: positions of the candidates, best first. scores: the ranking's score of each candidate; larger is better.
    attention, relevance: the maps that the location was found with; None if they were not used.
    """

    request: EditRequest
    config: ResolvedConfig
    used: ResolvedConfig
    models: ModelOptions
    anchors: Anchors | None
    candidates: Candidates
    losses: Losses
    scores: Float[Tensor, " N"]
    order: tuple[int, ...]
    attention: Float[Tensor, "h w"] | None
    relevance: Float[Tensor, "rows columns"] | None
    anchor_net: AnchorNetReport | None
    history: tuple[StepRecord, ...]
    cost: Cost = field(repr=False)
    placement: Placement | None = None

    def __post_init__(self) -> None:
        count = len(self.candidates)
        require(sorted(self.order) == list(range(count)), f"order must be a permutation of {count} candidates")
        require(len(self.losses) == count and self.scores.shape == (count,), f"losses and scores must be [{count}]")

    @property
    def best(self) -> EditedImage:
        """The candidate that the ranking puts first."""
        return self.edited(self.order[0])

    def edited(self, index: int) -> EditedImage:
        """The candidate at position `index` (not the one of that rank) at the original's resolution."""
        return EditedImage.of(self.request, self.candidates, index, keep_alpha=self.used.keep_alpha)

    @property
    def drawn_steps(self) -> tuple[DrawnStep, ...]:
        """The steps that drew something, in order."""
        return tuple(step for step in self.history if isinstance(step, DrawnStep))
