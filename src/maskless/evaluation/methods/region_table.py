"""The exhaustive table of a request: every region finished from several noises, previewed, and judged.

Any way to choose a region can be replayed on it without an inpainting (policies.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import propose_regions, scale_to_grid
from maskless.data.config import EditConfig
from maskless.data.errors import require
from maskless.data.result import EditedImage
from maskless.data.types import Anchors, Regions, Scores
from maskless.engine.region_edits import RegionEvaluator
from maskless.engine.stopwatch import Stopwatch
from maskless.evaluation.measures.ledger import Figures, Ledger
from maskless.evaluation.methods.baselines import CENTRE_SIZE
from maskless.evaluation.methods.cases import Box, Case
from maskless.evaluation.requests.jobs import Job, judged
from maskless.locating.proposals import find_places, place_of, propose
from maskless.method.anchor_net import frozen_projection, region_features, standardised
from maskless.storybook.judge import Judge


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionTable:
    """What every region of one request is worth: R different boxes (the K x M proposals, some of which may be the same
    box, and last a box in the middle of the picture, which is none of them), S noises.

    losses: total loss of the finished edit; smaller is better. success, score: whether the judge sees all that was
    asked, and the share of it. previews: by number of steps, losses of pictures finished in so few. scores: what a
    ranking looks at, each [S, R]. place: the column of proposal (k, m). boxes_xyxy: pixels, half-open.
    features: what AnchorNet sees of the proposals. config: the request's options. seed: of the request.
    forwards, seconds: of one region, by its steps; seconds are those of a batch, shared evenly.
    """

    losses: Float[Tensor, "S R"]
    success: Bool[Tensor, "S R"]
    score: Float[Tensor, "S R"]
    previews: Mapping[int, Float[Tensor, "S R"]]
    scores: Mapping[str, Float[Tensor, "S R"]]
    place: Int[Tensor, "K M"]
    boxes_xyxy: Int[Tensor, "R 4"]
    features: Float[Tensor, "K C 8 8"]
    config: EditConfig
    seed: int
    forwards: Mapping[int, float]
    seconds: Mapping[int, float]

    def __post_init__(self) -> None:
        columns = self.losses.shape[1]
        require(
            sorted(set(self.place.flatten().tolist())) == list(range(columns - 1)),
            f"place must name the columns 0 to {columns - 2}, all of them",
        )
        require(self.steps in self.forwards, f"forwards must be known of {self.steps} steps")

    @property
    def steps(self) -> int:
        """Denoising steps of a finished edit."""
        assert self.config.steps is not None
        return self.config.steps

    @property
    def proposals(self) -> int:
        """Different boxes among the K x M proposals: columns 0 to proposals - 1."""
        return self.losses.shape[1] - 1

    @property
    def centre(self) -> int:
        """The column of the box in the middle."""
        return self.proposals

    @property
    def mean_losses(self) -> Float[Tensor, " R"]:
        """Mean over the noises. What a search found by one noise is measured by this, which it did not choose by."""
        return self.losses.mean(dim=0)

    def scores_of(self, noise: int, columns: list[int]) -> Scores:
        """What a ranking sees of these columns, of edits from one noise."""
        return Scores(**{name: values[noise, columns] for name, values in self.scores.items()})


def fill_table(
    case: Case, job: Job, judge: Judge, ledger: Ledger, *, noises: int, previews: tuple[int, ...]
) -> RegionTable:
    """Measure, or read from the ledger, all of one request's table.

    Each noise and each number of steps is an entry of its own, so a killed run loses a minute and not an image.

    Args:
        noises: S; the first is the request's own, the next ones have the following seeds.
        previews: numbers of steps. A preview is a whole run of so few steps, the same noise and solver: what the
            method's own evaluator can do at that cost.
    """
    models = case.models
    config = case.config.resolved(
        steps=models.inpainter.recommended_steps, guidance_scale=models.inpainter.recommended_guidance
    )
    assert config.steps is not None
    previews = tuple(n for n in previews if n < config.steps)
    places = find_places(case.request, case.models, case.config)
    proposed = propose(places, case.request, case.models, case.config)
    grid = proposed.regions
    regions, place = _different(grid, case)
    named = place_of(regions.boxes_xyxy, places, case.request, case.models)
    named[place.flatten()] = proposed.place  # as the search knows them; of the box in the middle nobody asks
    filler = _Filler(case=case, job=job, judge=judge, regions=regions, named=named, config=config)
    found: dict[int, list[Figures]] = {}
    for steps in (config.steps, *previews):
        for noise in range(noises):
            measure = partial(filler.measure, noise, steps)
            key = f"{case.seed} noise {noise}"
            found.setdefault(steps, []).append(ledger.measured(f"table of {steps} steps", key, measure))
    final = found[config.steps]
    return RegionTable(
        losses=_stacked(final, "losses"),
        success=_stacked(final, "success").bool(),
        score=_stacked(final, "score"),
        previews={steps: _stacked(found[steps], "losses") for steps in previews},
        scores={each.name: _stacked(final, each.name) for each in fields(Scores)},
        place=place,
        boxes_xyxy=regions.boxes_xyxy,
        features=_features(case, grid, len(place)),
        config=config,
        seed=case.seed,
        forwards={steps: _mean(each, "forwards") for steps, each in found.items()},
        seconds={steps: _mean(each, "seconds") for steps, each in found.items()},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Filler:
    """Makes the entries of one request's table. named: how much each region is what the caption names."""

    case: Case
    job: Job
    judge: Judge
    regions: Regions
    named: Tensor
    config: EditConfig

    def measure(self, noise: int, steps: int) -> Figures:
        """All regions from one noise, in so many steps: losses, and of finished ones what judge and ranking see."""
        case, inpainter = self.case, self.case.models.inpainter
        stopwatch, before = Stopwatch(), inpainter.unet_forwards
        config = replace(self.config, steps=steps)
        evaluate = RegionEvaluator(
            case.request, self.regions, case.models, config, seed=case.seed + noise, stopwatch=stopwatch
        )
        cells = list(range(len(self.regions)))
        losses = evaluate(cells)
        found: Figures = {
            "losses": losses.tolist(),
            "forwards": (inpainter.unet_forwards - before) / len(cells),
            "seconds": (stopwatch.seconds["inpainting"] + stopwatch.seconds["losses"]) / len(cells),
        }
        return found if steps < (self.config.steps or 0) else found | self._finished(evaluate, cells)

    def _finished(self, evaluate: RegionEvaluator, cells: list[int]) -> Figures:
        case = self.case
        scores = evaluate.scores(cells, self.named)
        crops = evaluate.candidates(cells).crops
        pictures = [
            EditedImage(
                request=case.request,
                box_xyxy=_corners(self.regions.boxes_xyxy[cell]),
                window_xyxy=_corners(evaluate.windows_xyxy[cell]),
                crop=crops[cell],
                feather=self.config.feather,
            ).pil()
            for cell in cells
        ]
        was, *seen = self.judge.detect([self.job.image, *pictures])
        parts = [judged(self.job, verdict, was) for verdict in seen]
        return {
            "success": [all(each.values()) for each in parts],
            "score": [sum(each.values()) / len(each) for each in parts],
            **{each.name: getattr(scores, each.name).tolist() for each in fields(Scores)},
        }


