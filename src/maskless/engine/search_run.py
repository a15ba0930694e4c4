"""The run that searches for the region of an edit. Each has its own AnchorNet, optimiser, generator and noise."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import scale_to_grid
from maskless.data.config import ResolvedConfig
from maskless.data.errors import MasklessError, require
from maskless.data.options import OptionValue
from maskless.data.result import EditResult, StepRecord, step_from_dict
from maskless.data.types import Anchors, EditRequest, Regions
from maskless.engine.region_edits import RegionEdits
from maskless.engine.run import Run, Steps, cost_of, gradients
from maskless.engine.stopwatch import Stopwatch
from maskless.locating.location import Location, Proposals, is_clear, locate, looks_like, propose
from maskless.locating.neighbours import neighbours, replaced_object
from maskless.locating.view import PictureView
from maskless.method.anchor_net import frozen_projection, region_features, standardised
from maskless.method.anchors import find_free_anchors
from maskless.method.ranking import aligned_first, prefer_unoccupied, rank
from maskless.method.search import (
    SearchState,
    State,
    evaluate_cells,
    location_cost,
    objective,
    policy,
    report,
    start_search,
)
from maskless.method.searches import SEARCHES, Search
from maskless.models.pretrained import EditModels

FREE_OPTIONS = {
    "iterations", "epochs", "lr", "gradient_accumulation", "updates", "estimator", "seed", "ranking", "ranking_alpha",
    "ranking_beta", "batch_size", "keep_alpha", "each_part", "budget",
}  # fmt: skip
"""Options that may differ when a run is resumed: the length and intensity of the search, and the ranking after it."""
MODEL_OPTIONS = ("scheduler", "lora", "dtype", "grounder")
"""Those of the ModelOptions that influence the pictures."""
OCCUPIED_COST = 3.0
"""Cost that is added to the losses of a region in proportion to the share of it that is occupied by objects."""
BORDER_COST, BORDER_SHARE = 0.5, 0.02
"""Cost of a region for a new object, as a share of the largest region's area, if it comes closer to the picture's
border than BORDER_SHARE of the shorter side: objects are drawn better inside the picture (docs/training-log.md)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchPlan:
    """How a task changes a search.

    changes: values of options that replace the user's. avoid: computes from the view where the edit should not go, from
    0 to 1; anchors are placed outside of it, and each region has a cost for its share of it. anchors: anchors to use
    instead of finding them.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    avoid: Callable[[PictureView], Float[Tensor, "H W"]] | None = None
    anchors: Anchors | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchSetup:
    """The parts of a search that are computed from the picture before the first iteration (method steps 1 to 5).

    occupied: share of each region that the edit should avoid, 0 to 1. features: the standardised region features of
    each anchor, AnchorNet's input. projection: the frozen projection that the features were computed with. edits:
    inpaints the regions and keeps their edits. search: AnchorNet and the state of its training.
    """

    location: Location
    proposals: Proposals
    occupied: Float[Tensor, " R"]
    features: Float[Tensor, "K C 8 8"]
    projection: Float[Tensor, "12 D 1 1"]
    edits: RegionEdits
    search: SearchState


class SearchRun:
    """A run that finds the region to edit, as the option `search` says; see `Run`.

    `state()` can be saved between two steps. A run that is resumed from it continues as if it had never stopped.
    """

    def __init__(
        self,
        request: EditRequest,
        models: EditModels,
        config: ResolvedConfig,
        *,
        plan: SearchPlan | None = None,
        view: PictureView | None = None,
    ) -> None:
        """Nothing is computed or drawn yet. view: a view of the request's picture; None creates one."""
        self.request, self.models, self.config = request, models, config
        self.plan = plan or SearchPlan()
        self.used = replace(config, **self.plan.changes)
        if not self._search.uses_loss:
            self.used = replace(self.used, views=1)
        self.view = view or PictureView(request.source, models)
        self._stopwatch = Stopwatch()
        self._steps = Steps(self._make_steps)
        self._state: State = {}
        self._setup: SearchSetup | None = None

    def resume(self, state: State) -> None:
        """Continue an earlier run. Call it before the first step only.

        state: the `state()` of a run of the same request and options, or {"anchor_net": weights} to start from a
        trained AnchorNet.

        Raises:
            MasklessError: the state belongs to another task, picture, caption, prompt or seed, or an option other than
                FREE_OPTIONS differs; or it is only an AnchorNet, and this search trains none.
        """
        require(self._setup is None, "a run can be resumed only before its first step")
        require("request" in state or "anchor_net" in state, "the state must be that of a run, got something else")
        if "request" not in state:
            self.used.require_learning("to start from the AnchorNet of another edit")
        if "request" in state and state["request"] != fingerprint(self.request, self.config.seed):
            raise MasklessError(
                "the checkpoint must be of the same task, picture, caption, prompt and seed, got one of another edit"
            )
        now = options_of(self)
        different = different_option(state.get("options", now), now)
        require(different is None, f"the state must be of the same options, but {different}")
        self._state = state
        self._stopwatch = Stopwatch(state.get("seconds"))
        self._steps = Steps(self._make_steps, [step_from_dict(step) for step in state.get("history", ())])

    @property
    def history(self) -> tuple[StepRecord, ...]:
        """The steps so far, including those of an earlier run that this run continues."""
        return tuple(self._steps.history)

    @property
    def total_steps(self) -> int:
        """The number of steps of the search that draw something."""
        return self._search.total_steps(self.used)

    @property
    def _search(self) -> Search:
        return SEARCHES[self.used.search]

    def __iter__(self) -> Iterator[StepRecord]:
        """Step 0 analyses the picture; then there is one step per iteration of the budget (method steps 1 to 9)."""
        return iter(self._steps)

    @property
    def setup(self) -> SearchSetup:
        """What is computed from the picture before the first iteration; it is computed at the first access."""
        if self._setup is None:
            with gradients():
                self._setup = self._analyse()
        return self._setup

    @property
    def anchors(self) -> Anchors:
        """The cells of DINO's grid around which the regions lie."""
        return self.setup.location.anchors

    @property
    def regions(self) -> Regions:
        """The K * M proposed regions, anchor-major."""
        return self.setup.proposals.regions

    @property
    def edits(self) -> RegionEdits:
        """The edits of the regions, each inpainted when it is first requested and then kept."""
        return self.setup.edits

    @property
    def probabilities(self) -> Float[Tensor, "K M"] | None:
        """AnchorNet's present pi(m|k), each row sums to 1; None before step 0, or if nothing is learned."""
        if self._setup is None or not self._search.learns:
            return None
        return policy(self._setup.search, self._setup.features)

    @property
    def objective(self) -> Float[Tensor, "K M"]:
        """The losses plus the costs of the location, whose expectation AnchorNet minimises; NaN where not evaluated."""
        return objective(self.setup.search)

    def preview(self) -> Float[Tensor, "3 h w"] | None:
        """The edit of the region with the lowest `objective` so far, in [0, 1], at the size of `view.small`."""
        if self._setup is None or not self._setup.edits.inpaintings:
            return None
        cost = self.objective.flatten().nan_to_num(torch.inf)
        return self.edits.composite(int(self.setup.search.same_as[int(cost.argmin())]))

    def drawing(self) -> Float[Tensor, "3 h w"] | None:
        """The edit of the region that is being drawn, at the size of `view.small`."""
        return None if self._setup is None else self._setup.edits.drawing()

    def state(self) -> State | None:
        """Everything that is needed to continue, as plain values and tensors; None before step 0."""
        if self._setup is None:
            return None
        return {
            "request": fingerprint(self.request, self.config.seed),
            "options": options_of(self),
            "search": self._setup.search.to_dict(),
            "evaluated": self._setup.edits.to_dict(),
            "projection": self._setup.projection,
            "seconds": dict(self._stopwatch.seconds),
            "history": [step.to_dict() for step in self.history],
        }

    def result(self, ranking: str | None = None) -> EditResult:
        """The candidates of the search, ranked (method steps 6, 7 and 10).

        ranking: a rule to use instead of the config's. A second call with another rule inpaints nothing.
        """
        self._steps.finish()
        with gradients():
            return self._ranked(self.setup, ranking or self.used.ranking)

    def _ranked(self, setup: SearchSetup, rule: str) -> EditResult:
        own = self._search.candidates(setup.search, setup.features, self.used)
        evaluate_cells(setup.search, torch.tensor(own), self._cost_of)
        cells = setup.search.same_as[own].tolist()
        # Anchors that chose the same box share its edit, but each of them remains a candidate.
        regions = self.regions[own]
        placed = self._search.placement
        if placed is not None:  # several of its regions may have the same anchor, so they are numbered
            regions = replace(regions, anchor_index=torch.arange(len(own)))
        candidates = replace(setup.edits.candidates(cells), regions=regions)
        with self._stopwatch.stage("ranking"):
            scores = setup.edits.scores(cells, setup.proposals.score)
            ranked = rank(scores, rule, alpha=self.used.ranking_alpha, beta=self.used.ranking_beta)
            ranked = prefer_unoccupied(ranked, setup.occupied[cells])
            ranked = aligned_first(ranked, candidates.alignments)
        return EditResult(
            request=self.request,
            config=self.config,
            used=replace(self.used, ranking=rule),
            models=self.models.options,
            anchors=self.anchors,
            candidates=candidates,
            losses=setup.edits.losses(cells),
            scores=ranked.score,
            order=ranked.order,
            attention=self.view.features.attention,
            relevance=setup.location.relevance,
            anchor_net=report(setup.search, setup.features) if self._search.learns else None,
            history=self.history,
            placement=None if placed is None else placed(setup.search, self.used),
            cost=cost_of(
                self.models,
                self._stopwatch,
                inpaintings=setup.edits.inpaintings,
                unet_forwards=setup.edits.unet_forwards,
            ),
        )

    def _make_steps(self) -> Iterator[StepRecord]:
        """The steps that are still to be made."""
        began = time.perf_counter()
        setup = self.setup
        if not self._steps.history:
            yield StepRecord(step=0, total_steps=self.total_steps, inpaintings=0, seconds=time.perf_counter() - began)
        steps = self._search.steps(
            setup.search, setup.features, self._cost_of, self.used, soft_losses=setup.edits.soft_losses
        )
        while True:
            before = setup.search.to_dict()
            try:
                step = next(steps, None)
            except BaseException:
                # A step that was interrupted has drawn from the generator; it is made again from where it began.
                setup.search.restore(before)
                raise
            if step is None:
                return
            yield step

    def _cost_of(self, cells: list[int]) -> Tensor:
        """The total losses of regions, plus a cost for the objects that they would cover."""
        return self.setup.edits(cells) + OCCUPIED_COST * self.setup.occupied[cells]

    def _analyse(self) -> SearchSetup:
        """Compute everything that is needed before the first iteration (method steps 1 to 5)."""
        view, config, caption = self.view, self.used, self.request.caption
        with self._stopwatch.stage("features"):
            avoided = None if self.plan.avoid is None else self.plan.avoid(view)
            location = locate(view, caption, config)
        anchors = self.plan.anchors
        if anchors is None and avoided is not None:
            anchors = find_free_anchors(avoided, view.features.grid_yx, count=config.anchors)
        location = replace(location, anchors=anchors or location.anchors)
        with self._stopwatch.stage("relevance"):
            # A new object does not belong on the object that the caption names, so no region is fitted to that.
            fitting = replace(config, fit_edges=config.fit_edges and avoided is None)
            proposals = propose(view, caption, location, fitting)
        regions = proposals.regions
        boxes = scale_to_grid(regions.boxes_xyxy, view.size_yx, view.features.grid_yx)
        projection = frozen_projection(view.features.features.shape[0])
        pooled = region_features(view.features.features, boxes, projection, len(location.anchors))
        costly = avoided is None and config.location_weight > 0 and bool(caption.strip())
        occupied = _occupied_shares(regions, avoided)
        prior = proposals.score if avoided is None else _room_for_new_object(regions, occupied, view.size_yx)
        setup = SearchSetup(
            location=location,
            proposals=proposals,
            occupied=occupied,
            features=standardised(pooled),
            projection=projection,
            edits=RegionEdits(
                self.request,
                view,
                regions,
                self.models,
                config,
                self._stopwatch,
                partial(neighbours, view, replaces=avoided is None) if config.search == "placed" else None,
                partial(replaced_object, view) if avoided is None else None,
            ),
            search=start_search(
                standardised(pooled),
                regions.boxes_xyxy,
                config,
                seed=config.seed,
                location_cost=location_cost(proposals.score, len(config.sizes), config.location_weight)
                if costly
                else None,
                prior=prior.reshape(len(location.anchors), -1),
                found=avoided is not None or looks_like(view, caption, proposals),
                clear=avoided is None and is_clear(view, location, proposals),
            ),
        )
        self._restore(setup)
        return setup

    def _restore(self, setup: SearchSetup) -> None:
        """Restore what an earlier run has learned and drawn, if this run continues one."""
        if "search" in self._state:
            setup.search.restore(self._state["search"])
            setup.edits.restore(self._state["evaluated"])
        elif "anchor_net" in self._state:
            setup.search.anchor_net.load_state_dict(self._state["anchor_net"])


