"""The only per-image loop. Each image has its own AnchorNet, optimiser, generator and noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import scale_to_grid
from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.result import Cost, EditResult, StepRecord
from maskless.data.types import Anchors, EditRequest
from maskless.engine.region_edits import RegionEvaluator
from maskless.engine.stopwatch import Stopwatch, peak_memory_mb
from maskless.locating.proposals import find_places, propose
from maskless.method.anchor_net import frozen_projection, region_features, standardised
from maskless.method.anchors import find_free_anchors
from maskless.method.ranking import free_first, rank
from maskless.method.search import final_sizes, look_at, objective, place_cost, policy, report, search, start_search
from maskless.models.pretrained import EditModels

OCCUPIED_COST = 3.0
"""What a region that covers things and nothing else pays on top of its losses."""


class EditRun:
    """One edit under way: iterate over it for StepRecords, then ask for `result()`.

    Between two records `state()` can be saved; a run started from it goes on as if it had never stopped.
    """

    def __init__(
        self,
        request: EditRequest,
        models: EditModels,
        config: EditConfig,
        *,
        occupied: Float[Tensor, "H W"] | None = None,
        anchors: Anchors | None = None,
        state: dict[str, Any] | None = None,
    ) -> None:
        """Finds anchors and regions; nothing is inpainted yet.

        Args:
            config: a None among its options takes the model's recommendation.
            occupied: where the edit should not go, 0 to 1; anchors keep away from there, and a region pays for its
                share of it. None lets it go anywhere.
            anchors: to search around in place of those that would be found.
            state: what `state()` of an earlier run of the same request gave.
        Raises:
            MasklessError: a state of another picture, texts or shape.
        """
        inpainter = models.inpainter
        self.request, self.models = request, models
        self.config = config.resolved(steps=inpainter.recommended_steps, guidance_scale=inpainter.recommended_guidance)
        self.seed = config.seed if request.seed is None else request.seed
        self._fingerprint = _fingerprint(request, self.seed)
        if state is not None and state["request"] != self._fingerprint:
            raise MasklessError(
                "the checkpoint must be of the same picture, caption, prompt and seed, got another edit's"
            )
        self._stopwatch = Stopwatch(state["seconds"] if state else None)
        self._forwards_before = inpainter.unet_forwards - (state["unet_forwards"] if state else 0)

        with self._stopwatch.stage("features"):
            places = find_places(request, models, self.config)
        self.features, self.relevance = places.features, places.relevance
        if anchors is None and occupied is not None:
            anchors = find_free_anchors(occupied, self.features.grid_yx, count=self.config.anchors)
        places = replace(places, anchors=anchors or places.anchors)
        self.anchors = places.anchors
        with self._stopwatch.stage("relevance"):
            # What the caption names is no place for a newcomer.
            fitting = replace(self.config, fit_edges=self.config.fit_edges and occupied is None)
            proposed = propose(places, request, models, fitting)
        self.regions, self.place = proposed.regions, proposed.place
        self._taken = torch.zeros(len(self.regions))
        if occupied is not None:
            self._taken = torch.stack(
                [occupied[y0:y1, x0:x1].mean() for x0, y0, x1, y1 in self.regions.boxes_xyxy.tolist()]
            )
        boxes = scale_to_grid(self.regions.boxes_xyxy, request.size_yx, self.features.grid_yx)
        self.projection = frozen_projection(self.features.features.shape[0])
        pooled = region_features(self.features.features, boxes, self.projection, len(self.anchors))
        self._seen_by_net = standardised(pooled)
        self._evaluate = RegionEvaluator(
            request, self.regions, models, self.config, seed=self.seed, stopwatch=self._stopwatch
        )
        minded = occupied is None and self.config.place > 0 and bool(request.caption.strip())
        self._search = start_search(
            self._seen_by_net,
            self.regions.boxes_xyxy,
            self.config,
            seed=self.seed,
            place_cost=place_cost(self.place, len(self.config.sizes), self.config.place) if minded else None,
        )
        if state is not None:
            self._search.restore(state["search"])
            self._evaluate.restore(state["evaluated"])

    @property
    def history(self) -> tuple[StepRecord, ...]:
        """The records so far, those of an earlier run included."""
        return tuple(self._search.history)

    @property
    def evaluator(self) -> RegionEvaluator:
        """What inpaints the regions of this run, and keeps those that are done."""
        return self._evaluate

    @property
    def total_iterations(self) -> int:
        """Iterations of the whole budget."""
        return self.config.total_iterations

    @property
    def probabilities(self) -> Float[Tensor, "K M"]:
        """pi(m|k) as AnchorNet has it now; rows sum to 1."""
        return policy(self._search, self._seen_by_net)

    @property
    def objective(self) -> Float[Tensor, "K M"]:
        """The losses seen and the cost of the place: what AnchorNet minimises the expectation of; NaN where unseen."""
        return objective(self._search)

    def __iter__(self) -> Iterator[StepRecord]:
        """Search until the budget is used up; method steps 6 to 9."""
        yield from search(
            self._search, self._seen_by_net, self._cost_of, self.config, soft_losses=self._evaluate.soft_losses
        )

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, as plain values and tensors that `torch.load(weights_only=True)` opens."""
        return {
            "request": self._fingerprint,
            "search": self._search.to_dict(),
            "evaluated": self._evaluate.to_dict(),
            "projection": self.projection,
            "seconds": dict(self._stopwatch.seconds),
            "unet_forwards": self._forwards,
        }

    def result(self, ranking: str | None = None) -> EditResult:
        """The most probable size of each anchor, edited and ranked; method steps 6, 7 and 10.

        ranking: a rule in place of the config's; asking again with another one inpaints nothing.
        """
        rule = ranking or self.config.ranking
        chosen = final_sizes(self._search, self._seen_by_net)
        look_at(self._search, chosen, self._cost_of)
        size_count = len(self.config.sizes)
        own = [anchor * size_count + size for anchor, size in enumerate(chosen.tolist())]
        cells = self._search.same_as[own].tolist()
        learned = report(self._search, self._seen_by_net)
        # Anchors that chose the very same box share its edit; each is still a candidate of its own.
        candidates = replace(self._evaluate.candidates(cells), regions=self.regions[own])
        losses = self._evaluate.losses(cells)
        with self._stopwatch.stage("ranking"):
            scores = self._evaluate.scores(cells, self.place)
            ranked = rank(scores, rule, alpha=self.config.ranking_alpha, beta=self.config.ranking_beta)
            ranked = free_first(ranked, self._taken[cells])
        return EditResult(
            request=self.request,
            config=replace(self.config, ranking=rule),
            anchors=self.anchors,
            candidates=candidates,
            losses=losses,
            scores=ranked.score,
            order=ranked.order,
            attention=self.features.attention,
            relevance=self.relevance,
            anchor_net=learned,
            history=self.history,
            cost=Cost(
                inpaintings=self._evaluate.inpaintings,
                unet_forwards=self._forwards,
                seconds=dict(self._stopwatch.seconds),
                peak_memory_mb=peak_memory_mb(self.models.device),
            ),
        )

    def _cost_of(self, cells: list[int]) -> Tensor:
        """Total losses of regions, and what they pay for the things that they would cover."""
        return self._evaluate(cells) + OCCUPIED_COST * self._taken[cells]

    @property
    def _forwards(self) -> int:
        return self.models.inpainter.unet_forwards - self._forwards_before


def _fingerprint(request: EditRequest, seed: int) -> dict[str, Any]:
    """What must be the same for a state to belong to a request."""
    digest = hashlib.sha256(request.image.contiguous().numpy().data).hexdigest()
    texts = {"task": request.task, "caption": request.caption, "prompt": request.prompt}
    return {"image": digest, **texts, "seed": seed}
