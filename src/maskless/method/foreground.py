"""Outlines of objects: which cells of a region belong to the object, by DINO's features and by colour."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

NEAREST = 5
"""A cell is compared with this many of its most similar cells, both in the object and outside the region."""
ROUNDS = 4
"""Maximum number of times that `outline` assigns the cells of a region to the object or to the outside."""
CORE_SHARE = 0.35
"""Share of a region's cells, the ones nearest its middle, that `outline` first takes for the object."""
COLOUR_SCALE = 0.12
"""Distance of two colours in [0, 1]^3 at which their similarity has fallen to 1/e."""
EDGE_WINDOW_SHARE, EDGE_VARIANCE = 0.1, 1e-4
"""Parameters of the guided filter: the side of its window, as a share of the shorter side, and its epsilon, the colour
variance up to which a window counts as free of edges."""
SCENERY_SHARE = 0.06
"""A cell of the scenery has similar cells in about this share of the picture; a cell of an object has fewer."""
PIXEL_COLOUR_SCALE, MAX_SURROUNDINGS, PIXELS_AT_ONCE = 0.08, 1024, 512
"""For `colour_outliers`: COLOUR_SCALE of single pixels, the maximum number of surrounding pixels to compare, and how
many pixels of the region are compared with them at once."""


def outline(
    features: Float[Tensor, "D h w"],
    colours: Float[Tensor, "3 h w"],
    region: Bool[Tensor, "h w"],
    core: Bool[Tensor, "h w"] | None = None,
) -> Float[Tensor, "h w"]:
    """How much more similar each cell of a region is to the object in it than to the surroundings of the object.

    The surroundings of an object continue outside of its region, so the cells out there show what they look like. At
    first the core counts as the object. Then each cell of the region is assigned to the object or to the outside,
    whichever its nearest neighbours are more similar to; this is repeated with the new object.

    Args:
        features: patch features on a grid.
        colours: RGB in [0, 1] on the same grid; features and colours have equal weight.
        region: cells that contain the object and some of its surroundings.
        core: cells that are known to belong to the object; None takes those nearest the region's middle.
    Returns:
        The difference of two mean similarities, from -2 to 2: above 0 in the object, -2 outside the region. If the
        region is the whole picture, all of it counts as the object (2).
    """
    inside = region.flatten()
    score = torch.full((region.numel(),), -2.0)
    if bool(inside.all()) or not bool(inside.any()):
        score[inside] = 2.0
        return score.reshape(region.shape)
    cells = F.normalize((features - features.mean(dim=(1, 2), keepdim=True)).flatten(1).T, dim=1)
    rgb = colours.flatten(1).T
    to_outside = _nearest(_similarity(cells[inside], cells[~inside], rgb[inside], rgb[~inside]))
    # A diagonal of -1 keeps a cell from being its own nearest neighbour.
    within = _similarity(cells[inside], cells[inside], rgb[inside], rgb[inside]).fill_diagonal_(-1.0)
    is_object = _middle(region) if core is None or not bool((core & region).any()) else core.flatten()[inside]
    for _ in range(ROUNDS):
        difference = _nearest(within[:, is_object]) - to_outside
        if not bool((difference > 0).any()):
            break
        is_object = difference > 0
    score[inside] = difference
    return score.reshape(region.shape)


def _middle(region: Bool[Tensor, "h w"]) -> Bool[Tensor, " n"]:
    """For each of a region's n cells, whether it is among the CORE_SHARE nearest the region's middle."""
    cells_yx = region.nonzero().to(torch.float32)
    from_middle = (cells_yx - cells_yx.mean(dim=0)).square().sum(dim=1)
    nearest = torch.zeros(len(cells_yx), dtype=torch.bool)
    nearest[from_middle.argsort()[: max(1, round(CORE_SHARE * len(cells_yx)))]] = True
    return nearest


def _similarity(
    first: Float[Tensor, "n D"], second: Float[Tensor, "m D"], first_rgb: Tensor, second_rgb: Tensor
) -> Float[Tensor, "n m"]:
    """Mean of the cosine of two cells' features and of the similarity of their colours, -1/2 to 1."""
    distance = torch.cdist(first_rgb, second_rgb) / COLOUR_SCALE
    of_colours = distance.square_().neg_().exp_()  # in place, because a picture has a thousand cells and more
    return of_colours.add_(first @ second.T).div_(2)


def _nearest(similarity: Float[Tensor, "n m"]) -> Float[Tensor, " n"]:
    """Mean of the NEAREST largest values of each row."""
    return similarity.topk(min(NEAREST, similarity.shape[1]), dim=1).values.mean(dim=1)


