"""Measures where what an editor returned lies on the original, by what lies outside the region.

Phase correlation over a range of scales finds where it lies roughly; the maximisation of the enhanced correlation
coefficient (ECC) refines that from coarse to fine, while places that fit badly are left out. Both are OpenCV's. The
simplest transformation that fits is taken: none, a shift and a scale, an affine one, or a homography.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKING_PX, COARSE_PX = 512, 128
"""Longer side of the pictures that the transformation is estimated on: of the finest and of the coarsest level."""
SCALES = tuple(np.geomspace(0.86, 1.16, 11).tolist())
"""The scales at which phase correlation compares the two pictures."""
STARTS = 2
"""How many results of the phase correlation are refined, beside the picture as it is."""
MAX_SHIFT, SCALE_RANGE, MAX_SKEW = 0.25, (0.8, 1.25), 0.08
"""What is taken for an alignment: shifts up to this share of the longer side, scales in this range, and a homography
whose corners differ from a shift and a scale by at most this share of the longer side."""
MIN_OUTSIDE, MIN_OUTSIDE_PX = 0.03, 256
"""Least share and number of pixels outside the region that a transformation is estimated from."""
BLURS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""The blurs that the returned picture is compared with: standard deviations in 256ths of the longer side."""
LEAST_CORRELATION = 0.3
"""Local correlation below which the pixels around are not used to estimate the transformation."""
BETTER = 0.95
"""A transformation with more parameters must reduce the residual to this share."""
LEAST_GAIN = 0.004
"""Share of the structure's power that any transformation must explain beyond the picture as it is; one with more
parameters a fifth of it. Less is explained by chance, by a model's own errors (docs/alignment.md)."""
LEAST_NOISE, CORRELATED_PX = 0.3, 25.0
"""What is left of the structure at least, in levels: rounding. And how many pixels around one have the same error."""
NOISE_LEVELS = 0.7
"""Standard deviation of structure, in levels of 0 to 255, that counts as nothing: rounding and compression."""

Matrix = Float[np.ndarray, "3 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Registration:
    """Where the content of a returned picture lies.

    matrix: from pixels (x, y, 1) of the original to those of the returned picture. residual: how much of the structure
    outside the region differs with this matrix, 0 to 1. noise_px: standard error of the displacement of the region's
    corners, in pixels; large where little of a picture varies outside.
    """

    matrix: Matrix
    residual: float
    noise_px: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Level:
    """Both pictures at one size: their luma in levels of 0 to 255, 1 outside the region, and the original's structure.

    to_full: from pixels of this level to those of the full size.
    """

    original: NDArray[np.float32]
    returned: NDArray[np.float32]
    outside: NDArray[np.uint8]
    structure: NDArray[np.float32]
    to_full: Matrix

    def moved_back(self, matrix: Matrix) -> NDArray[np.float32]:
        """The structure of the returned picture as seen from the original."""
        import cv2

        return _structure(warped_back(self.returned, matrix, cv2.INTER_CUBIC), self.outside)

    def compared(self, matrix: Matrix) -> NDArray[np.uint8]:
        """1 where the moved returned picture shows what lies outside the region."""
        import cv2

        shown = warped_back(np.ones_like(self.returned), matrix, cv2.INTER_NEAREST, replicate=False)
        return self.outside * (shown > 0)


def register(
    returned: Float[Tensor, "3 H W"], original: Float[Tensor, "3 H W"], region: Bool[Tensor, "H W"]
) -> Registration | None:
    """Where the content of a returned picture lies on the original, without changing it. The arguments are those of
    `align`; None if too little lies outside the region."""
    outside = int((~region).sum())
    if outside < max(MIN_OUTSIDE_PX, MIN_OUTSIDE * region.numel()):
        return None
    levels = _levels(returned, original, region)
    matrix = _coarse(levels[0])
    soft = levels[0]
    for level in levels:
        soft = _as_soft_as_returned(level, matrix)
        matrix = _refined(soft, matrix, homography=level is levels[-1])
    noise = _noise_px(soft, _to_level(soft, matrix), region)
    return Registration(matrix=matrix, residual=_residual(soft, matrix), noise_px=noise)


def displacement_px(matrix: Matrix, region: Bool[Tensor, "H W"]) -> float:
    """The largest distance by which a corner of the region's bounding box is displaced, or of the picture without a
    region, in pixels."""
    corners = _corners(region)
    return float(np.linalg.norm(mapped(matrix, corners) - corners, axis=1).max())


def _corners(region: Bool[Tensor, "H W"]) -> Float[np.ndarray, "4 2"]:
    """The corners (x, y) of the region's bounding box, or of the picture without a region."""
    ys, xs = torch.nonzero(region, as_tuple=True) if bool(region.any()) else map(torch.arange, region.shape)
    x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())
    return np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)], dtype=np.float64)


