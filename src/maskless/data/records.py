"""The figures of an edit: losses and scores of its candidates, the record of each iteration, what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.errors import require


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Method step 8, one value per candidate, never reduced.

    total = alpha clip + beta directional + gamma structure + delta local. The first three look at the whole picture,
    the last at the edited region.
    """

    clip: Float[Tensor, " N"]
    directional: Float[Tensor, " N"]
    structure: Float[Tensor, " N"]
    local: Float[Tensor, " N"]
    total: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        shapes = {tuple(getattr(self, name).shape) for name in LOSS_NAMES}
        require(len(shapes) == 1 and len(next(iter(shapes))) == 1, f"losses must all be [N], got {sorted(shapes)}")

    @classmethod
    def from_rows(cls, rows: Float[Tensor, "N L"]) -> Losses:
        """What `rows` gave, of one or several batches."""
        return cls(**dict(zip(LOSS_NAMES, rows.unbind(1), strict=True)))

    @property
    def rows(self) -> Float[Tensor, "N L"]:
        """A row for each candidate: its losses in the order of LOSS_NAMES, the total last."""
        return torch.stack([getattr(self, name) for name in LOSS_NAMES], dim=1)

    def __getitem__(self, candidates: list[int]) -> Losses:
        return Losses.from_rows(self.rows[candidates])

    def __len__(self) -> int:
        return self.total.shape[0]


LOSS_NAMES = tuple(each.name for each in fields(Losses))
"""The parts as they are declared, and last the total."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaceSigns:
    """How much each of N regions is the thing that a caption names, read before any inpainting; larger is more.

    shown: cosine of the region alone and the caption. hidden: how little the picture still shows the caption with the
    region painted over. focus: mean relevance to the caption inside the region less that outside. fit: intersection
    over union with the box of the named thing's outline. A sign that is not known is 0 for all.
    """

    shown: Float[Tensor, " N"]
    hidden: Float[Tensor, " N"]
    focus: Float[Tensor, " N"]
    fit: Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a ranking looks at, one value per candidate; larger is better.

    text_to_image: cosine of the edited picture and the prompt (S_t2i).
    image_to_image: cosine of the edited and the source picture (S_i2i).
    place: how much the region is what the caption names, in spreads over all regions that were proposed
    (`ranking.place_score`); 0 for all where there is no caption.
    """

    text_to_image: Float[Tensor, " N"]
    image_to_image: Float[Tensor, " N"]
    place: Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One iteration of the search, for a progress bar, a log or a loss curve.

    iteration: 1-based, over all epochs; epoch likewise. loss: mean total loss of this iteration's choices.
    expected_loss: sum over seen sizes of pi(m|k) l(k,m), renormalised per anchor, mean over anchors, after any update.
    chosen: size index of each anchor. inpaintings, updates: so far. seconds: of this iteration.
    """

    iteration: int
    total_iterations: int
    epoch: int
    loss: float
    expected_loss: float
    chosen: tuple[int, ...]
    inpaintings: int
    updates: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"chosen": list(self.chosen)}


@dataclass(frozen=True, kw_only=True, eq=False)
class AnchorNetReport:
    """What AnchorNet learned. probabilities: pi(m|k), rows sum to 1. The expected losses are over the same cells, all
    that were evaluated, with the policy before and after."""

    probabilities_before: Float[Tensor, "K M"]
    probabilities_after: Float[Tensor, "K M"]
    expected_loss_before: float
    expected_loss_after: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an edit took. unet_forwards: denoiser calls counted per picture, guidance counting twice.
    seconds: by stage. peak_memory_mb: of the process, or of the accelerator where one is used."""

    inpaintings: int
    unet_forwards: int
    seconds: Mapping[str, float]
    peak_memory_mb: float