def _room_for_new_object(
    regions: Regions, occupied: Float[Tensor, " R"], size_yx: tuple[int, int]
) -> Float[Tensor, " R"]:
    """How well a new object would fit into each region before anything is drawn: larger, free and not at the border.

    occupied: share of each region that the edit should avoid. size_yx: height and width of the picture.
    """
    height, width = size_yx
    x0, y0, x1, y1 = regions.boxes_xyxy.unbind(1)
    area = ((x1 - x0) * (y1 - y0)).to(torch.float32)
    to_border = torch.stack([x0, y0, width - x1, height - y1]).min(dim=0).values
    near = (to_border < BORDER_SHARE * min(size_yx)).to(torch.float32)
    return area / area.max() - OCCUPIED_COST * occupied - BORDER_COST * near


def _occupied_shares(regions: Regions, avoided: Float[Tensor, "H W"] | None) -> Float[Tensor, " R"]:
    """The share of each region that the edit should avoid, 0 to 1."""
    if avoided is None:
        return torch.zeros(len(regions))
    return torch.stack([avoided[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in regions.boxes_xyxy.tolist()])


def fingerprint(request: EditRequest, seed: int) -> dict[str, str | int]:
    """The values that must be equal for a state to belong to a request."""
    digest = hashlib.sha256(request.image.contiguous().numpy().data).hexdigest()
    texts = {"task": request.task, "caption": request.caption, "prompt": request.prompt}
    return {"image": digest, **texts, "seed": seed}


def options_of(run: Run) -> dict[str, OptionValue]:
    """The options that influence the pictures of a run: those of the edit, and those of loading its models."""
    return run.used.to_dict() | {name: getattr(run.models.options, name) for name in MODEL_OPTIONS}


def different_option(saved: Mapping[str, OptionValue], now: Mapping[str, OptionValue]) -> str | None:
    """The first option that prevents a run from continuing, in a few words; None if there is none."""
    for name, value in now.items():
        if name not in FREE_OPTIONS and saved.get(name) != value:
            return f"it was made with {name} {saved.get(name)}, this edit has {value}"
    return None