def shift_and_scale(matrix: Matrix, size_yx: tuple[int, ...]) -> tuple[tuple[float, float], float]:
    """The displacement (x, y) at the middle of a picture, in pixels, and the scale there."""
    middle = np.array([(size_yx[1] - 1) / 2, (size_yx[0] - 1) / 2])
    points = middle + np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
    there = mapped(matrix, points)
    x, y = (there[0] - middle).tolist()
    area = abs(float(np.linalg.det(there[1:] - there[0])))
    return (x, y), area**0.5


def mapped(matrix: Matrix, points_xy: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """Where points of the original lie in the returned picture."""
    there = points_xy @ matrix[:, :2].T + matrix[:, 2]
    return there[:, :2] / there[:, 2:]


def _levels(returned: Tensor, original: Tensor, region: Tensor) -> list[_Level]:
    """Both pictures at up to three sizes, the smallest first."""
    longest = max(region.shape)
    finest = min(longest, WORKING_PX)
    sides = [side for side in (COARSE_PX, 2 * COARSE_PX) if side * 1.5 < finest] + [finest]
    return [_level(returned, original, region, side / longest) for side in sides]


def _level(returned: Tensor, original: Tensor, region: Tensor, factor: float) -> _Level:
    import cv2

    height, width = (max(1, round(side * factor)) for side in region.shape)
    margin = max(1, round(max(height, width) / 50))  # an editor changes a little around the region too
    small = F.interpolate(region[None, None].float(), size=(height, width), mode="area")
    wide = F.max_pool2d(small, 2 * margin + 1, stride=1, padding=margin)[0, 0]
    luma = []
    for picture in (original, returned):
        array = np.ascontiguousarray((picture * 255).movedim(0, -1).numpy(), dtype=np.float32)
        gray = cv2.cvtColor(array, cv2.COLOR_RGB2GRAY)
        luma.append(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA) if factor < 1 else gray)
    x, y = region.shape[1] / width, region.shape[0] / height
    to_full = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
    outside = (wide <= 1e-4).numpy().astype(np.uint8)
    structure = _structure(luma[0], outside)
    return _Level(original=luma[0], returned=luma[1], outside=outside, structure=structure, to_full=to_full)


