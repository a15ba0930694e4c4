"""The things in a picture as masks: all of them by their salience, or the one that a caption names. No inpainting."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.instructions import phrases
from maskless.data.masks import components, mask_box
from maskless.data.types import PatchFeatures
from maskless.locating.view import REGION_MARGIN, VIEW_PX, at_most, place_signs
from maskless.method.foreground import on_edges, outline, salience, threshold
from maskless.method.ranking import place_score
from maskless.models.clip import Clip

FINER = 4
"""Outlines are drawn on a grid this many times as fine as the features'."""
DEPTHS = (0.0, 0.1, 0.2, 0.3)
"""Above the threshold of salience: a thing that touches another one stands alone at a higher one."""
LEAST_SHARE, MOST_EACH = 0.002, 10
REACH = 0.3
"""Of a salient part's longer side, how far around it the rest of the thing is looked for."""
MOST_GROWTH = 2.0
"""Of a salient part's area, how large the whole thing may be: beyond that, the growth ran out into the background. On
56 validation scenes of the storybook 37 % of the background was taken for things without this limit and 11 %
with it, and what a caption names was outlined better (IoU 0.66 and 0.68)."""


def things_in(image: Float[Tensor, "3 H W"], features: PatchFeatures) -> Bool[Tensor, "H W"]:
    """Everything that is not background."""
    scores = _salience(image, features)
    salient = _above(scores, threshold(scores))
    whole = torch.zeros(image.shape[1:], dtype=torch.bool)
    parts = components(salient) if bool(salient.any()) else []
    for part in parts[:MOST_EACH]:
        whole |= _whole_thing(part, image, features)
    return whole


def named_things(
    image: Float[Tensor, "3 H W"],
    features: PatchFeatures,
    caption: str,
    clip: Clip,
    relevance: Float[Tensor, "rows columns"] | None = None,
) -> Bool[Tensor, "H W"]:
    """What a caption names: of each of its phrases, the salient part of the picture that fits it best.

    Where nothing is salient, a square around the place that is most relevant to the caption. relevance: CLIP's map of
    the whole caption, where it is known already.
    """
    candidates = _candidates(image, features)
    small = at_most(image, VIEW_PX)
    found = torch.zeros(image.shape[1:], dtype=torch.bool)
    named, scores = phrases(caption), []
    for phrase in named:
        if relevance is None or len(named) > 1:
            relevance = clip.relevance(image, phrase)
        if candidates:
            scores.append(_scores(small, candidates, relevance, phrase, clip))
        else:
            found |= _around_peak(relevance, image)
    for index in _one_each(scores, candidates):
        found |= _whole_thing(candidates[index], image, features)
    return found


def _whole_thing(part: Tensor, image: Tensor, features: PatchFeatures) -> Tensor:
    """A salient part and what around it is of the same thing: the two ends of a wide thing are alike, so by salience
    alone they count as background. part: on the finer grid. Returns a mask of the picture's size."""
    rows, columns = part.shape
    x0, y0, x1, y1 = mask_box(part)
    room = round(REACH * max(x1 - x0, y1 - y0)) + FINER
    region = torch.zeros(1, 1, rows, columns)
    region[..., max(0, y0 - room) : y1 + room, max(0, x0 - room) : x1 + room] = 1
    on_cells = F.interpolate(region, size=features.grid_yx, mode="area")[0, 0] > 0.5
    core = F.interpolate(part.to(torch.float32)[None, None], size=features.grid_yx, mode="area")[0, 0] > 0.5
    colours = F.interpolate(image[None], size=features.grid_yx, mode="area")[0]
    like = _above(outline(features.features, colours, on_cells, core), 0.0) & (region[0, 0] > 0)
    joined = [whole for whole in components(part | like) if bool((whole & part).any())]
    whole = torch.stack(joined).any(dim=0)
    return _full_size(part if int(whole.sum()) > MOST_GROWTH * int(part.sum()) else whole, image)


