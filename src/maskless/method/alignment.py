"""The region lock: what an editor returned is aligned with the original by what lies outside the region.

An editor that follows instructions returns a whole picture, which may be shifted, zoomed or recoloured against the one
that it was given. registration.py measures where it lies; here it is warped back, and its colours are matched.
docs/alignment.md has the accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.alignment import Alignment
from maskless.method.registration import (
    NOISE_LEVELS,
    Matrix,
    displacement_px,
    is_plausible,
    mapped,
    register,
    shift_and_scale,
    warped_back,
)

MIN_COVERED = 0.98
"""Least share of the region that the aligned picture must cover; the rest would repeat its border."""
MOVED_PX, MOVED_ERRORS = 0.3, 3.0
"""Displacements below this, in pixels of the returned picture, are not corrected, and neither are those below this many
standard errors of their estimate: a warp would blur the picture for nothing (docs/alignment.md)."""
COLOUR_LEVELS = 2.0
"""Changes of colour below this root mean square, in levels of 0 to 255, are not corrected."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """A returned picture [3, H, W] in [0, 1] after the alignment, the same tensor if nothing was changed."""

    picture: Float[Tensor, "3 H W"]
    alignment: Alignment


def align(
    returned: Float[Tensor, "3 H W"],
    original: Float[Tensor, "3 H W"],
    region: Bool[Tensor, "H W"],
    *,
    limit: float,
) -> Aligned | None:
    """What an editor returned, aligned with the original by what lies outside the region.

    Args:
        returned, original: of the same size, in [0, 1].
        region: where the picture may differ, which is not compared.
        limit: largest residual of a picture that counts as aligned, 0 to 1.
    Returns:
        The warped picture with the colours of the original; where nothing was moved or recoloured by more than the
        measurement's own noise, or where it could not be aligned, the returned one as it is. None if too little lies
        outside the region to measure anything.
    """
    found = register(returned, original, region)
    if found is None:
        return None
    plausible = is_plausible(found.matrix, region.shape) and _covers(found.matrix, region)
    aligned = plausible and found.residual <= limit
    warped = aligned and displacement_px(found.matrix, region) >= max(MOVED_PX, MOVED_ERRORS * found.noise_px)
    picture = _warp(returned, found.matrix) if warped else returned
    outside = ~region & _covered(found.matrix, region.shape) if aligned else ~region
    change = _colours(picture, original, outside)
    colours_matched = aligned and change.levels >= COLOUR_LEVELS
    if colours_matched:
        picture = (picture * change.gain[:, None, None] + change.offset[:, None, None]).clamp(0, 1)
    shift, scale = shift_and_scale(found.matrix, region.shape)
    red, green, blue = (255 * change.mean).tolist()
    alignment = Alignment(
        aligned=aligned, warped=warped, colours_matched=colours_matched, shift_xy_px=shift, scale=scale,
        colour_rgb=(red, green, blue), residual=found.residual, noise_px=found.noise_px,
    )  # fmt: skip
    return Aligned(picture=picture, alignment=alignment)


def _covers(matrix: Matrix, region: Bool[Tensor, "H W"]) -> bool:
    """Whether the returned picture shows nearly all of the region."""
    if not bool(region.any()):
        return True
    return float(_covered(matrix, region.shape)[region].float().mean()) >= MIN_COVERED


def _covered(matrix: Matrix, size_yx: tuple[int, ...]) -> Bool[Tensor, "H W"]:
    """The pixels of the original that the returned picture shows."""
    height, width = size_yx
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    there = mapped(matrix, np.stack([xs.ravel(), ys.ravel()], axis=1))
    inside = (there >= -0.5).all(axis=1) & (there <= np.array([width, height]) - 0.5).all(axis=1)
    return torch.from_numpy(inside.reshape(height, width))


def _warp(picture: Float[Tensor, "3 H W"], matrix: Matrix) -> Float[Tensor, "3 H W"]:
    import cv2

    array = np.ascontiguousarray(picture.movedim(0, -1).numpy(), dtype=np.float32)
    warped = warped_back(array, matrix, cv2.INTER_LANCZOS4)
    return torch.from_numpy(warped).movedim(-1, 0).clamp(0, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Colours:
    """The change of each channel outside the region, values in [0, 1]. mean: returned minus original. gain, offset:
    what makes the returned channels those of the original. levels: root mean square of what they change, 0 to 255."""

    mean: Float[Tensor, " 3"]
    gain: Float[Tensor, " 3"]
    offset: Float[Tensor, " 3"]
    levels: float


def _colours(returned: Tensor, original: Tensor, outside: Bool[Tensor, "H W"]) -> _Colours:
    """The gain and offset of each channel by least squares over the pixels outside, without the tenth that fits worst.

    Where a channel hardly varies, its gain stays near 1.
    """
    if not bool(outside.any()):
        zero, one = torch.zeros(3), torch.ones(3)
        return _Colours(mean=zero, gain=one, offset=zero, levels=0.0)
    here, there = original[:, outside], returned[:, outside]
    mean = (there - here).mean(dim=1)
    for _round in range(3):
        centre_here, centre_there = here.mean(dim=1, keepdim=True), there.mean(dim=1, keepdim=True)
        a, b = there - centre_there, here - centre_here
        ridge = (NOISE_LEVELS / 255) ** 2
        gain = (((a * b).mean(dim=1) + ridge) / ((a * a).mean(dim=1) + ridge)).clamp(0.4, 2.5)
        offset = (centre_here - gain[:, None] * centre_there)[:, 0]
        error = (here - gain[:, None] * there - offset[:, None]).abs().amax(dim=0)
        kept = error <= error.kthvalue(max(1, int(0.9 * len(error)))).values
        here, there = here[:, kept], there[:, kept]
    corrected = returned[:, outside] * gain[:, None] + offset[:, None]
    levels = 255 * float((corrected - returned[:, outside]).square().mean().sqrt())
    return _Colours(mean=mean, gain=gain, offset=offset, levels=levels)