def _structure(luma: NDArray[np.float32], outside: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The luma outside without its finest detail, which editors lose, and without its slow changes, which unrelated
    pictures share. The region is filled smoothly first, so that what is in it has no influence."""
    import cv2

    side = max(luma.shape)
    fine, wide, weight = max(0.8, side / 256), side / 40, outside.astype(np.float32)
    around = cv2.GaussianBlur(luma * weight, (0, 0), wide) / (cv2.GaussianBlur(weight, (0, 0), wide) + 1e-4)
    filled = np.where(outside > 0, luma, around).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(filled, (0, 0), fine) - cv2.GaussianBlur(filled, (0, 0), wide), dtype=np.float32)


def _coarse(level: _Level) -> Matrix:
    """The best of the phase correlations over a range of scales, refined, and of the picture as it is."""
    import cv2

    height, width = level.outside.shape
    fade = cv2.GaussianBlur(level.outside.astype(np.float32), (0, 0), max(height, width) / 64) * level.outside
    window = cv2.createHanningWindow((width, height), cv2.CV_32F) ** 0.5
    here = level.structure * fade * window
    found = []
    for scale in SCALES:
        zoom = _zoom(scale, (height, width))
        there = level.moved_back(zoom) * fade * window
        (x, y), _response = cv2.phaseCorrelate(here, there)
        matrix = zoom @ np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])
        if is_plausible(matrix, (height, width)):
            found.append((_residual_here(level, matrix), matrix))
    starts = [matrix for _residual, matrix in sorted(found, key=lambda pair: pair[0])[:STARTS]]
    refined = [_ecc(level, start, level.outside, cv2.MOTION_AFFINE) for start in [*starts, np.eye(3)]]
    best = min([*refined, *starts, np.eye(3)], key=lambda matrix: _residual_here(level, matrix))
    return _to_full(level, best)


def _refined(level: _Level, matrix: Matrix, *, homography: bool) -> Matrix:
    """The transformation, refined at this level: the simplest one that fits about as well as the best."""
    import cv2

    start = _to_level(level, matrix)
    affine = _ecc(level, start, level.outside, cv2.MOTION_AFFINE)
    trusted = _fitting(level, affine)
    affine = _ecc(level, affine, trusted, cv2.MOTION_AFFINE)
    tried = [_shift_and_scale_of(affine, trusted), affine]
    if homography:
        tried.append(_ecc(level, affine, trusted, cv2.MOTION_HOMOGRAPHY))
    best, residual, least = np.eye(3), _residual_here(level, np.eye(3)), LEAST_GAIN
    for candidate in tried:
        own = _residual_here(level, candidate)
        gains = own < BETTER * residual and residual**2 - own**2 > least
        if gains and is_plausible(candidate, level.outside.shape):
            best, residual, least = candidate, own, LEAST_GAIN / 5
    return _to_full(level, best)


def _as_soft_as_returned(level: _Level, matrix: Matrix) -> _Level:
    """The level with the original blurred as much as the returned picture is, because edges of different sharpness that
    end at the region would move the estimate."""
    import cv2

    here, found = _to_level(level, matrix), [(_residual(level, matrix), level)]
    for factor in BLURS:
        soft = cv2.GaussianBlur(level.original, (0, 0), factor * max(level.outside.shape) / 256)
        each = replace(level, structure=_structure(np.asarray(soft, dtype=np.float32), level.outside))
        found.append((_residual_here(each, here), each))
    residual, best = min(found, key=lambda pair: pair[0])
    return best if residual < BETTER * found[0][0] else level


def _ecc(level: _Level, matrix: Matrix, trusted: NDArray[np.uint8], motion: int) -> Matrix:
    """The transformation that maximises the correlation of the trusted pixels, from this one on; the same if there is
    none."""
    import cv2

    rows = 3 if motion == cv2.MOTION_HOMOGRAPHY else 2
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-7)
    # findTransformECC has a mask of its second picture, so that is the original.
    pair = level.moved_back(matrix), level.structure
    mask, start = trusted * level.compared(matrix), np.eye(3, dtype=np.float32)[:rows]
    try:
        _value, found = cv2.findTransformECC(*pair, start, motion, criteria, mask, 1)
    except cv2.error:  # nothing correlates from here on
        return matrix
    back = (np.vstack([found, [0, 0, 1]]) if rows == 2 else found).astype(np.float64)
    if not np.isfinite(back).all() or abs(np.linalg.det(back)) < 1e-6:
        return matrix
    result = matrix @ np.linalg.inv(back)
    return result / result[2, 2]


def _fitting(level: _Level, matrix: Matrix) -> NDArray[np.uint8]:
    """The pixels outside the region without those around which the two pictures do not correlate, such as what the
    editor changed there too. If little structure would be left, all of them."""
    import cv2

    a, b = level.structure * level.outside, level.moved_back(matrix) * level.outside
    width = max(a.shape) / 40
    products = [cv2.GaussianBlur(each, (0, 0), width) for each in (a * b, a * a, b * b)]
    correlation = products[0] / np.sqrt((products[1] + NOISE_LEVELS**2) * (products[2] + NOISE_LEVELS**2))
    foreign = (correlation < LEAST_CORRELATION) & (products[1] + products[2] > 2 * NOISE_LEVELS**2)
    kept = level.outside * ~foreign
    return kept if float((a * a * kept).sum()) >= float((a * a).sum()) / 2 else level.outside


def _residual(level: _Level, full: Matrix) -> float:
    return _residual_here(level, _to_level(level, full))


def _residual_here(level: _Level, matrix: Matrix) -> float:
    """How much of the structure outside the region differs, 0 to 1, with a transformation at this level."""
    compared = level.compared(matrix) > 0
    if compared.sum() < level.outside.sum() / 3:
        return 1.0
    a, b = level.structure[compared], level.moved_back(matrix)[compared]
    a, b = a - a.mean(), b - b.mean()
    power, noise = float((a * a).mean() + (b * b).mean()), NOISE_LEVELS**2
    different = max(0.0, float(((a - b) ** 2).mean()) - noise)
    return float(min(1.0, (different / (power + noise)) ** 0.5))


def _noise_px(level: _Level, matrix: Matrix, region: Bool[Tensor, "H W"]) -> float:
    """The standard error of the region's corners, in pixels of the full size, for a shift and a scale: what is left
    after the alignment is taken for noise, and the gradients outside for what the estimate rests on (the Cramér-Rao
    bound, with as many independent pixels as the noise has)."""
    compared = level.compared(matrix) > 0
    left = (level.structure - level.moved_back(matrix))[compared]
    down, across = (np.gradient(level.structure, axis=axis)[compared] for axis in (0, 1))
    ys, xs = np.nonzero(compared)
    middle = np.array([xs.mean(), ys.mean()]) if len(xs) else np.zeros(2)
    zoom = across * (xs - middle[0]) + down * (ys - middle[1])
    slopes = np.stack([across, down, zoom], axis=1).astype(np.float64)
    power = max(float(left.var()) if len(xs) else 0.0, LEAST_NOISE**2) * CORRELATED_PX
    spread = np.linalg.inv(slopes.T @ slopes / power + np.diag([1e-4, 1e-4, 1e-8]))
    worst = 0.0
    for x, y in (mapped(np.linalg.inv(level.to_full), _corners(region)) - middle).tolist():
        moved = np.array([[1, 0, x], [0, 1, y]])
        worst = max(worst, float(np.linalg.eigvalsh(moved @ spread @ moved.T)[-1]))
    return float(level.to_full[0, 0] * worst**0.5)


def _shift_and_scale_of(matrix: Matrix, trusted: NDArray[np.uint8]) -> Matrix:
    """The shift and scale that come closest to a transformation at the trusted pixels (least squares)."""
    ys, xs = np.nonzero(trusted)
    if len(xs) < 2:
        return matrix
    step = max(1, len(xs) // 2000)
    here = np.stack([xs, ys], axis=1)[::step].astype(np.float64)
    there = mapped(matrix, here)
    a, b = here - here.mean(axis=0), there - there.mean(axis=0)
    scale = float((a * b).sum() / max((a * a).sum(), 1e-9))
    shift = there.mean(axis=0) - scale * here.mean(axis=0)
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1.0]])


def _to_level(level: _Level, full: Matrix) -> Matrix:
    matrix = np.linalg.inv(level.to_full) @ full @ level.to_full
    return matrix / matrix[2, 2]


def _to_full(level: _Level, matrix: Matrix) -> Matrix:
    full = level.to_full @ matrix @ np.linalg.inv(level.to_full)
    return full / full[2, 2]


def _zoom(scale: float, size_yx: tuple[int, ...]) -> Matrix:
    """An enlargement around the middle of a picture."""
    x, y = (size_yx[1] - 1) / 2, (size_yx[0] - 1) / 2
    return np.array([[scale, 0, x * (1 - scale)], [0, scale, y * (1 - scale)], [0, 0, 1.0]])


def is_plausible(matrix: Matrix, size_yx: tuple[int, ...]) -> bool:
    """Whether a transformation is one that editors make."""
    longest = max(size_yx)
    (x, y), scale = shift_and_scale(matrix, size_yx)
    corners = np.array([(cx, cy) for cx in (0, size_yx[1] - 1) for cy in (0, size_yx[0] - 1)], dtype=np.float64)
    middle = np.array([(size_yx[1] - 1) / 2, (size_yx[0] - 1) / 2])
    expected = (corners - middle) * scale + middle + np.array([x, y])
    skew = float(np.linalg.norm(mapped(matrix, corners) - expected, axis=1).max())
    least, most = SCALE_RANGE
    return max(abs(x), abs(y)) <= MAX_SHIFT * longest and least <= scale <= most and skew <= MAX_SKEW * longest


def warped_back(
    picture: NDArray[np.float32], matrix: Matrix, interpolation: int, *, replicate: bool = True
) -> NDArray[np.float32]:
    """A returned picture as seen from the original; beyond its border, its border is repeated, or 0."""
    import cv2

    flags = interpolation | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpPerspective(picture, matrix, size, flags=flags, borderMode=border), dtype=np.float32)
