"""Several searches, one after the other, onto one picture: for a prompt that names several things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.masks import grown, mask_box
from maskless.data.result import Candidates, Cost, EditedImage, EditResult, StepRecord
from maskless.data.types import EditRequest, Regions
from maskless.engine.search_run import EditRun
from maskless.locating.objects import things_in
from maskless.models.pretrained import EditModels

MOST_CANDIDATES = 3
"""Each is a picture at full resolution."""
NEWCOMER_SIZE = 8
"""Largest half-size, in 32nds of the shorter side, of a region for a newcomer."""


class SequenceRun:
    """Adds one thing after the other; iterate over it for the StepRecords of all searches, then ask for `result()`.

    It has the face of EditRun: request, models, config, seed, history.
    """

    def __init__(self, request: EditRequest, prompts: tuple[str, ...], models: EditModels, config: EditConfig) -> None:
        """prompts: of each thing. Nothing is inpainted yet."""
        self.request, self.models, self._prompts = request, models, prompts
        self.seed = config.seed if request.seed is None else request.seed
        self.history: list[StepRecord] = []
        self._options = config
        self._touched = torch.zeros(request.size_yx, dtype=torch.bool)
        self._done: list[EditResult] = []
        self._run = self._next(request.image)
        self.config = self._run.config

    @property
    def total_iterations(self) -> int:
        """Iterations of all searches together."""
        return len(self._prompts) * self.config.total_iterations

    @property
    def probabilities(self) -> Float[Tensor, "K M"]:
        """pi(m|k) of the search that is under way."""
        return self._run.probabilities

    def __iter__(self) -> Iterator[StepRecord]:
        """Search for each thing's place in turn; iterations count over all of them."""
        while True:
            before = len(self._done) * self.config.total_iterations
            for record in self._run:
                record = replace(
                    record,
                    iteration=before + record.iteration,
                    total_iterations=self.total_iterations,
                )
                self.history.append(record)
                yield record
            if len(self._done) + 1 == len(self._prompts):
                return
            self._done.append(self._run.result())
            best = self._done[-1].best
            self._touched |= best.touched()
            self._run = self._next(best.tensor())

    def result(self) -> EditResult:
        """The last search's best candidates on top of what the earlier ones added."""
        for _record in self:
            pass
        last = self._run.result()
        kept = list(last.order[:MOST_CANDIDATES])
        parts = [*self._done, last]
        whole = (0, 0, self.request.image.shape[2], self.request.image.shape[1])
        edited = [last.edited(index) for index in kept]
        masks = torch.stack([self._touched | each.touched() for each in edited])
        candidates = Candidates(
            regions=last.candidates.regions[kept],
            windows_xyxy=torch.tensor([whole] * len(kept)),
            crops=torch.stack([_eight_bit(each) for each in edited]),
            seeds=(self.seed,) * len(kept),
            masks=masks,
        )
        return replace(
            last,
            request=self.request,
            config=replace(last.config, feather=0.0),  # the seams are in the crops already
            candidates=replace(candidates, regions=_bounding(candidates.regions, masks)),
            losses=last.losses[kept],
            scores=last.scores[kept],
            order=tuple(range(len(kept))),
            history=tuple(self.history),
            cost=_sum_of([part.cost for part in parts]),
        )

    def _next(self, image: Tensor) -> EditRun:
        """The search for the next thing's place, beside all that is there and was added."""
        request = replace(self.request, image=image, prompt=self._prompts[len(self._done)], task="add", source=None)
        features = self.models.dino.features(image)
        occupied = (grown(things_in(image, features), 0.01) | self._touched).to(torch.float32)
        return EditRun(request, self.models, for_newcomer(self._options), occupied=occupied)


def for_newcomer(config: EditConfig) -> EditConfig:
    """The options with regions that leave room for what is there."""
    return replace(config, max_window_size=max(config.min_window_size, min(config.max_window_size, NEWCOMER_SIZE)))


def _eight_bit(edited: EditedImage) -> Tensor:
    return (edited.tensor() * 255).round().to(torch.uint8)


def _bounding(regions: Regions, masks: Tensor) -> Regions:
    """The regions with boxes that hold their masks."""
    return replace(regions, boxes_xyxy=torch.tensor([mask_box(mask) for mask in masks]))


def _sum_of(costs: list[Cost]) -> Cost:
    stages = {stage for cost in costs for stage in cost.seconds}
    return Cost(
        inpaintings=sum(cost.inpaintings for cost in costs),
        unet_forwards=sum(cost.unet_forwards for cost in costs),
        seconds={stage: sum(cost.seconds.get(stage, 0.0) for cost in costs) for stage in sorted(stages)},
        peak_memory_mb=max(cost.peak_memory_mb for cost in costs),
    )
