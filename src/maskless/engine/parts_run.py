"""The run that draws each part of a region by itself, where the parts lie far apart: a crop each, not one of all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from maskless.data.alignment import worst
from maskless.data.boxes import Box, square_window
from maskless.data.config import ResolvedConfig
from maskless.data.masks import components, mask_box
from maskless.data.result import Candidates, EditResult, StepRecord
from maskless.data.types import EditRequest, Losses, Regions
from maskless.engine.fill_canvas import Locate, NamedRegion
from maskless.engine.fill_run import FillRun
from maskless.engine.painters import FillPlan
from maskless.engine.run import Steps, cannot_resume, gradients, total_cost
from maskless.locating.view import PictureView
from maskless.method.ranking import Ranking, aligned_first
from maskless.method.search import State
from maskless.models.pretrained import EditModels

PARTS_PX = 128
"""The parts of a mask are found on a copy whose longer side is at most this long."""


class PartsRun:
    """A fill of each part of a region, each with its own window; see `Run`. It learns nothing, so it has no state.

    Every part is drawn on the picture as it was given. Candidate k of the result has candidate k of every part, each in
    its own order of rank. If the parts lie close together, the result is that of one fill.
    """

    def __init__(
        self,
        request: EditRequest,
        models: EditModels,
        config: ResolvedConfig,
        plan: FillPlan | None = None,
        *,
        locate: Locate | None = None,
        view: PictureView | None = None,
    ) -> None:
        """Nothing is computed or drawn yet. The arguments are those of `FillRun`."""
        self.request, self.models, self.config, self.plan = request, models, config, plan or FillPlan()
        self.used = replace(config, **self.plan.changes)
        self._view, self._locate = view or PictureView(request.source, models), locate
        self._steps = Steps(self._make_steps)
        self._region: NamedRegion | None = None
        self._fills: list[FillRun] = []

    @property
    def history(self) -> tuple[StepRecord, ...]:
        """The steps of all parts so far."""
        return tuple(self._steps.history)

    @property
    def total_steps(self) -> int:
        """The number of candidates of all parts; before step 0, which finds the parts, that of one."""
        return len(self.plan.strengths) * max(1, len(self._fills))

    @property
    def probabilities(self) -> None:
        """None: a fill learns nothing."""

    def __iter__(self) -> Iterator[StepRecord]:
        """Step 0 finds the region and its parts; then there is one step per candidate of each part."""
        return iter(self._steps)

    def preview(self) -> Float[Tensor, "3 h w"] | None:
        """The best candidate so far of the part that is being drawn."""
        drawn = [fill.preview() for fill in self._fills if fill.preview() is not None]
        return drawn[-1] if drawn else None

    def drawing(self) -> Float[Tensor, "3 h w"] | None:
        """The part that is being drawn."""
        drawn = (fill.drawing() for fill in self._fills)
        return next((picture for picture in drawn if picture is not None), None)

    def state(self) -> None:
        """None: a fill cannot be continued later."""

    def resume(self, state: State) -> None:
        """Always raises a MasklessError, because a fill cannot be continued."""
        raise cannot_resume(self.request)

    def result(self) -> EditResult:
        """All candidates, ranked."""
        self._steps.finish()
        region, results = self._region, [fill.result() for fill in self._fills]
        assert region is not None and region.request.mask is not None
        first = results[0]
        if len(results) == 1:
            return replace(first, history=self.history)
        count, box = len(first.candidates), mask_box(region.request.mask)
        numbers = torch.arange(count)
        candidates = Candidates(
            regions=Regions(
                boxes_xyxy=torch.tensor([box] * count), anchor_index=numbers, size_index=torch.zeros_like(numbers)
            ),
            windows_xyxy=torch.tensor([box] * count),
            crops=torch.stack([_joined(region.request, results, rank, box) for rank in range(count)]),
            seeds=tuple(first.candidates.seeds[index] for index in first.order),
            feather=0.0,  # the seams are in the crops already
            masks=torch.stack(
                [
                    torch.stack([each.edited(each.order[rank]).touched() for each in results]).any(dim=0)
                    for rank in range(count)
                ]
            ),
            alignments=tuple(
                worst(result.candidates.alignment(result.order[rank]) for result in results) for rank in range(count)
            ),
        )
        rows = torch.stack([result.losses.rows[list(result.order)] for result in results]).mean(dim=0)
        scores = torch.stack([result.scores[list(result.order)] for result in results]).mean(dim=0)
        ranked = aligned_first(Ranking(score=scores, order=tuple(range(count))), candidates.alignments)
        return replace(
            first,
            request=replace(region.request, amount=None),  # a soft mask is in the crops as well
            used=self.used,
            candidates=candidates,
            losses=Losses.from_rows(first.losses.names, rows),
            scores=scores,
            order=ranked.order,
            attention=region.attention,
            relevance=region.relevance,
            history=self.history,
            cost=total_cost([result.cost for result in results]),
        )

    def _make_steps(self) -> Iterator[StepRecord]:
        """The steps that are still to be made."""
        if not self._fills:
            self._fills = self._find_parts()
        for number, fill in enumerate(self._fills):
            before = number * len(self.plan.strengths)
            for step in fill:
                step = replace(step, step=before + step.step, total_steps=self.total_steps)
                if step.step > self._last_step:  # step 0 of a later part is not a step of the run
                    yield step

    @property
    def _last_step(self) -> int:
        """The number of the last step; -1 before the first."""
        return self._steps.history[-1].step if self._steps.history else -1

    def _find_parts(self) -> list[FillRun]:
        """A fill for each part of the region."""
        with gradients():
            region = (
                NamedRegion(request=self.request) if self._locate is None else self._locate(self._view, self.request)
            )
        request, self._region = region.request, region
        assert request.mask is not None
        fills = []
        for part in far_apart(request.mask, self.used.context):
            amount = None if request.amount is None else request.amount * part
            asked = replace(request, mask=part, amount=amount)
            fills.append(FillRun(asked, self.models, self.config, self.plan, view=self._view))
        return fills


def far_apart(mask: Bool[Tensor, "H W"], context: float) -> list[Bool[Tensor, "H W"]]:
    """The parts of a mask whose windows, with this context, do not overlap; parts that are closer stay together.

    Every pixel of the mask is in one of them, the largest part first.
    """
    height, width = mask.shape
    scale = min(1.0, PARTS_PX / max(height, width))
    small_yx = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = F.interpolate(mask[None, None].to(torch.float32), size=small_yx, mode="area")[0, 0] > 0
    groups: list[Bool[Tensor, "h w"]] = []
    for part in components(small):
        near = [group for group in groups if _windows_overlap(group, part, context)]
        while near:  # what was joined may reach further groups
            groups = [group for group in groups if not any(group is each for each in near)]
            part = torch.stack([part, *near]).any(dim=0)
            near = [group for group in groups if _windows_overlap(group, part, context)]
        groups.append(part)
    if len(groups) == 1:
        return [mask]
    rest, parts = mask.clone(), []
    for group in sorted(groups, key=lambda group: -int(group.sum())):
        grown = F.max_pool2d(group[None, None].to(torch.float32), 3, stride=1, padding=1)
        whole = F.interpolate(grown, size=(height, width), mode="nearest")[0, 0] > 0
        parts.append(rest & whole)
        rest &= ~whole
    parts[0] |= rest
    return [part for part in parts if bool(part.any())]


def _windows_overlap(a: Bool[Tensor, "h w"], b: Bool[Tensor, "h w"], context: float) -> bool:
    size_yx = (a.shape[0], a.shape[1])
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = (
        square_window(mask_box(part), size_yx, context=context) for part in (a, b)
    )
    return ax0 < bx1 and bx0 < ax1 and ay0 < by1 and by0 < ay1


def _joined(request: EditRequest, results: list[EditResult], rank: int, box_xyxy: Box) -> UInt8[Tensor, "3 h w"]:
    """The box of the picture with the candidate of this rank of every part, RGB 0..255."""
    picture = request.image
    for result in results:
        part = result.edited(result.order[rank])
        picture = torch.where(part.touched(), part.tensor(), picture)
    x0, y0, x1, y1 = box_xyxy
    return (picture[:, y0:y1, x0:x1] * 255).round().to(torch.uint8)
