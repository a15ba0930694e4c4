"""A region's edges moved to where it is the captioned thing best: things are seldom square. Nothing is inpainted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

Box = tuple[int, int, int, int]
Score = Callable[[Int[Tensor, "N 4"]], Float[Tensor, " N"]]
"""How much each of some boxes is the thing; larger is better, and the same box always gets the same."""

STEPS = (0.15, 0.08)
"""How far an edge moves at a time, as a share of the box's longer side: first coarsely, then finely."""
ROUNDS = 2
"""Moves at each step."""
REACH_SHARE = 0.15
"""Of the box's longer side: an edge of the thing's outline that lies outside by no more is taken over. Scores would
rather cut a thing's end off than show what is beside it."""
LEAST_SHARE = 0.08
"""Of the shorter side: no edge moves so near to the one across."""
MARGIN_SHARE = 1 / 64
"""Of the shorter side: what a box is given on every side. A score is at its best where a box touches the thing, and an
edit has to cover it, its seam included."""


def fit_edges(box_xyxy: Box, has: float, score: Score, size_yx: tuple[int, int]) -> tuple[Box, float]:
    """The box after the single moves of an edge that raise the score most.

    Args:
        box_xyxy: half-open, in pixels of a picture of `size_yx`; its sides at most the picture's shorter one.
        has: its score.
        score: asked for at most 8 boxes at a time, ROUNDS times for each of STEPS.
    Returns:
        A box inside the picture, its sides at most the picture's shorter one, and its score, no less than `has`.
    """
    for share in STEPS:
        step = max(1, round(share * max(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1])))
        for _ in range(ROUNDS):
            moved = _moved(box_xyxy, step, size_yx)
            scores = score(torch.tensor(moved))
            best = int(scores.argmax())
            if float(scores[best]) <= has:
                break
            box_xyxy, has = moved[best], float(scores[best])
    return box_xyxy, has


def with_room(box_xyxy: Box, outline_xyxy: Sequence[int] | None, size_yx: tuple[int, int]) -> Box:
    """A fitted box out to those edges of the thing's outline that are just outside of it, and with a margin.

    On 67 validation scenes of two things and more, the region of the best score held over nine tenths of the named
    thing and under one of every other in 67 %, and fitted and with this room in 81 %; over 98 hundredths in 48 and in
    76 %. The true boxes do in 94 %, and with the same margin in 84.

    Args:
        box_xyxy: half-open, in pixels of a picture of `size_yx`; its sides at most the picture's shorter one.
        outline_xyxy: the box of the thing's outline, where it is known.
    Returns:
        A box inside the picture, its sides at most the picture's shorter one.
    """
    if outline_xyxy is not None:
        box_xyxy = _out_to(box_xyxy, outline_xyxy, size_yx)
    return _with_margin(box_xyxy, size_yx)


def _moved(box_xyxy: Box, step: int, size_yx: tuple[int, int]) -> list[Box]:
    """The boxes that differ in one edge, by a step in or out, and are neither too thin nor too long."""
    height, width = size_yx
    least, most = LEAST_SHARE * min(size_yx), min(size_yx)
    moved = []
    for edge, limit in enumerate((width, height, width, height)):
        for by in (-step, step):
            edges = list(box_xyxy)
            edges[edge] = min(max(edges[edge] + by, 0), limit)
            x0, y0, x1, y1 = edges
            if all(least <= side <= most for side in (x1 - x0, y1 - y0)):
                moved.append((x0, y0, x1, y1))
    return moved or [box_xyxy]


def _out_to(box_xyxy: Box, outline_xyxy: Sequence[int], size_yx: tuple[int, int]) -> Box:
    """The box with those edges of the outline that lie just outside of it, while its sides are no longer than the
    picture's shorter one."""
    reach = REACH_SHARE * max(box_xyxy[2] - box_xyxy[0], box_xyxy[3] - box_xyxy[1])
    edges = list(box_xyxy)
    for at, (edge, wanted) in enumerate(zip(box_xyxy, outline_xyxy, strict=True)):
        outwards = edge - wanted if at < 2 else wanted - edge
        across = abs(wanted - edges[(at + 2) % 4])
        if 0 < outwards <= reach and across <= min(size_yx):
            edges[at] = wanted
    x0, y0, x1, y1 = edges
    return x0, y0, x1, y1


def _with_margin(box_xyxy: Box, size_yx: tuple[int, int]) -> Box:
    height, width = size_yx
    x0, y0, x1, y1 = box_xyxy
    across = min(round(MARGIN_SHARE * min(size_yx)), (min(size_yx) - (x1 - x0)) // 2)
    down = min(round(MARGIN_SHARE * min(size_yx)), (min(size_yx) - (y1 - y0)) // 2)
    return max(x0 - across, 0), max(y0 - down, 0), min(x1 + across, width), min(y1 + down, height)
