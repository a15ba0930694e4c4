"""The search over sizes: method steps 6 and 9. It knows regions, a budget and a function that returns losses.

The editor has no gradient, so AnchorNet learns from a table l(k, m) of the losses seen. There are only K * M regions
and the noise is fixed, so the expected loss sum_k sum_m pi(m|k) l(k, m) over the cells seen is exact: no sampling
variance, and no region is inpainted twice. While a row has unseen cells the policy's draws go to those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.result import AnchorNetReport, StepRecord
from maskless.method.anchor_net import AnchorNet

BETAS = (0.9, 0.96)
WEIGHT_DECAY = 4.5e-2
SOFT_UPDATE_COST = 20
"""A straight-through update runs CLIP forwards and backwards, so it gets this many times fewer updates."""

Evaluate = Callable[[list[int]], Tensor]
"""Cells (k * M + m) -> their total losses [n]; called at most once for every region."""
SoftLosses = Callable[[Tensor, Tensor], Tensor]
"""Chosen size per anchor [K] and mask weights [K, M] -> total losses [K], differentiable in the weights."""


@dataclass(eq=False)
class SearchState:
    """All that a search needs to go on where it stopped; the one mutable thing of the method.

    table: l(k, m), NaN where unseen. same_as: for each cell the first cell with the very same box, so that boxes which
    meet at the picture's border count as one region. place_cost: what a region pays for missing the place that the
    caption names, in spreads of the losses; zeros where no place is named. pending: region edits since the last update.
    """

    anchor_net: AnchorNet
    optimizer: torch.optim.Adam
    generator: torch.Generator
    table: Float[Tensor, "K M"]
    same_as: Int[Tensor, " N"]
    place_cost: Float[Tensor, "K M"]
    probabilities_before: Float[Tensor, "K M"]
    iteration: int = 0
    pending: int = 0
    updates: int = 0
    history: list[StepRecord] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values and tensors, as `torch.load(weights_only=True)` opens them; a copy, not a view."""
        return {
            "anchor_net": {name: value.clone() for name, value in self.anchor_net.state_dict().items()},
            "optimizer": _copied(self.optimizer.state_dict()),
            "generator": self.generator.get_state(),
            "table": self.table.clone(),
            "same_as": self.same_as.clone(),
            "probabilities_before": self.probabilities_before.clone(),
            "iteration": self.iteration,
            "pending": self.pending,
            "updates": self.updates,
            "history": [record.to_dict() for record in self.history],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `to_dict` gave.

        Raises:
            MasklessError: it belongs to a search of another shape or over other boxes.
        """
        if tuple(saved["table"].shape) != tuple(self.table.shape):
            raise MasklessError(
                f"the checkpoint must be of {list(self.table.shape)} anchors x sizes, got {list(saved['table'].shape)}"
            )
        if not torch.equal(saved["same_as"], self.same_as):
            raise MasklessError("the checkpoint must be of the same regions, got another picture's or other options'")
        self.anchor_net.load_state_dict(saved["anchor_net"])
        self.optimizer.load_state_dict(_copied(saved["optimizer"]))
        self.generator.set_state(saved["generator"])
        self.table = saved["table"].clone()
        self.probabilities_before = saved["probabilities_before"].clone()
        self.iteration, self.pending, self.updates = saved["iteration"], saved["pending"], saved["updates"]
        self.history = [StepRecord(**record | {"chosen": tuple(record["chosen"])}) for record in saved["history"]]


def start_search(
    regions: Float[Tensor, "K C 8 8"],
    boxes_xyxy: Int[Tensor, "N 4"],
    config: EditConfig,
    *,
    seed: int,
    place_cost: Float[Tensor, "K M"] | None = None,
) -> SearchState:
    """A search that has seen nothing.

    Args:
        regions: region features, method step 4. boxes_xyxy: the K * M boxes, anchor-major.
        seed: of AnchorNet's first weights and of the draws; the global generator is never touched.
        place_cost: what each region pays beside its losses, in spreads of those; None for nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    anchor_count = regions.shape[0]
    size_count = boxes_xyxy.shape[0] // anchor_count
    anchor_net = AnchorNet(size_count, generator)
    optimizer = torch.optim.Adam(anchor_net.parameters(), lr=config.lr, betas=BETAS, weight_decay=WEIGHT_DECAY)
    first: dict[tuple[int, ...], int] = {}
    same_as = [first.setdefault(tuple(box), cell) for cell, box in enumerate(boxes_xyxy.tolist())]
    with torch.no_grad():
        before = anchor_net(regions).exp()
    return SearchState(
        anchor_net=anchor_net,
        optimizer=optimizer,
        generator=generator,
        table=torch.full((anchor_count, size_count), torch.nan),
        same_as=torch.tensor(same_as),
        place_cost=torch.zeros(anchor_count, size_count) if place_cost is None else place_cost,
        probabilities_before=before,
    )


def search(
    state: SearchState,
    regions: Float[Tensor, "K C 8 8"],
    evaluate: Evaluate,
    config: EditConfig,
    *,
    soft_losses: SoftLosses | None = None,
) -> Iterator[StepRecord]:
    """Iterate until the budget of `config` is used up; yields after each iteration, when `state` can be saved.

    With estimator "straight-through", `soft_losses` gives the losses that carry a gradient.
    """
    anchor_count = regions.shape[0]
    while state.iteration < config.total_iterations:
        began = time.perf_counter()
        with torch.no_grad():
            log_probs = state.anchor_net(regions)
        chosen = draw_sizes(log_probs, state.table, state.generator)
        look_at(state, chosen, evaluate)
        state.iteration += 1
        state.pending += anchor_count
        if state.pending >= config.gradient_accumulation or state.iteration == config.total_iterations:
            _update(state, regions, config, soft_losses)
            state.pending = 0
        record = StepRecord(
            iteration=state.iteration,
            total_iterations=config.total_iterations,
            epoch=1 + (state.iteration - 1) // max(config.iterations, 1),
            loss=float(state.table.gather(1, chosen[:, None]).mean()),
            expected_loss=expected_loss(policy(state, regions), objective(state)),
            chosen=tuple(chosen.tolist()),
            inpaintings=regions_seen(state),
            updates=state.updates,
            seconds=time.perf_counter() - began,
        )
        state.history.append(record)
        yield record


def draw_sizes(
    log_probs: Float[Tensor, "K M"], table: Float[Tensor, "K M"], generator: torch.Generator
) -> Int[Tensor, " K"]:
    """One size per anchor by the Gumbel-max rule, from pi among the sizes unseen, from all of pi once a row is full."""
    seen = ~table.isnan()
    blocked = seen & ~seen.all(dim=1, keepdim=True)
    return (log_probs.masked_fill(blocked, -torch.inf) + _gumbel(log_probs, generator)).argmax(dim=1)


def final_sizes(state: SearchState, regions: Float[Tensor, "K C 8 8"]) -> Int[Tensor, " K"]:
    """The most probable size of each anchor, without noise (mistake 10)."""
    return policy(state, regions).argmax(dim=1)


def policy(state: SearchState, regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K M"]:
    """pi(m|k); rows sum to 1."""
    with torch.no_grad():
        return state.anchor_net(regions).exp()


def look_at(state: SearchState, chosen: Int[Tensor, " K"], evaluate: Evaluate) -> None:
    """Put the losses of the chosen cells in the table, evaluating those regions that were never seen."""
    size_count = state.table.shape[1]
    cells = state.same_as[torch.arange(len(chosen)) * size_count + chosen]
    flat = state.table.flatten()
    unseen = sorted({int(cell) for cell in cells if bool(flat[cell].isnan())})
    if not unseen:
        return
    losses = evaluate(unseen).detach().to(flat)
    if not bool(losses.isfinite().all()):
        raise MasklessError(f"losses must be finite, got {losses.tolist()} for cells {unseen}")
    flat[torch.tensor(unseen)] = losses
    state.table = flat[state.same_as].reshape(state.table.shape)


def regions_seen(state: SearchState) -> int:
    """How many different regions have been inpainted."""
    seen = ~state.table.flatten().isnan()
    return len(set(state.same_as[seen].tolist()))


def expected_loss(probabilities: Float[Tensor, "K M"], table: Float[Tensor, "K M"]) -> float:
    """sum_m pi(m|k) l(k, m) over the sizes seen, pi renormalised among them, mean over the anchors that have any."""
    seen = ~table.isnan()
    weights = probabilities * seen
    total = weights.sum(dim=1)
    rows = (weights * table.nan_to_num()).sum(dim=1) / total.clamp(min=1e-30)
    return float(rows[seen.any(dim=1)].mean()) if bool(seen.any()) else math.nan


def report(state: SearchState, regions: Float[Tensor, "K C 8 8"]) -> AnchorNetReport:
    """What was learned, over all the cells seen by now."""
    after, minimised = policy(state, regions), objective(state)
    return AnchorNetReport(
        probabilities_before=state.probabilities_before,
        probabilities_after=after,
        expected_loss_before=expected_loss(state.probabilities_before, minimised),
        expected_loss_after=expected_loss(after, minimised),
    )


def objective(state: SearchState) -> Float[Tensor, "K M"]:
    """What AnchorNet minimises the expectation of: l(k, m) and the cost of the place; NaN where unseen."""
    return state.table + _spread(state.table) * state.place_cost


def planned_updates(anchor_count: int, config: EditConfig) -> int:
    """Optimiser steps in the whole budget: some at every `gradient_accumulation` region edits, and the rest flushed."""
    iterations_each = math.ceil(config.gradient_accumulation / anchor_count)
    return math.ceil(config.total_iterations / iterations_each) * _updates_each(config)


def _updates_each(config: EditConfig) -> int:
    return config.updates if config.estimator == "table" else max(1, config.updates // SOFT_UPDATE_COST)


def _update(
    state: SearchState, regions: Float[Tensor, "K C 8 8"], config: EditConfig, soft_losses: SoftLosses | None
) -> None:
    """Method step 9: Adam on the expected loss, its rate falling by a cosine over the whole budget."""
    planned = planned_updates(regions.shape[0], config)
    advantages, spread = in_row_spreads(objective(state)), _spread(state.table)
    by_table = config.estimator == "table"
    with _one_thread() if by_table else nullcontext():
        for _ in range(_updates_each(config)):
            rate = 0.5 * config.lr * (1 + math.cos(math.pi * min(state.updates / planned, 1)))
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            log_probs = state.anchor_net(regions)
            if by_table:
                loss = (log_probs.exp() * advantages).sum()
            else:
                loss = _straight_through(state, log_probs, soft_losses, spread) / spread
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.optimizer.step()
            state.updates += 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """Two thousand parameters gain nothing from threads, and on a busy machine each hand-over costs a time slice."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_row_spreads(table: Float[Tensor, "K M"]) -> Float[Tensor, "K M"]:
    """Each value less its anchor's mean, in units of the table's spread; 0 where unseen.

    The mean changes no gradient of a full row and makes an unseen size count as an average one. The unit keeps the
    published learning rate and weight decay in proportion whatever the spread of the losses is.
    """
    return _centred(table) / _spread(table)


def place_cost(score: Float[Tensor, " N"], size_count: int, weight: float) -> Float[Tensor, "K M"]:
    """What regions pay for not being the captioned thing, in spreads. score: of each region, anchor-major, larger is
    better (`ranking.place_score`). The losses look at the whole picture and are blind to where an edit is."""
    return -weight * in_row_spreads(score.reshape(-1, size_count))


def _spread(table: Float[Tensor, "K M"]) -> float:
    """The standard deviation of the seen around their anchors' means; 1 where there is none."""
    seen = int((~table.isnan()).sum())
    return math.sqrt(float(_centred(table).square().sum()) / max(seen, 1)) or 1.0


def _centred(table: Float[Tensor, "K M"]) -> Float[Tensor, "K M"]:
    seen = ~table.isnan()
    filled = table.nan_to_num()
    mean = (filled * seen).sum(dim=1, keepdim=True) / seen.sum(dim=1, keepdim=True).clamp(min=1)
    return (filled - mean) * seen


def _straight_through(
    state: SearchState, log_probs: Float[Tensor, "K M"], soft_losses: SoftLosses | None, spread: float
) -> Float[Tensor, ""]:
    """The paper's estimator: a hard choice forwards, the Gumbel-softmax's gradient backwards, through the composite."""
    if soft_losses is None:
        raise MasklessError("the straight-through estimator needs losses that carry a gradient")
    noisy = (log_probs + _gumbel(log_probs, state.generator)).masked_fill(state.table.isnan(), -torch.inf)
    soft = noisy.softmax(dim=1)
    chosen = soft.argmax(dim=1)
    hard = torch.nn.functional.one_hot(chosen, soft.shape[1]).to(soft)
    weights = hard - soft.detach() + soft
    return soft_losses(chosen, weights).sum() + spread * (weights * state.place_cost).sum()


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


def _copied(value: Any) -> Any:
    """Dicts, lists and tensors all the way down, so that a saved state does not change with the optimiser's."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