def _different(grid: Regions, case: Case) -> tuple[Regions, Tensor]:
    """The different boxes of the proposals and the box in the middle; the column of each proposal, [K, M]."""
    columns: dict[Box, int] = {}
    place = torch.tensor([columns.setdefault(_corners(box), len(columns)) for box in grid.boxes_xyxy])
    middle = Anchors(points_yx=torch.zeros(1, 2, dtype=torch.long), weight=torch.ones(1), grid_yx=(1, 1))
    centre = propose_regions(middle, [CENTRE_SIZE], case.request.size_yx).boxes_xyxy
    boxes = torch.cat([torch.tensor([list(box) for box in columns]), centre])
    nothing = torch.zeros(len(boxes), dtype=torch.long)
    regions = Regions(boxes_xyxy=boxes, anchor_index=nothing, size_index=nothing)
    return regions, place.reshape(-1, len(case.config.sizes))


def _features(case: Case, grid: Regions, anchors: int) -> Tensor:
    seen = case.models.dino.features(case.request.image)
    boxes = scale_to_grid(grid.boxes_xyxy, case.request.size_yx, seen.grid_yx)
    return standardised(region_features(seen.features, boxes, frozen_projection(seen.features.shape[0]), anchors))


def _stacked(found: list[Figures], name: str) -> Tensor:
    return torch.tensor([each[name] for each in found], dtype=torch.float32)


def _mean(found: list[Figures], name: str) -> float:
    return sum(float(each[name]) for each in found) / len(found)


def _corners(box: Tensor) -> Any:
    return tuple(box.tolist())
