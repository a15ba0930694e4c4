"""The exhaustive search: every region is inpainted, and the best size of each anchor becomes a candidate."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.result import DrawnStep
from maskless.method.search import (
    Evaluate,
    SearchState,
    SoftLosses,
    count_evaluated_regions,
    evaluate_chosen,
    objective,
)


def exhaustive_search(
    state: SearchState,
    regions: Float[Tensor, "K C 8 8"],
    evaluate: Evaluate,
    config: EditConfig,
    *,
    soft_losses: SoftLosses | None = None,
) -> Iterator[DrawnStep]:
    """Inpaint the regions of all anchors in one size after the other. `regions` and `soft_losses` are not used."""
    anchors, sizes = state.table.shape
    while state.iteration < sizes:
        began = time.perf_counter()
        size = state.iteration
        evaluate_chosen(state, torch.full((anchors,), size), evaluate)
        state.iteration += 1
        yield DrawnStep(
            step=state.iteration,
            total_steps=sizes,
            inpaintings=count_evaluated_regions(state),
            seconds=time.perf_counter() - began,
            loss=float(state.table[:, size].mean()),
        )


def best_of_each_anchor(state: SearchState) -> list[int]:
    """The cell of least `objective` of each anchor, once every region was inpainted."""
    best = objective(state).argmin(dim=1)
    return (torch.arange(len(best)) * state.table.shape[1] + best).tolist()