def _one_each(scores: list[Tensor], candidates: list[Tensor]) -> list[int]:
    """For each phrase the candidate that fits it best. What one phrase has taken, and what overlaps that, no other
    gets, unless nothing else is left; the surest takes first."""
    taken: dict[int, int] = {}
    pairs = sorted(((float(s), p, c) for p, row in enumerate(scores) for c, s in enumerate(row)), reverse=True)
    for _score, phrase, candidate in pairs:
        free = not any(bool((candidates[candidate] & candidates[other]).any()) for other in taken.values())
        if phrase not in taken and free:
            taken[phrase] = candidate
    return [taken.get(phrase, int(row.argmax())) for phrase, row in enumerate(scores)]


def _scores(small: Tensor, candidates: list[Tensor], relevance: Tensor, phrase: str, clip: Clip) -> Float[Tensor, " N"]:
    """How well each candidate shows the phrase, hides it when painted over and holds the relevance."""
    size_yx = (small.shape[1], small.shape[2])
    rows, columns = candidates[0].shape
    scale = torch.tensor([size_yx[1] / columns, size_yx[0] / rows] * 2)
    limit = torch.tensor([size_yx[1], size_yx[0]] * 2)
    boxes = torch.tensor([mask_box(candidate) for candidate in candidates]) * scale
    room = REGION_MARGIN * (boxes[:, 2:] - boxes[:, :2]).max(dim=1).values[:, None]
    boxes = (boxes + room * torch.tensor([-1.0, -1.0, 1.0, 1.0])).round().long().clamp(min=0).minimum(limit)
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2] + 1)
    return place_score(place_signs(small, boxes, phrase, relevance, clip))


def _candidates(image: Tensor, features: PatchFeatures) -> list[Tensor]:
    """Connected salient parts at several depths, as masks on the finer grid."""
    scores = _salience(image, features)
    base, found = threshold(scores), []
    for depth in DEPTHS:
        mask = _above(scores, base + depth)
        parts = components(mask) if bool(mask.any()) else []
        found += [part for part in parts if int(part.sum()) >= LEAST_SHARE * part.numel()][:MOST_EACH]
    return found


def _salience(image: Tensor, features: PatchFeatures) -> Tensor:
    colours = F.interpolate(image[None], size=features.grid_yx, mode="area")[0]
    return salience(features.features, colours)


def _above(scores: Tensor, level: float) -> Tensor:
    """Where a map is above a level, on the finer grid."""
    size = (scores.shape[0] * FINER, scores.shape[1] * FINER)
    return F.interpolate((scores - level)[None, None].clamp(-0.2, 0.2), size=size, mode="bilinear")[0, 0] > 0


def _full_size(mask: Tensor, image: Tensor) -> Tensor:
    """A mask on the finer grid at the picture's size, its outline on the picture's own edges where it has any there: a
    faint or thin thing can be lost among stronger edges."""
    small = at_most(image, VIEW_PX)
    coarse = F.interpolate(mask.to(torch.float32)[None, None], size=small.shape[1:], mode="bilinear")[0, 0]
    at_edges = F.interpolate(on_edges(coarse, small)[None, None], size=image.shape[1:], mode="bilinear")[0, 0] > 0.5
    if bool(at_edges.any()) or not bool(mask.any()):
        return at_edges
    return F.interpolate(mask.to(torch.float32)[None, None], size=image.shape[1:], mode="nearest")[0, 0] > 0.5


def _around_peak(relevance: Tensor, image: Tensor) -> Tensor:
    """A square of a third of the shorter side around the highest place of a map."""
    height, width = image.shape[1:]
    rows, columns = relevance.shape
    peak = int(relevance.argmax())
    y, x = (peak // columns + 0.5) / rows * height, (peak % columns + 0.5) / columns * width
    half = min(height, width) / 6
    ys, xs = torch.arange(height)[:, None] + 0.5, torch.arange(width)[None, :] + 0.5
    return ((ys - y).abs() <= half) & ((xs - x).abs() <= half)
