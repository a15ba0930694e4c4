"""The input and the output of every method of editing, and the random choices and boxes that methods share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from maskless.data.boxes import GRID_CELLS, propose_regions
from maskless.data.config import EditConfig, ResolvedConfig
from maskless.data.errors import MasklessError
from maskless.data.masks import mask_box
from maskless.data.result import Cost
from maskless.data.types import Anchors, EditRequest, Regions
from maskless.engine.run import resolved
from maskless.engine.stopwatch import peak_memory_mb, reset_peak_memory
from maskless.locating.view import PictureView
from maskless.models.pretrained import EditModels

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1), half-open, in pixels of the picture."""
CENTRE_SIZE = 8
"""Half-size of the box in the middle of a picture, in 32nds: the box is half as wide as the shorter side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One request, and the models and options that every method edits it with.

    truth_xyxy: where the named object is, half-open, in pixels; only `oracle_box` may use it.
    """

    models: EditModels
    request: EditRequest
    config: EditConfig
    truth_xyxy: Box

    @property
    def seed(self) -> int:
        """The seed of the noise and of all random choices of a method."""
        return self.config.seed if self.request.seed is None else self.request.seed

    @cached_property
    def resolved(self) -> ResolvedConfig:
        """The options with every choice made."""
        return resolved(self.config, self.request, self.models)

    @cached_property
    def view(self) -> PictureView:
        """The view of the request's picture, which all methods share."""
        return PictureView(self.request.source, self.models)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """The output of a method. pixels: the edited picture, [H, W, 3] uint8. region: the part that the method set out
    to edit. inpaintings: how many it made."""

    pixels: np.ndarray
    region: Bool[Tensor, "H W"]
    inpaintings: int

    @property
    def box_xyxy(self) -> Box:
        """The smallest box that holds the region, half-open."""
        return mask_box(self.region)


@dataclass(frozen=True, kw_only=True, eq=False)
class Attempt:
    """A method's outcome, None where it found nothing to edit, and its cost."""

    outcome: Outcome | None
    cost: Cost


Method = Callable[[Case], Outcome]


def attempt(method: Method, case: Case) -> Attempt:
    """Run a method and measure its cost. Seconds are those of the whole method, from the request to the picture."""
    reset_peak_memory(case.models.device)
    forwards, began = case.models.unet_forwards, time.perf_counter()
    try:
        outcome = method(case)
    except MasklessError:
        outcome = None
    cost = Cost(
        inpaintings=0 if outcome is None else outcome.inpaintings,
        unet_forwards=case.models.unet_forwards - forwards,
        seconds={"total": time.perf_counter() - began},
        peak_memory_mb=peak_memory_mb(case.models.device),
    )
    return Attempt(outcome=outcome, cost=cost)


def random_sizes(case: Case, count: int) -> Int[Tensor, " K"]:
    """`count` size indices, each drawn uniformly."""
    return torch.randint(len(case.config.sizes), (count,), generator=torch.Generator().manual_seed(case.seed + 1))


def random_anchors(case: Case, count: int) -> Anchors:
    """`count` cells anywhere in the picture, each drawn uniformly."""
    generator = torch.Generator().manual_seed(case.seed)
    points = torch.randint(GRID_CELLS, (count, 2), generator=generator)
    return Anchors(points_yx=points, weight=torch.ones(count), grid_yx=(GRID_CELLS, GRID_CELLS))


def centre_region(size_yx: tuple[int, int]) -> Regions:
    """One square in the middle of a picture, half as wide as its shorter side."""
    middle = Anchors(points_yx=torch.zeros(1, 2, dtype=torch.long), weight=torch.ones(1), grid_yx=(1, 1))
    return propose_regions(middle, [CENTRE_SIZE], size_yx)