def colour_outliers(
    image: Float[Tensor, "3 H W"], region: Bool[Tensor, "H W"], around: Bool[Tensor, "H W"]
) -> Bool[Tensor, "H W"]:
    """The pixels of a region whose colour is rare in the surroundings; none if there are no surroundings.

    image: RGB in [0, 1]. around: pixels that belong to no object. The region must fit its object closely, because the
    pixels of any other object in it are returned as well.
    """
    inside, outside = image.permute(1, 2, 0)[region], image.permute(1, 2, 0)[around]
    outliers = torch.zeros_like(region)
    if len(outside) and len(inside):
        sample = outside[:: -(-len(outside) // MAX_SURROUNDINGS)]  # evenly, with the step rounded up
        # In parts, because all distances of a large region at once would take most of the memory of an edit.
        distances = [_nearest_distances(part, sample) for part in inside.split(PIXELS_AT_ONCE)]
        similarity = torch.exp(-(torch.cat(distances) / PIXEL_COLOUR_SCALE).square())
        outliers[region] = similarity.mean(dim=1) < 0.5
    return outliers


def _nearest_distances(first: Float[Tensor, "n D"], second: Float[Tensor, "m D"]) -> Float[Tensor, "n k"]:
    """The NEAREST smallest distances of each row of `first` to rows of `second`."""
    return torch.cdist(first, second).topk(min(NEAREST, len(second)), dim=1, largest=False).values


def salience(features: Float[Tensor, "D h w"], colours: Float[Tensor, "3 h w"]) -> Float[Tensor, "h w"]:
    """How much each cell looks like part of an object and not of the scenery, from 0 to 2.

    Scenery continues sideways: sky beside sky, grass beside grass. So a cell of the scenery has many similar cells at
    about its own height, some distance to the left or right; a cell of an object has few.

    Args:
        features: patch features on a grid.
        colours: RGB in [0, 1] on the same grid; features and colours have equal weight.
    """
    rows, columns = features.shape[1:]
    cells = F.normalize((features - features.mean(dim=(1, 2), keepdim=True)).flatten(1).T, dim=1)
    rgb = colours.flatten(1).T
    y = torch.arange(rows, dtype=torch.int16).repeat_interleave(columns)
    x = torch.arange(columns, dtype=torch.int16).repeat(rows)
    same_height = (y[:, None] - y[None, :]).abs() <= rows // 8
    far_sideways = (x[:, None] - x[None, :]).abs() > columns // 4
    similarity = _similarity(cells, cells, rgb, rgb).masked_fill_(~(same_height & far_sideways), -1.0)
    count = max(1, round(rows * columns * SCENERY_SHARE))
    return 1 - similarity.topk(min(count, rows * columns), dim=1).values.mean(dim=1).reshape(rows, columns)


def snap_to_edges(coarse: Float[Tensor, "H W"], image: Float[Tensor, "3 H W"]) -> Float[Tensor, "H W"]:
    """A coarse mask with its outline moved to the picture's nearby edges, by the guided filter.

    docs/search.md says how much this improves outlines. coarse: 0 to 1. image: RGB in [0, 1]. Returns a soft mask,
    about 0 to 1, above a half in the object.
    """
    reach = max(1, round(EDGE_WINDOW_SHARE * min(coarse.shape) / 2))
    reach = min(reach, (min(coarse.shape) - 1) // 2)
    return guided_filter(coarse, image, reach, EDGE_VARIANCE)


def guided_filter(
    values: Float[Tensor, "H W"], guide: Float[Tensor, "3 H W"], reach_px: int, epsilon: float
) -> Float[Tensor, "H W"]:
    """A map smoothed everywhere but at the edges of a colour picture (He et al., Guided Image Filtering, ECCV 2010).

    In each square window the map is approximated by a linear function of the colours, q = a . I + b, where
    a = (Sigma + epsilon U)^-1 cov(I, p) and b = mean(p) - a . mean(I) (equations 14 and 15); the coefficients of all
    windows that contain a pixel are averaged (equation 16). The picture is mirrored at its borders.

    values: p. guide: I, RGB. reach_px: from the middle of a window to its sides. epsilon: the variance of colours up to
    which a window counts as free of edges, in squared units of the guide.
    """
    import cv2  # opencv-contrib has this filter, but its wheels conflict with the usual ones

    def mean(map_: np.ndarray) -> np.ndarray:
        side = 2 * reach_px + 1
        return cv2.boxFilter(map_, -1, (side, side), borderType=cv2.BORDER_REFLECT_101)

    colours, given = np.ascontiguousarray(guide.permute(1, 2, 0).numpy()), values.contiguous().numpy()
    mean_colours, mean_given = mean(colours), mean(given)
    covariance = mean(colours * given[..., None]) - mean_colours * mean_given[..., None]
    sigma = np.stack([mean(colours * colours[..., i, None]) for i in range(3)], axis=-1)
    sigma -= mean_colours[..., :, None] * mean_colours[..., None, :]
    sigma += np.float32(epsilon) * np.eye(3, dtype=np.float32)
    slopes = torch.linalg.solve(torch.from_numpy(sigma), torch.from_numpy(covariance)).numpy()
    offsets = mean_given - (slopes * mean_colours).sum(axis=-1)
    return torch.from_numpy((mean(slopes) * colours).sum(axis=-1) + mean(offsets))


def threshold(scores: Tensor) -> float:
    """The value that best separates the low values of a map from the high ones (Otsu's method). If all values are equal
    it is that value, so none is above it."""
    ordered = scores.flatten().sort().values
    count_below = torch.arange(1, len(ordered), dtype=torch.float64)
    count_above = len(ordered) - count_below
    total = ordered.to(torch.float64).cumsum(0)
    means = total[:-1] / count_below, (total[-1] - total[:-1]) / count_above
    variance_between = count_below * count_above * (means[0] - means[1]).square()
    split = int(variance_between.argmax())
    return float(ordered[split] + ordered[split + 1]) / 2
