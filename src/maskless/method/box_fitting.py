"""Fitting the edges of a square region to the captioned object, which is seldom square. Nothing is inpainted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Box = tuple[int, int, int, int]
Score = Callable[[Int[Tensor, "N 4"]], Float[Tensor, " N"]]
"""How well each of N boxes fits the object; larger is better. The score of a box must not depend on the other boxes."""

STEPS = (0.15, 0.08)
"""How far an edge is moved at a time, as a share of the box's longer side: first coarsely, then finely."""
ROUNDS = 2
"""Maximum number of moves at each step size."""
REACH_SHARE = 0.15
"""The box is extended to an edge of the object's outline that lies at most this far outside of it, as a share of the
box's longer side. The scores alone would cut off an end of the object rather than include what is next to it."""
PROMISING = 2
"""How many of the moves of a round are scored: those that a cheaper score puts first (docs/search.md)."""
MIN_SIDE_SHARE = 0.08
"""Minimum side of a fitted box, as a share of the picture's shorter side."""
MARGIN_SHARE = 1 / 64
"""Margin around a fitted box, as a share of the picture's shorter side. The scores are best for a box that touches the
object, but the edit has to cover the object inside its blended seam."""


def fit_edges(
    box_xyxy: Box, box_score: float, score: Score, size_yx: tuple[int, int], *, cheap_score: Score
) -> tuple[Box, float]:
    """The box after greedy moves of single edges, each the one of the PROMISING moves that raises the score most.

    Args:
        box_xyxy: half-open, in pixels of a picture of `size_yx`; no side is longer than the picture's shorter side.
        box_score: the score of this box.
        score: called with at most PROMISING boxes at a time, at most ROUNDS times for each of STEPS.
        cheap_score: called with all moves of a round, at most 8, to choose the promising ones.
    Returns:
        A box inside the picture, with no side longer than the picture's shorter side, and its score, which is at least
        `box_score`.
    """
    for share in STEPS:
        step = max(1, round(share * max(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1])))
        for _ in range(ROUNDS):
            moved = _moved(box_xyxy, step, size_yx)
            order = cheap_score(torch.tensor(moved)).argsort(descending=True, stable=True)
            moved = [moved[position] for position in order[:PROMISING].tolist()]
            scores = score(torch.tensor(moved))
            best = int(scores.argmax())
            if float(scores[best]) <= box_score:
                break
            box_xyxy, box_score = moved[best], float(scores[best])
    return box_xyxy, box_score


def extend_fitted_box(box_xyxy: Box, outline_xyxy: Sequence[int] | None, size_yx: tuple[int, int]) -> Box:
    """A fitted box extended to those edges of the object's outline that are just outside of it, and by a margin.

    docs/search.md has the measurements that this is based on.

    Args:
        box_xyxy: half-open, in pixels of a picture of `size_yx`; no side is longer than the picture's shorter side.
        outline_xyxy: the box of the object's outline, or None if it is not known.
    Returns:
        A box inside the picture, with no side longer than the picture's shorter side.
    """
    if outline_xyxy is not None:
        box_xyxy = _extended_to(box_xyxy, outline_xyxy, size_yx)
    return _with_margin(box_xyxy, size_yx)


def _moved(box_xyxy: Box, step: int, size_yx: tuple[int, int]) -> list[Box]:
    """The boxes with one edge moved by a step in or out whose sides are in range; the box itself if there are none."""
    height, width = size_yx
    shortest, longest = MIN_SIDE_SHARE * min(size_yx), min(size_yx)
    moved = []
    for edge, limit in enumerate((width, height, width, height)):
        for shift in (-step, step):
            edges = list(box_xyxy)
            edges[edge] = min(max(edges[edge] + shift, 0), limit)
            x0, y0, x1, y1 = edges
            if all(shortest <= side <= longest for side in (x1 - x0, y1 - y0)):
                moved.append((x0, y0, x1, y1))
    return moved or [box_xyxy]


def _extended_to(box_xyxy: Box, outline_xyxy: Sequence[int], size_yx: tuple[int, int]) -> Box:
    """The box extended to those edges of the outline that lie just outside of it, as long as no side becomes longer
    than the picture's shorter side."""
    reach = REACH_SHARE * max(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1])
    edges = list(box_xyxy)
    for position, (edge, outline_edge) in enumerate(zip(box_xyxy, outline_xyxy, strict=True)):
        outwards = edge - outline_edge if position < 2 else outline_edge - edge
        side = abs(outline_edge - edges[(position + 2) % 4])
        if 0 < outwards <= reach and side <= min(size_yx):
            edges[position] = outline_edge
    x0, y0, x1, y1 = edges
    return x0, y0, x1, y1


def _with_margin(box_xyxy: Box, size_yx: tuple[int, int]) -> Box:
    height, width = size_yx
    x0, y0, x1, y1 = box_xyxy
    across = min(round(MARGIN_SHARE * min(size_yx)), (min(size_yx) - (x1 - x0)) // 2)
    down = min(round(MARGIN_SHARE * min(size_yx)), (min(size_yx) - (y1 - y0)) // 2)
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, width), min(y1 + down, height)
