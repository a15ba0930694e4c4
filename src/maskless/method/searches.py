"""The ways to find a region, by the name that the option `search` has.

Every search is one generator of steps with the same signature. To add one, write it in a module of this folder, add it
to SEARCHES, and its name to SEARCHES of data/config.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.result import Placement, StepRecord
from maskless.method.exhaustive import best_of_each_anchor, exhaustive_search
from maskless.method.placed import place, placed_search
from maskless.method.search import Evaluate, SearchState, SoftLosses, final_sizes, search


@runtime_checkable
class Steps(Protocol):
    """Makes the steps of a search that are still to be made, and yields after each, when `state` can be saved.

    regions: AnchorNet's input for each anchor. evaluate: inpaints regions and returns their losses. soft_losses:
    differentiable losses, for the estimator "straight-through" of the learned search.
    """

    def __call__(
        self,
        state: SearchState,
        regions: Float[Tensor, "K C 8 8"],
        evaluate: Evaluate,
        config: EditConfig,
        *,
        soft_losses: SoftLosses | None = None,
    ) -> Iterator[StepRecord]: ...


@dataclass(frozen=True, kw_only=True)
class Search:
    """One way to find a region.

    steps: see `Steps`. candidates: the cells of the candidates, once all steps are made; they may include cells that
    are not evaluated yet. total_steps: how many steps there are. learns: whether AnchorNet is trained. uses_loss:
    whether the losses choose anything; if not, CLIP looks at one view of each candidate, for the record alone.
    placement: which regions the search considered and why it stopped; None if it has no such record.
    """

    steps: Steps
    candidates: Callable[[SearchState, Float[Tensor, "K C 8 8"], EditConfig], list[int]]
    total_steps: Callable[[EditConfig], int]
    learns: bool = False
    uses_loss: bool = True
    placement: Callable[[SearchState, EditConfig], Placement] | None = None


def _most_probable(state: SearchState, regions: Float[Tensor, "K C 8 8"], config: EditConfig) -> list[int]:
    """The cell of the most probable size of each anchor (method step 6)."""
    chosen = final_sizes(state, regions)
    return (torch.arange(len(chosen)) * state.table.shape[1] + chosen).tolist()


LEARNED = Search(
    steps=search, candidates=_most_probable, total_steps=lambda config: config.total_iterations, learns=True
)
SEARCHES = {
    "placed": Search(
        steps=placed_search,
        candidates=lambda state, regions, config: place(state, config.budget)[1],
        total_steps=lambda config: 1,
        uses_loss=False,
        placement=lambda state, config: place(state, config.budget)[0],
    ),
    "learned": LEARNED,
    "paper": LEARNED,
    "exhaustive": Search(
        steps=exhaustive_search,
        candidates=lambda state, regions, config: best_of_each_anchor(state),
        total_steps=lambda config: len(config.sizes),
    ),
}
