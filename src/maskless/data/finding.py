"""The result of a search for a region in which nothing is drawn: boxes, a mask, and why they were chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw
from torch import Tensor

from maskless.data.errors import require
from maskless.data.files import finite, write_bytes, written_whole
from maskless.data.picture import SourceImage

REGION_FILE, MASK_FILE, OVERLAY_FILE = "region.json", "mask.png", "overlay.png"
OVERLAY_PX = 1024
"""Maximum longer side of the overlay, in pixels."""
COLOUR, PLAIN = (230, 60, 90), (255, 255, 255)
"""Colours of the mask and the best box, and of the alternatives, in the overlay."""


@dataclass(frozen=True, kw_only=True)
class FoundRegion:
    """A region of a picture, and how well it fits the object that a caption names.

    box_xyxy: in pixels of the picture, half-open. score: larger is better, in standard deviations over all regions that
    were compared. signs: what speaks for the region (positive) or against it (negative), in the same unit, by the names
    of the fields of `LocationSigns`. reason: the same in words, one sentence.
    """

    box_xyxy: tuple[int, int, int, int]
    score: float
    signs: Mapping[str, float]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "box_xyxy": list(self.box_xyxy),
            "score": _rounded(self.score),
            "signs": {name: _rounded(value) for name, value in self.signs.items()},
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """Where in a picture the object is that a caption names.

    source: the picture. regions: the regions that fit best, best first; no two of them are nearly the same. mask: True
    on the objects that the caption names, which is not limited to the first region: a caption can name several objects.
    looks_like: whether the first region looks like the caption; if not, the picture probably does not show what the
    caption names. clear: whether the first region is clearly the right one.
    """

    source: SourceImage
    caption: str
    regions: tuple[FoundRegion, ...]
    mask: Bool[Tensor, "H W"]
    looks_like: bool
    clear: bool

    def __post_init__(self) -> None:
        height, width = self.size_yx
        require(len(self.regions) > 0, "regions must not be empty")
        require(
            tuple(self.mask.shape) == (height, width),
            f"mask must be [{height}, {width}], got {list(self.mask.shape)}",
        )

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width of the picture in pixels."""
        return self.source.size_yx

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """The box of the best region, in pixels, half-open."""
        return self.regions[0].box_xyxy

    @property
    def score(self) -> float:
        """The score of the best region; see `FoundRegion`."""
        return self.regions[0].score

    @property
    def reason(self) -> str:
        """Why the best region was chosen, in one sentence."""
        return self.regions[0].reason

    @property
    def alternatives(self) -> tuple[FoundRegion, ...]:
        """The other regions, best first."""
        return self.regions[1:]

    @property
    def identity(self) -> str:
        """Sixteen digits that only this picture and caption have."""
        digest = hashlib.sha256(np.ascontiguousarray(self.source.pixels).data)
        digest.update(json.dumps([self.source.pixels.shape, self.caption]).encode())
        return digest.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        height, width = self.size_yx
        return {
            "image": None if self.source.path is None else str(self.source.path),
            "size_px": [width, height],
            "caption": self.caption,
            "looks_like": self.looks_like,
            "clear": self.clear,
            **self.regions[0].to_dict(),
            "mask_share": round(float(self.mask.float().mean()), 4),
            "alternatives": [region.to_dict() for region in self.alternatives],
            "identity": self.identity,
        }

    def save(self, folder: str | Path) -> None:
        """Write mask.png (white where to edit, of the picture's size), overlay.png (the picture with the mask and the
        boxes, reduced if it is large) and, last, region.json (`to_dict`). Earlier files of these names are replaced.

        Raises:
            MasklessError: the folder cannot be written to.
        """
        pictures = {MASK_FILE: self.mask_image(), OVERLAY_FILE: self.overlay()}
        for name, picture in pictures.items():
            with written_whole(Path(folder) / name) as temporary:
                picture.save(temporary, format="PNG")
        content = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        write_bytes(Path(folder) / REGION_FILE, content.encode())

    def mask_image(self) -> Image.Image:
        """The mask as a grey picture, 255 where to edit and 0 elsewhere."""
        return Image.fromarray(self.mask.numpy().astype(np.uint8) * 255)

    def overlay(self) -> Image.Image:
        """The picture with the mask tinted, the best box, and the alternatives as thin boxes with their numbers."""
        pixels = self.source.pixels
        pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        picture, mask = Image.fromarray(pixels), self.mask_image()
        scale = min(1.0, OVERLAY_PX / max(picture.size))
        if scale < 1:
            picture.thumbnail((OVERLAY_PX, OVERLAY_PX), Image.Resampling.LANCZOS)
            mask = mask.resize(picture.size)
        picture.paste(COLOUR, mask=mask.point(lambda value: value * 2 // 5))
        draw, width = ImageDraw.Draw(picture), max(1, round(max(picture.size) / 250))
        for number, region in reversed(list(enumerate(self.regions, start=1))):
            x0, y0, x1, y1 = (round(edge * scale) for edge in region.box_xyxy)
            colour, thick = (COLOUR, 2 * width) if number == 1 else (PLAIN, width)
            draw.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour, width=thick)
            size = max(10, 8 * width)
            draw.text((x0 + 2 * thick, y0 + thick), str(number), fill=colour, font_size=size, stroke_width=1,
                      stroke_fill=(0, 0, 0))  # fmt: skip
        return picture


def _rounded(value: float) -> float | None:
    """A number with four decimals; None if it is not finite."""
    number = finite(value)
    return None if number is None else round(number, 4)
