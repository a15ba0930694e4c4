"""A search whose right answer is known: a table of losses with one best size."""

from collections.abc import Callable

import torch

from maskless.data.config import EditConfig
from maskless.method.anchor_net import standardised
from maskless.method.search import SearchState, start_search

K, M = 9, 6


def planted_search(best: int, seed: int = 0) -> tuple[SearchState, torch.Tensor, Callable[[list[int]], torch.Tensor]]:
    """The state, the region features and the losses of a search in which size `best` is best at every anchor."""
    generator = torch.Generator().manual_seed(seed)
    regions = standardised(torch.randn(K, M * 12, 8, 8, generator=generator))
    table = 1.5 + 0.01 * torch.randn(K, M, generator=generator)
    table[:, best] = 1.44
    state = start_search(regions, torch.arange(K * M * 4).reshape(K * M, 4), EditConfig(), seed=seed)
    return state, regions, lambda cells: table.flatten()[cells]
