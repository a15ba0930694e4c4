"""Ways to choose a region, replayed on an exhaustive table: what each would have evaluated and chosen, and its cost.

A policy is one function (table, noise, rng) -> Replay. It may use the losses of finished edits and previews from
that one noise, each of which has a cost. To add one, write it and name it in `policies`. An edit that is finished
after a preview is paid in full, because it starts again; a model that could continue from a preview would pay less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from maskless.data.config import ResolvedConfig
from maskless.evaluation.methods.region_table import RegionTable
from maskless.method.ranking import rank
from maskless.method.search import evaluate_chosen, final_sizes, location_cost, search, start_search

KEPT = 2
"""Successive halving keeps one in KEPT of each round."""


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What a policy picked, as a column of the table, and its cost: finished edits, and the denoiser's forwards and
    seconds of those and of previews."""

    picked: int
    inpaintings: int
    forwards: float
    seconds: float


Policy = Callable[[RegionTable, int, np.random.Generator], Replay]


def maskless(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """This package with its defaults: AnchorNet learns the sizes, and the ranking picks among one region for each
    anchor.

    Its search minimises the location's cost as well as the losses, and its ranking goes by the location alone. Regret
    is of losses only, so it says less about this policy than the judge does.
    """
    config = table.config
    columns, finished = _learn(table, noise, config)
    ranked = rank(table.scores_of(noise, columns), config.ranking, alpha=config.ranking_alpha, beta=config.ranking_beta)
    return _replay(table, columns[ranked.order[0]], finished=finished)


def maskless_by_loss(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The same search by the losses alone, which regret is counted in; it picks the candidate of least loss."""
    columns, finished = _learn(table, noise, replace(table.config, location_weight=0.0))
    return _replay(table, _least(table.losses[noise], columns), finished=finished)


def release(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """What the published release effectively does, on these anchors: a random size each, and the paper's ranking."""
    anchors, sizes = table.column_of.shape
    columns = table.column_of[torch.arange(anchors), torch.from_numpy(rng.integers(sizes, size=anchors))].tolist()
    config = table.config
    ranked = rank(table.scores_of(noise, columns), "paper", alpha=config.ranking_alpha, beta=config.ranking_beta)
    return _replay(table, columns[ranked.order[0]], finished=len(set(columns)))


def by_caption(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The proposal that is most the captioned object by the ranking `located`, which needs no inpainting."""
    columns = list(range(table.proposals))
    ranked = rank(table.scores_of(noise, columns), "located", alpha=1.0, beta=1.0)
    return _replay(table, ranked.order[0], finished=1)


def centre(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The box in the middle. It is not a proposal, so its regret can be negative."""
    return _replay(table, table.centre, finished=1)


def random_n(table: RegionTable, noise: int, rng: np.random.Generator, *, count: int) -> Replay:
    """The best of `count` different random proposals."""
    columns = rng.permutation(table.proposals)[:count].tolist()
    return _replay(table, _least(table.losses[noise], columns), finished=len(columns))


def all_sizes_of_the_first_anchor(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The best of all sizes around the first anchor."""
    columns = sorted(set(table.column_of[0].tolist()))
    return _replay(table, _least(table.losses[noise], columns), finished=len(columns))


def one_size_then_all(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The middle size of each anchor, then all other sizes of the best of them."""
    losses = table.losses[noise]
    first = table.column_of[:, table.column_of.shape[1] // 2].tolist()
    best = min(range(len(first)), key=lambda anchor: float(losses[first[anchor]]))
    columns = sorted({*first, *table.column_of[best].tolist()})
    return _replay(table, _least(losses, columns), finished=len(columns))


def halving(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """Uniform successive halving: all proposals at the shortest preview, the better half of them at the next one, and
    so on; the proposals that remain are finished."""
    columns = list(range(table.proposals))
    looked: dict[int, int] = {}
    for steps in sorted(table.previews):
        looked[steps] = len(columns)
        columns = _best_of(table.previews[steps][noise], columns, math.ceil(len(columns) / KEPT))
    return _replay(table, _least(table.losses[noise], columns), finished=len(columns), previewed=looked)


def funnel(table: RegionTable, noise: int, rng: np.random.Generator, *, steps: int, finalists: int) -> Replay:
    """All proposals at one preview, of which the best few are finished."""
    columns = list(range(table.proposals))
    kept = _best_of(table.previews[steps][noise], columns, finalists)
    looked = {steps: len(columns)}
    return _replay(table, _least(table.losses[noise], kept), finished=len(kept), previewed=looked)


def ucb(table: RegionTable, noise: int, rng: np.random.Generator, *, count: int) -> Replay:
    """UCB1 (Auer et al. 2002) with anchors as arms; a pull finishes one of the anchor's unseen sizes, at random.

    Rewards are falls of the loss, in standard deviations of the losses seen so far.
    """
    losses = table.losses[noise]
    left = [list(dict.fromkeys(rng.permutation(row).tolist())) for row in table.column_of.numpy()]
    pulled: list[list[float]] = [[] for _ in left]
    seen: list[int] = []
    while len(seen) < min(count, table.proposals):
        left = [[column for column in row if column not in seen] for row in left]
        known = [loss for each in pulled for loss in each]
        deviation = (float(np.std(known)) if known else 0.0) or 1.0
        bonus = math.log(max(len(seen), 1))
        values = [
            -math.inf
            if not row
            else math.inf
            if not losses_of
            else -float(np.mean(losses_of)) / deviation + math.sqrt(2 * bonus / len(losses_of))
            for row, losses_of in zip(left, pulled, strict=True)
        ]
        arm = int(np.argmax(values))
        column = left[arm][0]
        pulled[arm].append(float(losses[column]))
        seen.append(column)
    return _replay(table, _least(losses, seen), finished=len(seen))


def gaussian_process(table: RegionTable, noise: int, rng: np.random.Generator, *, count: int) -> Replay:
    """Bayesian search by expected improvement (Jones et al. 1998): a Gaussian process over centre and log side, with a
    length scale of a fifth of the picture and half an octave of size. The first three regions are random."""
    losses = table.losses[noise, : table.proposals].double().numpy()
    kernel = _kernel(table)
    seen = rng.permutation(table.proposals)[:3].tolist()
    while len(seen) < min(count, table.proposals):
        known = losses[seen]
        mean, scale = known.mean(), known.std() or 1.0
        solve = np.linalg.solve(kernel[np.ix_(seen, seen)] + 0.1 * np.eye(len(seen)), kernel[seen])
        expected = solve.T @ ((known - mean) / scale)
        deviation = np.sqrt(np.clip(1 - (kernel[seen] * solve).sum(axis=0), 1e-9, None))
        gain = (known.min() - mean) / scale - expected
        z = gain / deviation
        below = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
        value = gain * below + deviation * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        value[seen] = -np.inf
        seen.append(int(value.argmax()))
    return _replay(table, _least(table.losses[noise], seen), finished=len(seen))


def exhaustive_one_noise(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The best of all proposals finished from one noise: the least regret that a search with one noise can have."""
    columns = list(range(table.proposals))
    return _replay(table, _least(table.losses[noise], columns), finished=len(columns))


def exhaustive(table: RegionTable, noise: int, rng: np.random.Generator) -> Replay:
    """The best of all proposals finished from every noise; its regret is 0 by definition."""
    columns = list(range(table.proposals))
    return _replay(table, _least(table.mean_losses, columns), finished=len(columns) * len(table.losses))


def policies(previews: Sequence[int], proposals: int = 54) -> dict[str, Policy]:
    """Every policy by name, ours first, with the budgets that are smaller than this number of proposals."""
    named: dict[str, Policy] = {
        each.__name__.replace("_", " "): each
        for each in (maskless, maskless_by_loss, release, by_caption, centre, all_sizes_of_the_first_anchor)
    }
    named["one size then all"] = one_size_then_all
    for count in (1, 3, 9, 18, 27):
        if count < proposals:
            named[f"random {count}"] = partial(random_n, count=count)
    for count in (9, 18, 27):
        if count < proposals:
            named[f"UCB {count}"] = partial(ucb, count=count)
            named[f"GP {count}"] = partial(gaussian_process, count=count)
    if previews:
        named["halving"] = halving
    for steps in previews:
        named[f"preview {steps} then finish 3"] = partial(funnel, steps=steps, finalists=3)
    named["exhaustive of one noise"] = exhaustive_one_noise
    named["exhaustive"] = exhaustive
    return named


def _learn(table: RegionTable, noise: int, config: ResolvedConfig) -> tuple[list[int], int]:
    """The method's search on the table: one column for each anchor, and how many regions were inpainted."""
    flat, losses, inpainted = table.column_of.flatten(), table.losses[noise], set()

    def looked_up(cells: list[int]) -> Tensor:
        inpainted.update(flat[cells].tolist())
        return losses[flat[cells]]

    score = table.scores_of(noise, flat.tolist()).location
    state = start_search(
        table.features,
        table.boxes_xyxy[flat],
        config,
        seed=table.seed + noise,
        location_cost=location_cost(score, table.column_of.shape[1], config.location_weight),
    )
    for _record in search(state, table.features, looked_up, config):
        pass
    chosen = final_sizes(state, table.features)
    evaluate_chosen(state, chosen, looked_up)
    return table.column_of[torch.arange(len(chosen)), chosen].tolist(), len(inpainted)


def _kernel(table: RegionTable) -> np.ndarray:
    boxes = table.boxes_xyxy[: table.proposals].double().numpy()
    low, high = boxes[:, :2], boxes[:, 2:]
    across = float((high.max(axis=0) - low.min(axis=0)).max())
    centres = (low + high) / 2 / (across / 5)
    sizes = np.log2(high[:, 0] - low[:, 0]) / 0.5
    points = np.concatenate([centres, sizes[:, None]], axis=1)
    return np.exp(-((points[:, None] - points[None]) ** 2).sum(axis=2) / 2)


def _least(losses: Tensor, columns: Sequence[int]) -> int:
    return min(columns, key=lambda column: float(losses[column]))


def _best_of(losses: Tensor, columns: Sequence[int], count: int) -> list[int]:
    return sorted(columns, key=lambda column: float(losses[column]))[:count]


def _replay(table: RegionTable, picked: int, *, finished: int, previewed: dict[int, int] | None = None) -> Replay:
    looks = {table.steps: finished, **(previewed or {})}
    return Replay(
        picked=picked,
        inpaintings=finished,
        forwards=sum(count * table.forwards[steps] for steps, count in looks.items()),
        seconds=sum(count * table.seconds[steps] for steps, count in looks.items()),
    )
