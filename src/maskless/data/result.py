"""What an edit gives back: its candidates, how they came about, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import require
from maskless.data.paste import paste_back, paste_pixels
from maskless.data.picture import save_image
from maskless.data.types import Anchors, EditRequest, Losses, Regions


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
        crop = self.crop.to(torch.float32) / 255
        return paste_back(
            self.request.image, crop, self.window_xyxy, self.box_xyxy, feather=self.feather, mask=self.mask
        )

    def pixels(self) -> np.ndarray:
        """[H, W, 3] in the source's own depth: uint16 for a 16-bit source, else uint8."""
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
        save_image(path, self.pixels(), source=self.request.source, text=text)


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One iteration of the search, for a progress bar, a log or a loss curve.

    iteration: 1-based, over all epochs; epoch likewise. loss: mean total loss of this iteration's choices.
    expected_loss: sum over seen sizes of pi(m|k) l(k,m), renormalised per anchor, mean over anchors, after any update.
    chosen: size index of each anchor. inpaintings, updates: so far. seconds: of this iteration.
    """

    iteration: int
    total_iterations: int
    epoch: int
    loss: float
    expected_loss: float
    chosen: tuple[int, ...]
    inpaintings: int
    updates: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {"chosen": list(self.chosen)}


@dataclass(frozen=True, kw_only=True, eq=False)
class AnchorNetReport:
    """What AnchorNet learned. probabilities: pi(m|k), rows sum to 1. The expected losses are over the same cells, all
    that were evaluated, with the policy before and after."""

    probabilities_before: Float[Tensor, "K M"]
    probabilities_after: Float[Tensor, "K M"]
    expected_loss_before: float
    expected_loss_after: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an edit took. unet_forwards: denoiser calls counted per picture, guidance counting twice.
    seconds: by stage. peak_memory_mb: of the process, or of the accelerator where one is used."""

    inpaintings: int
    unet_forwards: int
    seconds: Mapping[str, float]
    peak_memory_mb: float


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
