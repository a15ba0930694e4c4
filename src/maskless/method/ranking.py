"""Ranking of the candidates (method step 10). Each rule is one function from Scores to a Ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maskless.data.alignment import Alignment
from maskless.data.errors import MasklessError
from maskless.data.types import LocationSigns, Scores

SHORTLIST = 3
"""The paper's rule compares this many candidates by the sum of both similarities."""
FIT_WEIGHT = 0.5
"""Weight of the sign `fit` among the signs of the location. A correct outline improves the region, but an outline that
includes a neighbour of the object spoils it. The value was chosen on validation scenes (docs/search.md)."""

DETECTED_WEIGHT = 10.0
"""Weight of the sign `detected`, which is not standardised. The other signs of a region hardly sum to more than 6, so a
grounder that finds something decides, and one that finds nothing changes nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """score: larger is better, comparable within one image. order: positions of the candidates, best first."""

    score: Float[Tensor, " N"]
    order: tuple[int, ...]


def rank(scores: Scores, rule: str, *, alpha: float, beta: float) -> Ranking:
    """The ranking by the rule of this name. alpha, beta: weights of the paper's two similarities.

    Raises:
        MasklessError: an unknown rule.
    """
    if rule == "paper":
        return rank_by_paper(scores, alpha=alpha, beta=beta)
    if rule == "located":
        return rank_by_location(scores, alpha=alpha, beta=beta)
    if rule == "verified":
        return rank_by_edits(scores, alpha=alpha, beta=beta)
    raise MasklessError(f"ranking must be paper, located or verified, got {rule!r}")


def rank_by_paper(scores: Scores, *, alpha: float, beta: float) -> Ranking:
    """The three best by S_t2i, ordered by S = alpha S_t2i + beta S_i2i; then the others, ordered by S_t2i."""
    combined = alpha * scores.text_to_image + beta * scores.image_to_image
    by_text = _descending(scores.text_to_image)
    shortlist = sorted(by_text[:SHORTLIST], key=lambda i: -float(combined[i]))
    return Ranking(score=combined, order=(*shortlist, *by_text[SHORTLIST:]))


def rank_by_location(scores: Scores, *, alpha: float, beta: float) -> Ranking:
    """The candidates ordered by how well their region fits the object that the caption names.

    The similarities of the paper's rule are of the whole image, hardly depend on where an edit is, and favour the
    smallest change. If all locations have the same score, because there is no caption or only one region, the paper's
    rule decides.
    """
    if float(scores.location.max()) == float(scores.location.min()):
        return rank_by_paper(scores, alpha=alpha, beta=beta)
    return Ranking(score=scores.location, order=tuple(_descending(scores.location)))


def rank_by_edits(scores: Scores, *, alpha: float, beta: float) -> Ranking:
    """The candidates ordered by what their edits show: the named object is gone from the edited region, and the rest of
    the picture is as it was. Each sign is standardised over the candidates (docs/search.md has the measurements).

    Without a caption, or with one candidate, the rule `located` decides.
    """
    if float(scores.gone.max()) == float(scores.gone.min()):
        return rank_by_location(scores, alpha=alpha, beta=beta)
    score = _standardised(scores.gone) + _standardised(scores.image_to_image)
    return Ranking(score=score, order=tuple(_descending(score)))


def location_score(signs: LocationSigns, among: LocationSigns | None = None) -> Float[Tensor, " N"]:
    """How well each region fits the object that the caption names: the weighted sum of the standardised signs, and what
    a grounder found.

    among: the signs of the regions whose mean and standard deviation are the units; None takes `signs` itself. With the
    signs of all proposed regions, the search and the ranking use the same score.
    """
    units = among or signs
    score = sum(_standardised(getattr(signs, name), getattr(units, name)) for name in ("shown", "focus"))
    return score + FIT_WEIGHT * _standardised(signs.fit, units.fit) + DETECTED_WEIGHT * signs.detected


def behind(
    cheap: Float[Tensor, " N"], better: Float[Tensor, " n"], positions: Int[Tensor, " n"]
) -> Float[Tensor, " N"]:
    """The better scores of some regions, at their positions; all others rank behind them, in the order of the cheaper
    score."""
    score = cheap - cheap.max() + better.min()
    score[positions] = better
    return score


def standardised_signs(signs: LocationSigns) -> dict[str, Float[Tensor, " N"]]:
    """Each sign by its name, in standard deviations over the regions; 0 for a sign that is equal for all of them."""
    return {sign.name: _standardised(getattr(signs, sign.name)) for sign in fields(signs)}


def prefer_unoccupied(ranking: Ranking, occupied: Float[Tensor, " N"]) -> Ranking:
    """The candidates ordered by how little of the picture's objects they cover, in steps of 1/50, and then as before.

    occupied: share of each region that is covered by objects, 0 to 1. If it is 0 for all, the order does not change.
    """
    steps = (occupied * 50).floor().tolist()
    return Ranking(score=ranking.score, order=tuple(sorted(ranking.order, key=lambda index: steps[index])))


def aligned_first(ranking: Ranking, alignments: Sequence[Alignment | None]) -> Ranking:
    """The same order, but candidates that could not be aligned with the picture come last.

    alignments: of each candidate; None where nothing was measured, which counts as aligned.
    """
    if all(each is None or each.aligned for each in alignments):
        return ranking
    refused = [each is not None and not each.aligned for each in alignments]
    return Ranking(score=ranking.score, order=tuple(sorted(ranking.order, key=lambda index: refused[index])))


def rank_fills(
    text: Float[Tensor, " N"] | None, fit: Float[Tensor, " N"] | None, structure: Float[Tensor, " N"] | None
) -> Ranking:
    """The fills of a known region, ordered by the sum of up to three signs, each of them standardised.

    text: cosine similarity of the picture and the prompt. fit: how smoothly the picture continues across the region's
    outline. structure: how similar the layout is to the source's. Larger is better for each; None leaves a sign out.
    """
    signs = [values for values in (text, fit, structure) if values is not None]
    score = torch.stack([_standardised(values) for values in signs]).sum(dim=0)
    return Ranking(score=score, order=tuple(_descending(score)))


def _standardised(values: Tensor, among: Tensor | None = None) -> Tensor:
    """The values minus the mean of `among`, divided by its standard deviation; 0 if all of `among` are equal.

    among: None takes the values themselves.
    """
    among = values if among is None else among
    deviation = (among - among.mean()).square().mean().sqrt()
    return (values - among.mean()) / deviation if float(deviation) > 1e-7 else torch.zeros_like(values)


def _descending(values: Tensor) -> list[int]:
    """Positions from the largest value to the smallest; equal values keep their order."""
    return torch.argsort(values, descending=True, stable=True).tolist()
