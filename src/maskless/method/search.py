"""The learned search (method steps 6 and 9), and the state that every search has.

Its inputs are regions, a budget and a function that returns losses.

The inpainting passes no gradient, so AnchorNet learns from a table l(k, m) of the losses that were evaluated. There are
only K * M regions and the noise is fixed, so the expected loss sum_k sum_m pi(m|k) l(k, m) over the evaluated cells is
exact: it has no sampling variance, and no region is inpainted twice. While an anchor has sizes that were not evaluated,
the policy samples among those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.result import AnchorNetReport, SearchStep
from maskless.method.anchor_net import AnchorNet

State = Mapping[str, Any]
"""Plain values and tensors by name, which `torch.load(path, weights_only=True)` can open."""
BETAS = (0.9, 0.96)
WEIGHT_DECAY = 4.5e-2
SOFT_UPDATE_COST = 20
"""A straight-through update runs CLIP forwards and backwards, so that estimator makes this many times fewer updates."""

Evaluate = Callable[[list[int]], Tensor]
"""From n cells (k * M + m) to their total losses [n]. It is called at most once for each region."""
SoftLosses = Callable[[Tensor, Tensor], Tensor]
"""From a chosen size per anchor [K] and mask weights [K, M] to total losses [K], differentiable in the weights."""


@dataclass(eq=False)
class SearchState:
    """Everything that a search needs to continue where it stopped; the only mutable object of the method.

    table: l(k, m), NaN where not evaluated. same_as: for each cell the first cell with the same box, so that boxes
    which coincide at the picture's border count as one region. location_cost: the cost of a region for not fitting the
    object that the caption names, in standard deviations of the losses; zeros if the caption names nothing. prior: how
    well each region fits before anything is inpainted; larger is better. boxes_xyxy: the regions, anchor-major. found:
    whether something in the picture looks like the caption; True without a caption. clear: whether the region that fits
    best is clearly the right one.
    probabilities_before: pi(m|k) before the first update. iteration: number of complete iterations. pending: number of
    region edits since the last update. updates: number of updates so far.
    """

    anchor_net: AnchorNet
    optimizer: torch.optim.Adam
    generator: torch.Generator
    table: Float[Tensor, "K M"]
    same_as: Int[Tensor, " N"]
    location_cost: Float[Tensor, "K M"]
    prior: Float[Tensor, "K M"]
    boxes_xyxy: Int[Tensor, "N 4"]
    found: bool
    clear: bool
    probabilities_before: Float[Tensor, "K M"]
    iteration: int = 0
    pending: int = 0
    updates: int = 0

    def to_dict(self) -> State:
        """A copy as plain values and tensors, which `torch.load(weights_only=True)` can open."""
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
        }

    def restore(self, saved: State) -> None:
        """Continue from a state that `to_dict` returned.

        Raises:
            MasklessError: the state belongs to a search of another shape or over other boxes.
        """
        if tuple(saved["table"].shape) != tuple(self.table.shape):
            expected, found = list(self.table.shape), list(saved["table"].shape)
            raise MasklessError(f"the checkpoint must have {expected} anchors x sizes, got {found}")
        if not torch.equal(saved["same_as"], self.same_as):
            raise MasklessError("the checkpoint must have the same regions, got those of another picture or options")
        self.anchor_net.load_state_dict(saved["anchor_net"])
        self.optimizer.load_state_dict(_copied(saved["optimizer"]))
        self.generator.set_state(saved["generator"])
        self.table = saved["table"].clone()
        self.probabilities_before = saved["probabilities_before"].clone()
        self.iteration, self.pending, self.updates = saved["iteration"], saved["pending"], saved["updates"]


def start_search(
    regions: Float[Tensor, "K C 8 8"],
    boxes_xyxy: Int[Tensor, "N 4"],
    config: EditConfig,
    *,
    seed: int,
    location_cost: Float[Tensor, "K M"] | None = None,
    prior: Float[Tensor, "K M"] | None = None,
    found: bool = True,
    clear: bool = False,
) -> SearchState:
    """The state of a search in which nothing has been evaluated.

    Args:
        regions: region features (method step 4).
        boxes_xyxy: the K * M boxes, anchor-major.
        config: the learning rate is read here.
        seed: seed of AnchorNet's first weights and of the sampled sizes; torch's global generator is not used.
        location_cost: a cost of each region beside its loss, in standard deviations of the losses; None for no cost.
        prior: how well each region fits before anything is inpainted; None if nothing is known.
        found: whether something in the picture looks like the caption.
        clear: whether the region that fits best is clearly the right one.
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
        location_cost=torch.zeros(anchor_count, size_count) if location_cost is None else location_cost,
        prior=torch.zeros(anchor_count, size_count) if prior is None else prior,
        boxes_xyxy=boxes_xyxy,
        found=found,
        clear=clear,
        probabilities_before=before,
    )


