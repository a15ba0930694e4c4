"""What every method of editing is given, and what it gives back, so that all of them can be measured alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from maskless.data.boxes import GRID_CELLS
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.masks import mask_box
from maskless.data.result import Cost
from maskless.data.types import Anchors, EditRequest
from maskless.engine.stopwatch import peak_memory_mb, reset_peak_memory
from maskless.models.pretrained import EditModels

Box = tuple[int, int, int, int]
Progress = Callable[[int, int], None]
"""Told how many measurements are done, of how many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One request, and what every method makes its edit with.

    truth_xyxy: where the named thing is, half-open, in pixels; only the oracle looks at it.
    """

    models: EditModels
    request: EditRequest
    config: EditConfig
    truth_xyxy: Box

    @property
    def seed(self) -> int:
        """Of the noise and of whatever a method draws."""
        return self.config.seed if self.request.seed is None else self.request.seed


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """An edited picture [H, W, 3] of 8 bits, the part that its method set out to edit, and inpaintings made."""

    pixels: np.ndarray
    region: Bool[Tensor, "H W"]
    inpaintings: int

    @property
    def box_xyxy(self) -> Box:
        """The smallest box that holds the region."""
        return mask_box(self.region)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """What came of a method, None where it found nothing to edit, and what it took."""

    outcome: Outcome | None
    cost: Cost


Method = Callable[[Case], Outcome]


def attempt(method: Method, case: Case) -> Attempt:
    """Run a method and count what it takes. Seconds are the whole method's, from the request to the picture."""
    reset_peak_memory(case.models.device)
    forwards, began = case.models.inpainter.unet_forwards, time.perf_counter()
    try:
        outcome = method(case)
    except MasklessError:
        outcome = None
    cost = Cost(
        inpaintings=0 if outcome is None else outcome.inpaintings,
        unet_forwards=case.models.inpainter.unet_forwards - forwards,
        seconds={"total": time.perf_counter() - began},
        peak_memory_mb=peak_memory_mb(case.models.device),
    )
    return Attempt(outcome=outcome, cost=cost)


def random_sizes(case: Case, count: int) -> Int[Tensor, " K"]:
    """One size index each, every size as likely."""
    return torch.randint(len(case.config.sizes), (count,), generator=torch.Generator().manual_seed(case.seed + 1))


def random_anchors(case: Case, count: int) -> Anchors:
    """Cells anywhere in the picture, every one as likely."""
    generator = torch.Generator().manual_seed(case.seed)
    points = torch.randint(GRID_CELLS, (count, 2), generator=generator)
    return Anchors(points_yx=points, weight=torch.ones(count), grid_yx=(GRID_CELLS, GRID_CELLS))
