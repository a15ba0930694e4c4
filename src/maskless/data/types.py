"""The values that flow through an edit: frozen, keyword-only, their shapes checked on construction.

image + texts -> PatchFeatures -> Anchors -> Regions -> Candidates -> Losses -> EditResult
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from maskless.data.config import NEED_NO_PROMPT, TASKS, EditConfig
from maskless.data.errors import MasklessError, require
from maskless.data.records import LOSS_NAMES, AnchorNetReport, Cost, Losses, PlaceSigns, Scores, StepRecord

__all__ = [
    "LOSS_NAMES",
    "AnchorNetReport",
    "Anchors",
    "Candidates",
    "Cost",
    "EditRequest",
    "EditResult",
    "EditedImage",
    "Losses",
    "MasklessError",
    "PatchFeatures",
    "Regions",
    "PlaceSigns",
    "Scores",
    "StepRecord",
]

MIN_SIDE_PX, MAX_SIDE_PX = 32, 8000


@dataclass(frozen=True, kw_only=True, eq=False)
class EditRequest:
    """What the user asks for.

    image: RGB in [0, 1], at the original resolution.
    caption: what is there; may be empty, then the place comes from attention alone.
    prompt: what should be there; may be empty where the task can do without (NEED_NO_PROMPT).
    task: one of TASKS. mask: True where the picture may change, in place of a search; None lets the task find it.
    margins_px: left, top, right, bottom: how much of the picture is canvas that was added, and belongs to the mask.
    seed: of the noise and of the search; None takes the config's.
    source: the SourceImage of data/images.py, the file's own pixels and metadata, for saving bit for bit; None where
        the image came without them. (Any, because images.py imports this module.)
    """

    image: Float[Tensor, "3 H W"]
    caption: str
    prompt: str
    task: str = "replace"
    mask: Bool[Tensor, "H W"] | None = None
    margins_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    seed: int | None = None
    source: Any = None

    def __post_init__(self) -> None:
        shape = tuple(self.image.shape)
        require(len(shape) == 3 and shape[0] == 3, f"image must be a [3, H, W] tensor, got shape {list(shape)}")
        require(self.image.is_floating_point(), f"image must hold floats in [0, 1], got {self.image.dtype}")
        require(
            all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for side in shape[1:]),
            f"image sides must be from {MIN_SIDE_PX} to {MAX_SIDE_PX} pixels, got {shape[2]} x {shape[1]}",
        )
        low, high = self.image.aminmax()
        require(bool(low >= 0) and bool(high <= 1), f"image must be in [0, 1], got {float(low):g} to {float(high):g}")
        require(isinstance(self.caption, str), f"caption must be a text, got {self.caption!r}")
        require(self.task in TASKS, f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        require(isinstance(self.prompt, str), f"prompt must be a text, got {self.prompt!r}")
        require(self.task in NEED_NO_PROMPT or bool(self.prompt.strip()), "prompt must not be empty")
        if self.mask is not None:
            height, width = self.mask.shape[-2:]
            require(
                tuple(self.mask.shape) == tuple(shape[1:]),
                f"mask must be of the picture's size, {shape[2]} x {shape[1]}, got {width} x {height}",
            )
            require(bool(self.mask.any()), "mask must mark something to edit, got an empty one")

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchFeatures:
    """DINO's view of an image, method step 1.

    features: patch tokens. attention: CLS -> patch, averaged over heads, >= 0, summing to 1.
    patch_px: side of a patch in pixels of DINO's input.
    """

    features: Float[Tensor, "D h w"]
    attention: Float[Tensor, "h w"]
    patch_px: int

    def __post_init__(self) -> None:
        require(self.features.ndim == 3, f"features must be [D, h, w], got {list(self.features.shape)}")
        require(
            self.attention.shape == self.features.shape[1:],
            f"attention must be {list(self.features.shape[1:])} like the features, got {list(self.attention.shape)}",
        )
        total = float(self.attention.sum())
        require(abs(total - 1) < 1e-3, f"attention must sum to 1, got {total:g}")

    @property
    def grid_yx(self) -> tuple[int, int]:
        """Rows and columns of the patch grid."""
        return self.features.shape[1], self.features.shape[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class Anchors:
    """Points to edit around, method step 2.

    points_yx: (row, column) cells of the grid. weight: what made each a peak, >= 0.
    grid_yx: rows and columns of the grid that the points count in.
    """

    points_yx: Int[Tensor, "K 2"]
    weight: Float[Tensor, " K"]
    grid_yx: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.points_yx.shape)
        require(len(shape) == 2 and shape[1] == 2 and shape[0] > 0, f"points_yx must be [K, 2], got {list(shape)}")
        require(self.weight.shape == shape[:1], f"weight must be [{shape[0]}], got {list(self.weight.shape)}")
        inside = (self.points_yx >= 0) & (self.points_yx < torch.tensor(self.grid_yx))
        rows, columns = self.grid_yx
        require(bool(inside.all()), f"points_yx must lie on the grid of {rows} rows and {columns} columns")

    def __len__(self) -> int:
        return self.points_yx.shape[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """Boxes to edit, method step 3, in pixels of the original, half-open: x0 <= x < x1, y0 <= y < y1.

    anchor_index, size_index: which anchor k and which size m each box belongs to.
    log_prob: log pi(m|k), None where no policy has spoken.
    """

    boxes_xyxy: Int[Tensor, "N 4"]
    anchor_index: Int[Tensor, " N"]
    size_index: Int[Tensor, " N"]
    log_prob: Float[Tensor, " N"] | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.boxes_xyxy.shape)
        require(len(shape) == 2 and shape[1] == 4, f"boxes_xyxy must be [N, 4], got {list(shape)}")
        for name in ("anchor_index", "size_index", "log_prob"):
            value = getattr(self, name)
            require(value is None or value.shape == shape[:1], f"{name} must be [{shape[0]}]")
        x0, y0, x1, y1 = self.boxes_xyxy.unbind(1)
        require(bool(((x0 < x1) & (y0 < y1)).all()), "boxes_xyxy must have x0 < x1 and y0 < y1")

    def __len__(self) -> int:
        return self.boxes_xyxy.shape[0]

    def __getitem__(self, index: Tensor | list[int]) -> Regions:
        """The regions at these positions, in this order."""
        index = torch.as_tensor(index, dtype=torch.long)
        return Regions(
            boxes_xyxy=self.boxes_xyxy[index],
            anchor_index=self.anchor_index[index],
            size_index=self.size_index[index],
            log_prob=None if self.log_prob is None else self.log_prob[index],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Edits of one image, method step 7, kept as what the model generated and composited only when looked at:
    fifty-four full copies of an 8000-pixel image would be 40 GB.

    windows_xyxy: the crop with context that was inpainted, pixels of the original, half-open; may overhang the picture.
    crops: the generated window at a resolution of the model's own, RGB 0..255.
    seeds: seed of each candidate's noise; of a search all are one: one image, one noise (mistake 9).
    masks: what each candidate may change, inside its box; None where that is the whole box.
    """

    regions: Regions
    windows_xyxy: Int[Tensor, "N 4"]
    crops: UInt8[Tensor, "N 3 h w"]
    seeds: tuple[int, ...]
    masks: Bool[Tensor, "N H W"] | None = None

    def __post_init__(self) -> None:
        count = len(self.regions)
        require(tuple(self.windows_xyxy.shape) == (count, 4), f"windows_xyxy must be [{count}, 4]")
        require(self.crops.ndim == 4 and self.crops.shape[:2] == (count, 3), f"crops must be [{count}, 3, h, w]")
        require(len(self.seeds) == count, f"seeds must be {count}, got {len(self.seeds)}")
        require(self.masks is None or self.masks.shape[0] == count, f"masks must be [{count}, H, W]")

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: list[int]) -> Candidates:
        """The candidates at these positions, in this order."""
        return Candidates(
            regions=self.regions[index],
            windows_xyxy=self.windows_xyxy[index],
            crops=self.crops[index],
            seeds=tuple(self.seeds[i] for i in index),
            masks=None if self.masks is None else self.masks[index],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class EditedImage:
    """One candidate at the original's resolution, made when it is asked for.

    Outside the mask, or the whole of box_xyxy where there is none, every pixel is the original's, bit for bit, in the
    original's own depth.
    """

    request: EditRequest
    box_xyxy: tuple[int, int, int, int]
    window_xyxy: tuple[int, int, int, int]
    crop: UInt8[Tensor, "3 h w"]
    feather: float
    mask: Bool[Tensor, "H W"] | None = None

    def touched(self) -> Bool[Tensor, "H W"]:
        """Where the candidate may differ from the original."""
        if self.mask is not None:
            return self.mask
        x0, y0, x1, y1 = self.box_xyxy
        touched = torch.zeros(self.request.size_yx, dtype=torch.bool)
        touched[y0:y1, x0:x1] = True
        return touched

    def tensor(self) -> Float[Tensor, "3 H W"]:
        """RGB in [0, 1]."""
        from maskless.data.regions import paste_back

        crop = self.crop.to(torch.float32) / 255
        return paste_back(
            self.request.image, crop, self.window_xyxy, self.box_xyxy, feather=self.feather, mask=self.mask
        )

    def pixels(self) -> np.ndarray:
        """[H, W, 3] in the source's own depth: uint16 for a 16-bit source, else uint8."""
        from maskless.data.regions import paste_pixels

        source = self.request.source
        if source is None:
            original = (self.request.image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        else:
            original = source.pixels
        crop = self.crop.to(torch.float32) / 255
        return paste_pixels(original, crop, self.window_xyxy, self.box_xyxy, feather=self.feather, mask=self.mask)

    def pil(self) -> Image.Image:
        """An 8-bit RGB picture."""
        pixels = self.pixels()
        return Image.fromarray((pixels >> 8).astype("uint8") if pixels.dtype == "uint16" else pixels)

    def save(self, path: str | Path, *, text: Mapping[str, str] | None = None) -> None:
        """Write a picture file with the source's alpha, EXIF and ICC profile. text: PNG text chunks."""
        from maskless.data.images import save_image

        save_image(path, self.pixels(), source=self.request.source, text=text)


@dataclass(frozen=True, kw_only=True, eq=False)
class EditResult:
    """What an edit gives back: its candidates, their losses and scores, and how they came about.

    A search gives one candidate per anchor; a fill, whose region is known, one per try, and no anchors or AnchorNet.
    order: candidate positions, best first. scores: the ranking's value per candidate, larger is better.
    attention, relevance: the maps that the place came from; None where they were not used.
    """

    request: EditRequest
    config: EditConfig
    anchors: Anchors | None
    candidates: Candidates
    losses: Losses
    scores: Float[Tensor, " N"]
    order: tuple[int, ...]
    attention: Float[Tensor, "h w"] | None
    relevance: Float[Tensor, "rows columns"] | None
    anchor_net: AnchorNetReport | None
    history: tuple[StepRecord, ...]
    cost: Cost = field(repr=False)

    def __post_init__(self) -> None:
        count = len(self.candidates)
        require(sorted(self.order) == list(range(count)), f"order must be a permutation of {count} candidates")
        require(len(self.losses) == count and self.scores.shape == (count,), f"losses and scores must be [{count}]")

    @property
    def best(self) -> EditedImage:
        """The candidate that the ranking puts first."""
        return self.edited(self.order[0])

    def edited(self, index: int) -> EditedImage:
        """Candidate `index` (its position among the candidates, not its rank) at the original's resolution."""
        box, window = self.candidates.regions.boxes_xyxy[index], self.candidates.windows_xyxy[index]
        return EditedImage(
            request=self.request,
            box_xyxy=_corners(box),
            window_xyxy=_corners(window),
            crop=self.candidates.crops[index],
            feather=self.config.feather,
            mask=None if self.candidates.masks is None else self.candidates.masks[index],
        )


def _corners(box: Tensor) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1