def search(
    state: SearchState,
    regions: Float[Tensor, "K C 8 8"],
    evaluate: Evaluate,
    config: EditConfig,
    *,
    soft_losses: SoftLosses | None = None,
) -> Iterator[SearchStep]:
    """Iterate until the budget of `config` is used up, and yield after each iteration, when `state` can be saved.

    soft_losses: differentiable losses, needed only by the estimator "straight-through".
    """
    anchor_count = regions.shape[0]
    while state.iteration < config.total_iterations:
        began = time.perf_counter()
        with torch.no_grad():
            log_probs = state.anchor_net(regions)
        chosen = draw_sizes(log_probs, state.table, state.generator)
        evaluate_chosen(state, chosen, evaluate)
        state.iteration += 1
        state.pending += anchor_count
        if state.pending >= config.gradient_accumulation or state.iteration == config.total_iterations:
            _update(state, regions, config, soft_losses)
            state.pending = 0
        yield SearchStep(
            step=state.iteration,
            total_steps=config.total_iterations,
            epoch=1 + (state.iteration - 1) // max(config.iterations, 1),
            loss=float(state.table.gather(1, chosen[:, None]).mean()),
            expected_loss=expected_loss(policy(state, regions), objective(state)),
            chosen=tuple(chosen.tolist()),
            inpaintings=count_evaluated_regions(state),
            updates=state.updates,
            seconds=time.perf_counter() - began,
        )


def draw_sizes(
    log_probs: Float[Tensor, "K M"], table: Float[Tensor, "K M"], generator: torch.Generator
) -> Int[Tensor, " K"]:
    """One size per anchor, sampled from pi by the Gumbel-max rule.

    It is one of the sizes that were not evaluated yet, or any size once the anchor's row is full.
    """
    evaluated = ~table.isnan()
    excluded = evaluated & ~evaluated.all(dim=1, keepdim=True)
    return (log_probs.masked_fill(excluded, -torch.inf) + _gumbel(log_probs, generator)).argmax(dim=1)


def final_sizes(state: SearchState, regions: Float[Tensor, "K C 8 8"]) -> Int[Tensor, " K"]:
    """The most probable size of each anchor among those that were evaluated, without noise (mistake 10).

    AnchorNet knows nothing about a size that was never tried. Where no size of an anchor was, all count.
    """
    untried = state.table.isnan() & ~state.table.isnan().all(dim=1, keepdim=True)
    return policy(state, regions).masked_fill(untried, -1).argmax(dim=1)


def policy(state: SearchState, regions: Float[Tensor, "K C 8 8"]) -> Float[Tensor, "K M"]:
    """pi(m|k); rows sum to 1."""
    with torch.no_grad():
        return state.anchor_net(regions).exp()


def evaluate_chosen(state: SearchState, chosen: Int[Tensor, " K"], evaluate: Evaluate) -> None:
    """Evaluate those of the chosen regions that have no loss yet, and enter their losses in the table.

    Raises:
        MasklessError: a loss that is not finite.
    """
    evaluate_cells(state, torch.arange(len(chosen)) * state.table.shape[1] + chosen, evaluate)


def evaluate_cells(state: SearchState, cells: Int[Tensor, " n"], evaluate: Evaluate) -> None:
    """Evaluate those of these regions that have no loss yet; see `evaluate_chosen`."""
    cells = state.same_as[cells]
    flat = state.table.flatten()
    new_cells = sorted({int(cell) for cell in cells if bool(flat[cell].isnan())})
    if not new_cells:
        return
    losses = evaluate(new_cells).detach().to(flat)
    if not bool(losses.isfinite().all()):
        raise MasklessError(f"losses must be finite, got {losses.tolist()} for cells {new_cells}")
    flat[torch.tensor(new_cells)] = losses
    state.table = flat[state.same_as].reshape(state.table.shape)


def count_evaluated_regions(state: SearchState) -> int:
    """The number of different regions that have been inpainted."""
    evaluated = ~state.table.flatten().isnan()
    return len(set(state.same_as[evaluated].tolist()))


def expected_loss(probabilities: Float[Tensor, "K M"], table: Float[Tensor, "K M"]) -> float:
    """sum_m pi(m|k) l(k, m) over the evaluated sizes, averaged over the anchors that have any; NaN if none has.

    pi is renormalised over the evaluated sizes of each anchor. table: l(k, m), NaN where not evaluated.
    """
    evaluated = ~table.isnan()
    weights = probabilities * evaluated
    total = weights.sum(dim=1)
    rows = (weights * table.nan_to_num()).sum(dim=1) / total.clamp(min=1e-30)
    return float(rows[evaluated.any(dim=1)].mean()) if bool(evaluated.any()) else math.nan


