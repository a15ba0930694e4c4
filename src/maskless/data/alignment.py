"""How a picture that an editor returned lies on the original: the measured shift, scale, colour change and residual."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a returned picture lay on the original, measured on the pixels outside the region.

    aligned: whether it fits the original now, as it was returned or after it was warped. warped: whether it was warped.
    colours_matched: whether its colours were changed. shift_xy_px: by how far its content was displaced at the middle
    of the picture, to the right and downwards, in pixels of the original. scale: size of its content as a multiple of
    the original's. colour_rgb: mean of its channels minus those of the original, in levels of 0 to 255. residual: how
    much of the structure outside the region still differs after the alignment, from 0 for none to 1 for unrelated
    pictures. noise_px: standard error of the displacement of the region's corners, in pixels of the original; smaller
    displacements than three of them are not corrected.

    Of a picture that could not be aligned, shift and scale are those of the best attempt, and it is as it was returned.
    """

    aligned: bool
    warped: bool
    colours_matched: bool
    shift_xy_px: tuple[float, float]
    scale: float
    colour_rgb: tuple[float, float, float]
    residual: float
    noise_px: float

    def resized(self, factor: float) -> Alignment:
        """The same in pixels of a picture that is larger by this factor."""
        x, y = self.shift_xy_px
        return replace(self, shift_xy_px=(x * factor, y * factor), noise_px=self.noise_px * factor)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded to what the measurement can tell."""
        return asdict(self) | {
            "shift_xy_px": [round(value, 2) for value in self.shift_xy_px],
            "scale": round(self.scale, 4),
            "colour_rgb": [round(value, 1) for value in self.colour_rgb],
            "residual": round(self.residual, 3),
            "noise_px": round(self.noise_px, 2),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Alignment:
        """The inverse of `to_dict`, up to its rounding."""
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list | tuple)}
        return cls(**values | lists)


def worst(alignments: Iterable[Alignment | None]) -> Alignment | None:
    """The alignment of a candidate that was drawn in several pieces: that of the piece with the largest residual, one
    that was not aligned before all others. None if no piece could be measured."""
    measured = [each for each in alignments if each is not None]
    return max(measured, key=lambda each: (not each.aligned, each.residual), default=None)
