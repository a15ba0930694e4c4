"""The exhaustive table of a request: every region is finished from several noises, previewed and judged.

Any way to choose a region can be replayed on such a table without inpainting anything (policies.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.boxes import corners, scale_to_grid
from maskless.data.config import ResolvedConfig
from maskless.data.errors import require
from maskless.data.result import EditedImage
from maskless.data.types import Regions, Scores
from maskless.engine.region_edits import RegionEdits
from maskless.engine.stopwatch import Stopwatch
from maskless.evaluation.measures.ledger import Ledger
from maskless.evaluation.measures.rows import Figures
from maskless.evaluation.methods.cases import Box, Case, centre_region
from maskless.evaluation.requests.jobs import Job, judged
from maskless.locating.location import locate, location_scores, propose
from maskless.method.anchor_net import frozen_projection, region_features, standardised
from maskless.storybook.judge import Judge


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionTable:
    """What every region of one request is worth, for R different boxes and S noises.

    The boxes are the K x M proposals, of which some may be the same box, and last a box in the middle of the picture,
    which is not a proposal.

    losses: total loss of the finished edit; lower is better. success: whether the judge finds everything that was
    requested. score: the share of it that the judge finds. previews: for each number of steps, the losses of pictures
    that were finished in that many steps. scores: the scores that a ranking uses, each [S, R]. column_of: the column of
    each proposal (k, m). boxes_xyxy: pixels, half-open. features: AnchorNet's input for the proposals. config: the
    options of the request. seed: the seed of the request. forwards, seconds: cost of one region for each number of
    steps, without its refinement; seconds are those of a batch, shared evenly.
    """

    losses: Float[Tensor, "S R"]
    success: Bool[Tensor, "S R"]
    score: Float[Tensor, "S R"]
    previews: Mapping[int, Float[Tensor, "S R"]]
    scores: Mapping[str, Float[Tensor, "S R"]]
    column_of: Int[Tensor, "K M"]
    boxes_xyxy: Int[Tensor, "R 4"]
    features: Float[Tensor, "K C 8 8"]
    config: ResolvedConfig
    seed: int
    forwards: Mapping[int, float]
    seconds: Mapping[int, float]

    def __post_init__(self) -> None:
        columns = self.losses.shape[1]
        require(
            sorted(set(self.column_of.flatten().tolist())) == list(range(columns - 1)),
            f"column_of must name the columns 0 to {columns - 2}, all of them",
        )
        require(self.steps in self.forwards, f"forwards must be known of {self.steps} steps")

    @property
    def steps(self) -> int:
        """Denoising steps of a finished edit."""
        return self.config.steps

    @property
    def proposals(self) -> int:
        """The number of different boxes among the K x M proposals, which are columns 0 to proposals - 1."""
        return self.losses.shape[1] - 1

    @property
    def centre(self) -> int:
        """The column of the box in the middle."""
        return self.proposals

    @property
    def mean_losses(self) -> Float[Tensor, " R"]:
        """Mean over the noises. It measures what a search chose by the losses of one noise."""
        return self.losses.mean(dim=0)

    def scores_of(self, noise: int, columns: list[int]) -> Scores:
        """The scores that a ranking uses, of these columns and for edits from one noise."""
        return Scores(**{name: values[noise, columns] for name, values in self.scores.items()})


def fill_table(
    case: Case, job: Job, judge: Judge, ledger: Ledger, *, noises: int, previews: tuple[int, ...]
) -> RegionTable:
    """The table of one request, measured or read from the ledger.

    Each noise and each number of steps is an entry of its own in the ledger, so a run that is killed loses at most one
    entry.

    Args:
        noises: S; the first noise is the request's own, the others have the following seeds.
        previews: numbers of steps. A preview is a whole run of so few steps with the same noise and solver: what the
            method's own evaluator can do at that cost.
    """
    config, view, caption = case.resolved, case.view, case.request.caption
    previews = tuple(n for n in previews if n < config.steps)
    location = locate(view, caption, config)
    proposed = propose(view, caption, location, config)
    grid = proposed.regions
    regions, column_of = _different(grid, case)
    named = location_scores(view, caption, regions.boxes_xyxy, location)
    named[column_of.flatten()] = proposed.score  # as the search has them; no policy looks at that of the middle
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
        column_of=column_of,
        boxes_xyxy=regions.boxes_xyxy,
        features=_features(case, grid, len(column_of)),
        config=config,
        seed=case.seed,
        forwards={steps: _mean(each, "forwards") for steps, each in found.items()},
        seconds={steps: _mean(each, "seconds") for steps, each in found.items()},
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Filler:
    """Measures the entries of one request's table. named: how well each region fits what the caption names."""

    case: Case
    job: Job
    judge: Judge
    regions: Regions
    named: Tensor
    config: ResolvedConfig

    def measure(self, noise: int, steps: int) -> Figures:
        """The losses of all regions from one noise in so many steps; for finished edits also what judge and ranking
        see."""
        case, inpainter = self.case, self.case.models.inpainter
        stopwatch, before = Stopwatch(), inpainter.unet_forwards
        config = replace(self.config, steps=steps, seed=case.seed + noise)
        evaluate = RegionEdits(case.request, case.view, self.regions, case.models, config, stopwatch)
        cells = list(range(len(self.regions)))
        losses = evaluate(cells)
        found: Figures = {
            "losses": losses.tolist(),
            "forwards": (inpainter.unet_forwards - before) / len(cells),
            "seconds": (stopwatch.seconds["inpainting"] + stopwatch.seconds["losses"]) / len(cells),
        }
        return found if steps < self.config.steps else found | self._finished(evaluate, cells)

    def _finished(self, evaluate: RegionEdits, cells: list[int]) -> Figures:
        """What the judge and a ranking see of the finished edits of all regions."""
        scores, made = evaluate.scores(cells, self.named), evaluate.candidates(cells)
        pictures = [EditedImage.of(self.case.request, made, index).pil() for index in range(len(made))]
        seen_before, *seen_after = self.judge.detect([self.job.image, *pictures])
        parts = [judged(self.job, verdict, seen_before) for verdict in seen_after]
        return {
            "success": [all(each.values()) for each in parts],
            "score": [sum(each.values()) / len(each) for each in parts],
            **{each.name: getattr(scores, each.name).tolist() for each in fields(Scores)},
        }


def _different(grid: Regions, case: Case) -> tuple[Regions, Tensor]:
    """The different boxes of the proposals with the box in the middle, and the column of each proposal, [K, M]."""
    columns: dict[Box, int] = {}
    column_of = torch.tensor([columns.setdefault(corners(box), len(columns)) for box in grid.boxes_xyxy])
    centre = centre_region(case.request.size_yx).boxes_xyxy
    boxes = torch.cat([torch.tensor([list(box) for box in columns]), centre])
    nothing = torch.zeros(len(boxes), dtype=torch.long)
    regions = Regions(boxes_xyxy=boxes, anchor_index=nothing, size_index=nothing)
    return regions, column_of.reshape(-1, len(case.config.sizes))


def _features(case: Case, grid: Regions, anchors: int) -> Tensor:
    seen = case.view.features
    boxes = scale_to_grid(grid.boxes_xyxy, case.request.size_yx, seen.grid_yx)
    return standardised(region_features(seen.features, boxes, frozen_projection(seen.features.shape[0]), anchors))


def _stacked(found: list[Figures], name: str) -> Tensor:
    return torch.tensor([each[name] for each in found], dtype=torch.float32)


def _mean(found: list[Figures], name: str) -> float:
    return sum(float(each[name]) for each in found) / len(found)