def report(state: SearchState, regions: Float[Tensor, "K C 8 8"]) -> AnchorNetReport:
    """What AnchorNet has learned, with expected losses over all cells evaluated so far."""
    after, minimised = policy(state, regions), objective(state)
    return AnchorNetReport(
        probabilities_before=state.probabilities_before,
        probabilities_after=after,
        expected_loss_before=expected_loss(state.probabilities_before, minimised),
        expected_loss_after=expected_loss(after, minimised),
    )


def objective(state: SearchState) -> Float[Tensor, "K M"]:
    """The values whose expectation AnchorNet minimises: l(k, m) plus the cost of the location; NaN if not evaluated."""
    return state.table + _deviation(state.table) * state.location_cost


def planned_updates(anchor_count: int, config: EditConfig) -> int:
    """The number of optimiser steps in the whole budget.

    A round of updates follows whenever `gradient_accumulation` region edits are pending, and after the last iteration.
    """
    iterations_per_round = math.ceil(config.gradient_accumulation / anchor_count)
    return math.ceil(config.total_iterations / iterations_per_round) * _updates_per_round(config)


def _updates_per_round(config: EditConfig) -> int:
    return config.updates if config.estimator == "table" else max(1, config.updates // SOFT_UPDATE_COST)


def _update(
    state: SearchState, regions: Float[Tensor, "K C 8 8"], config: EditConfig, soft_losses: SoftLosses | None
) -> None:
    """A round of updates (method step 9): Adam on the expected loss, with a cosine schedule over the whole budget."""
    planned = planned_updates(regions.shape[0], config)
    advantages, deviation = in_row_deviations(objective(state)), _deviation(state.table)
    by_table = config.estimator == "table"
    with _one_thread() if by_table else nullcontext():
        for _ in range(_updates_per_round(config)):
            rate = 0.5 * config.lr * (1 + math.cos(math.pi * min(state.updates / planned, 1)))
            for group in state.optimizer.param_groups:
                group["lr"] = rate
            log_probs = state.anchor_net(regions)
            if by_table:
                loss = (log_probs.exp() * advantages).sum()
            else:
                loss = _straight_through(state, log_probs, soft_losses, deviation) / deviation
            state.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            state.optimizer.step()
            state.updates += 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run the block on one thread: for two thousand parameters, waiting for other threads costs more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def in_row_deviations(table: Float[Tensor, "K M"]) -> Float[Tensor, "K M"]:
    """Each value minus its anchor's mean, divided by the table's standard deviation; 0 where not evaluated.

    Subtracting the mean does not change the gradient of a full row, and makes a size that was not evaluated count as an
    average one. The division keeps the published learning rate and weight decay in proportion to losses of any range.
    """
    return _centred(table) / _deviation(table)


def location_cost(score: Float[Tensor, " N"], size_count: int, weight: float) -> Float[Tensor, "K M"]:
    """The cost of each region for not fitting the object that the caption names, in standard deviations of the losses.

    It is needed because the paper's losses look at the whole picture and hardly depend on where an edit is.

    score: the score of each region, anchor-major, larger is better (`ranking.location_score`). size_count: M.
    weight: the cost of one standard deviation of the score.
    """
    return -weight * in_row_deviations(score.reshape(-1, size_count))


def _deviation(table: Float[Tensor, "K M"]) -> float:
    """The standard deviation of the evaluated cells from the means of their anchors; 1 instead of 0."""
    evaluated = int((~table.isnan()).sum())
    return math.sqrt(float(_centred(table).square().sum()) / max(evaluated, 1)) or 1.0


def _centred(table: Float[Tensor, "K M"]) -> Float[Tensor, "K M"]:
    """Each value minus the mean of its anchor's evaluated cells; 0 where not evaluated."""
    evaluated = ~table.isnan()
    filled = table.nan_to_num()
    mean = (filled * evaluated).sum(dim=1, keepdim=True) / evaluated.sum(dim=1, keepdim=True).clamp(min=1)
    return (filled - mean) * evaluated


def _straight_through(
    state: SearchState, log_probs: Float[Tensor, "K M"], soft_losses: SoftLosses | None, deviation: float
) -> Float[Tensor, ""]:
    """The loss of the paper's estimator.

    The forward pass uses a hard choice of sizes, and the backward pass the gradient of the Gumbel-softmax, through the
    pasted picture.
    """
    if soft_losses is None:
        raise MasklessError("the straight-through estimator needs differentiable losses (soft_losses), got None")
    noisy = (log_probs + _gumbel(log_probs, state.generator)).masked_fill(state.table.isnan(), -torch.inf)
    soft = noisy.softmax(dim=1)
    chosen = soft.argmax(dim=1)
    hard = torch.nn.functional.one_hot(chosen, soft.shape[1]).to(soft)
    weights = hard - soft.detach() + soft
    return soft_losses(chosen, weights).sum() + deviation * (weights * state.location_cost).sum()


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


def _copied(value: Any) -> Any:
    """A deep copy of dicts, lists and tensors, so that a saved state does not change when the optimiser continues."""
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else value
