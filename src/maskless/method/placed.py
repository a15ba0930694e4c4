"""The placed search: the location chooses the regions before anything is inpainted, and only a few are inpainted.

The caption says where an edit belongs, so the regions are ordered by how well they fit the object that it names
(`ranking.location_score`). The best one is inpainted. If it is not clearly the right one, the next best that differ
from it are inpainted with it, in one batch and from the same noise, and the finished edits are compared
(`ranking.rank_by_edits`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.boxes import without_overlaps
from maskless.data.config import EditConfig
from maskless.data.result import DrawnStep, Placement
from maskless.method.search import Evaluate, SearchState, SoftLosses, count_evaluated_regions, evaluate_cells

MAX_OVERLAP = 0.7
"""Two regions with a larger intersection over union count as the same place."""
CONSIDERED = 3
"""How many regions are recorded at least, whether they are inpainted or not."""
WIDENED = 9
"""How many regions are inpainted where nothing in the picture looks like the caption."""


def placed_search(
    state: SearchState,
    regions: Float[Tensor, "K C 8 8"],
    evaluate: Evaluate,
    config: EditConfig,
    *,
    soft_losses: SoftLosses | None = None,
) -> Iterator[DrawnStep]:
    """Inpaint the regions that `place` chooses, in one step. `regions` and `soft_losses` are not used."""
    if state.iteration:
        return
    began = time.perf_counter()
    cells = torch.tensor(place(state, config.budget)[1])
    evaluate_cells(state, cells, evaluate)
    state.iteration = 1
    yield DrawnStep(
        step=1,
        total_steps=1,
        inpaintings=count_evaluated_regions(state),
        seconds=time.perf_counter() - began,
        loss=float(state.table.flatten()[cells].mean()),
    )


def place(state: SearchState, budget: int) -> tuple[Placement, list[int]]:
    """The regions that a placed search considers, and the cells of those that it inpaints, best first.

    One is enough if it is clearly the right one (`state.clear`), and up to WIDENED are inpainted if nothing in the
    picture looks like the caption (`state.found`).
    """
    wanted = max(budget, WIDENED) if not state.found else 1 if state.clear else budget
    prior = state.prior.flatten()
    considered = best_different(prior, state.boxes_xyxy, max(wanted, CONSIDERED))
    drawn = min(wanted, len(considered))
    placement = Placement(
        boxes_xyxy=state.boxes_xyxy[considered],
        score=prior[considered],
        drawn=drawn,
        reason=_reason(state, drawn, wanted),
    )
    return placement, considered[:drawn]


def _reason(state: SearchState, drawn: int, wanted: int) -> str:
    """Why no more regions were inpainted, as a clause."""
    if not state.found:
        return f"nothing in the picture looks like the caption, so {drawn} regions were compared"
    if state.clear:
        return "the region of the caption and the outline of the object agree, so one was enough"
    if drawn < wanted:
        return f"there are only {drawn} different regions" if drawn > 1 else "there is only one region"
    if drawn == 1:
        return "the budget is one region"
    return f"the first region is not clearly the right one, so {drawn} were compared"


def best_different(score: Float[Tensor, " N"], boxes_xyxy: Int[Tensor, "N 4"], count: int) -> list[int]:
    """The positions of the best `count` boxes by their score that overlap by at most MAX_OVERLAP, best first.

    boxes_xyxy: half-open. There are fewer than `count` if there are not enough different boxes.
    """
    return without_overlaps(boxes_xyxy, score, max_iou=MAX_OVERLAP, count=count)
