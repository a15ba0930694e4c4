"""The run for a prompt that names several objects: it searches for a region for each of them in turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.config import EditConfig, ResolvedConfig
from maskless.data.masks import dilate, mask_box
from maskless.data.result import Candidates, EditedImage, EditResult, StepRecord
from maskless.data.types import EditRequest, Regions
from maskless.engine.run import Steps, cannot_resume, total_cost
from maskless.engine.search_run import SearchPlan, SearchRun
from maskless.locating.objects import objects_in
from maskless.locating.view import PictureView
from maskless.method.search import State
from maskless.models.pretrained import EditModels

MAX_CANDIDATES = 3
"""Number of candidates that are kept, because each is a picture at full resolution."""
NEW_OBJECT_SIZE = 8
"""Maximum half-size of a region for a new object, in 32nds of the picture's shorter side."""
KEEP_MARGIN = 0.01
"""Margin around the existing objects that new objects should not cover, as a share of the picture's shorter side."""


class SequenceRun:
    """A run that adds several objects, one after the other; see `Run`. It cannot be continued later."""

    def __init__(
        self,
        request: EditRequest,
        prompts: tuple[str, ...],
        models: EditModels,
        config: ResolvedConfig,
        *,
        view: PictureView | None = None,
    ) -> None:
        """Nothing is computed or drawn yet.

        prompts: one for each object. view: a view of the request's picture; None creates one.
        """
        self.request, self.models, self.config = request, models, config
        self.used = replace(config, max_window_size=new_object_size(config))
        self._prompts = prompts
        self._steps = Steps(self._make_steps)
        self._added = torch.zeros(request.size_yx, dtype=torch.bool)
        self._results: list[EditResult] = []
        self._search = self._search_for(prompts[0], view or PictureView(request.source, models), self._added)

    @property
    def history(self) -> tuple[StepRecord, ...]:
        """The steps of all searches so far."""
        return tuple(self._steps.history)

    @property
    def total_steps(self) -> int:
        """The number of steps of all searches together."""
        return len(self._prompts) * self._search.total_steps

    @property
    def probabilities(self) -> Float[Tensor, "K M"] | None:
        """pi(m|k) of the present search, each row sums to 1; None before its step 0."""
        return self._search.probabilities

    def __iter__(self) -> Iterator[StepRecord]:
        """Step 0 analyses the picture; then each object's search follows. Steps are numbered across all searches."""
        return iter(self._steps)

    def preview(self) -> Float[Tensor, "3 h w"] | None:
        """The best candidate so far of the present search."""
        return self._search.preview()

    def drawing(self) -> Float[Tensor, "3 h w"] | None:
        """What the present search draws."""
        return self._search.drawing()

    def state(self) -> None:
        """None: a sequence cannot be continued later."""

    def resume(self, state: State) -> None:
        """Always raises a MasklessError, because a sequence cannot be continued."""
        raise cannot_resume(self.request)

    def result(self) -> EditResult:
        """The best candidates of the last search, on the picture with the objects that the earlier searches added."""
        self._steps.finish()
        last = self._search.result()
        kept = list(last.order[:MAX_CANDIDATES])
        whole = (0, 0, *reversed(self.request.size_yx))
        edited = [last.edited(index) for index in kept]
        masks = torch.stack([self._added | each.touched() for each in edited])
        candidates = Candidates(
            regions=_with_bounding_boxes(last.candidates.regions[kept], masks),
            windows_xyxy=torch.tensor([whole] * len(kept)),
            crops=torch.stack([_eight_bit(each) for each in edited]),
            seeds=(self.config.seed,) * len(kept),
            feather=0.0,  # the seams are in the crops already
            masks=masks,
            alignments=tuple(last.candidates.alignment(index) for index in kept),
        )
        return replace(
            last,
            request=self.request,
            config=self.config,
            candidates=candidates,
            losses=last.losses[kept],
            scores=last.scores[kept],
            order=tuple(range(len(kept))),
            history=self.history,
            cost=total_cost([part.cost for part in (*self._results, last)]),
        )

    def _make_steps(self) -> Iterator[StepRecord]:
        """The steps that are still to be made."""
        while True:
            before = len(self._results) * self._search.total_steps
            for step in self._search:
                step = replace(step, step=before + step.step, total_steps=self.total_steps)
                if step.step > self._last_step:  # step 0 of a later search is not a step of the sequence
                    yield step
            if len(self._results) + 1 == len(self._prompts):
                return
            self._begin_next()

    def _begin_next(self) -> None:
        """Keep the result of the finished search, and prepare the next one.

        The attributes are set after everything is computed, so that an interruption loses nothing.
        """
        result = self._search.result()
        added, view = self._added | result.best.touched(), PictureView(result.best.tensor(), self.models)
        search = self._search_for(self._prompts[len(self._results) + 1], view, added)
        self._results, self._added, self._search = [*self._results, result], added, search

    @property
    def _last_step(self) -> int:
        """The number of the last step; -1 before the first."""
        return self._steps.history[-1].step if self._steps.history else -1

    def _search_for(self, prompt: str, view: PictureView, added: Bool[Tensor, "H W"]) -> SearchRun:
        """The search for an object's region, which avoids the existing and the added objects."""
        request = replace(self.request, source=view.source, prompt=prompt, task="add")

        def avoid(view: PictureView) -> Float[Tensor, "H W"]:
            return (dilate(objects_in(view), KEEP_MARGIN) | added).to(torch.float32)

        plan = SearchPlan(changes={"max_window_size": new_object_size(self.config)}, avoid=avoid)
        return SearchRun(request, self.models, self.config, plan=plan, view=view)


def new_object_size(config: EditConfig) -> int:
    """The maximum half-size of a region for a new object, in 32nds of the shorter side: at most NEW_OBJECT_SIZE."""
    return max(config.min_window_size, min(config.max_window_size, NEW_OBJECT_SIZE))


def _eight_bit(edited: EditedImage) -> Tensor:
    """The edited picture as RGB 0..255."""
    return (edited.tensor() * 255).round().to(torch.uint8)


def _with_bounding_boxes(regions: Regions, masks: Tensor) -> Regions:
    """The regions with their boxes replaced by the bounding boxes of masks [N, H, W]."""
    return replace(regions, boxes_xyxy=torch.tensor([mask_box(mask) for mask in masks]))
