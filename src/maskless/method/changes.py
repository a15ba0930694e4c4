"""What a drawing changes in a picture: the pixels that show something else than before, and not the same background.

A model draws a whole region anew, its background too, which comes out a little different: paler, softer, with a halo
around a new object. Where a drawing shows what was there before, the picture's own pixels are the better ones.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.masks import components, grown, without_holes
from maskless.method.foreground import colour_outliers

SLIGHT, CLEAR = 24 / 255, 50 / 255
"""A pixel has not changed if it differs less than SLIGHT. One that differs more has changed if other such pixels
connect it with one that differs more than CLEAR (two thresholds, as in Canny's edge detector). The values were chosen
on validation scenes (docs/training-log.md)."""
HALO_SHARE, HALO_REACH = 0.5, 0.08
"""A pixel that differs less than HALO_SHARE of the largest difference nearby belongs to a halo or a shadow of what was
drawn there. HALO_REACH: how far that is, as a share of the square root of the region's area."""
STRONG = 0.35
"""A pixel that differs more than this has changed, however large the differences nearby are: where the old object
contrasted strongly with the new one, the background beside it did not, and is covered by the new one all the same."""
GAP = 2
"""Gaps in what has changed are closed if they are at most twice as wide as this, in pixels of the window."""
SEAM = 0.02
"""Maximum width of the blended seam around what has changed, as a share of the square root of its area."""


def changed(
    source: Float[Tensor, "3 S S"],
    drawn: Float[Tensor, "3 S S"],
    region: Bool[Tensor, "S S"],
    replaced: Bool[Tensor, "S S"] | None = None,
) -> Bool[Tensor, "S S"]:
    """The pixels of a region in which a drawing shows something else than the source; the whole region if there are
    none.

    Args:
        source, drawn: the same window, RGB in [0, 1]. region: the pixels that were drawn.
        replaced: the object of the source that the drawing replaces. Any change counts there, so that no part of the
            object remains beside the new one. Where the colours of the source do not continue outside of the region,
            any change counts that is not slight, because an outline may be incomplete.
    """
    difference = _mean_of_nine((drawn - source).abs().amax(dim=0)) * region
    reach = max(1, round(HALO_REACH * float(region.sum()) ** 0.5))
    nearby = grown(difference[None, None], reach)[0, 0]
    differs = difference > (HALO_SHARE * nearby).clamp(min=SLIGHT, max=STRONG)
    foreign = _grown(colour_outliers(source, region, ~region))
    differs |= foreign & (difference > SLIGHT)
    if replaced is not None:
        differs |= replaced & region
    clear = differs & (difference > CLEAR)
    if not bool(clear.any()):
        return region
    found = torch.stack([part for part in components(differs) if bool((part & clear).any())]).any(dim=0)
    found = _shrunk(_grown(_shrunk(without_holes(found, 1.0)), 2 + GAP), GAP)
    return found & region if bool(found.any()) else region


def _mean_of_nine(values: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    return F.avg_pool2d(F.pad(values[None, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0, 0]


def _grown(mask: Bool[Tensor, "h w"], pixels: int = 1) -> Bool[Tensor, "h w"]:
    return grown(mask[None, None].to(torch.float32), pixels)[0, 0] > 0


def _shrunk(mask: Bool[Tensor, "h w"], pixels: int = 1) -> Bool[Tensor, "h w"]:
    return ~_grown(~mask, pixels)
