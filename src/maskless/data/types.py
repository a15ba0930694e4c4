"""The values that flow through an edit: frozen, keyword-only dataclasses that check their shapes on construction.

image + texts -> PatchFeatures -> Anchors -> Regions -> Losses and Scores; the edit's result is in result.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.errors import require
from maskless.data.options import require_unicode
from maskless.data.picture import SourceImage
from maskless.data.tasks import FACTS, TASKS


@dataclass(frozen=True, kw_only=True, eq=False)
class EditRequest:
    """What the user asks for.

    source: the picture at its original resolution, with the metadata of its file.
    caption: the object to edit, which the picture shows; if it is empty, attention alone decides where to edit.
    prompt: what the edited region should show; may be empty if the task does not need a prompt (data/tasks.py).
    task: one of TASKS. mask: True where the picture may change; None lets the task find the region.
    amount: how much each pixel of the mask may change, above 0 and up to 1; None where all may change wholly.
    margins_px: left, top, right, bottom: widths of the canvas that was added around the picture; it belongs to the
    mask.
    seed: seed of the noise and of the search; None takes the one of the config.
    """

    source: SourceImage
    caption: str
    prompt: str
    task: str = "replace"
    mask: Bool[Tensor, "H W"] | None = None
    amount: Float[Tensor, "H W"] | None = None
    margins_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    seed: int | None = None

    def __post_init__(self) -> None:
        require(isinstance(self.source, SourceImage), f"source must be a SourceImage, got {type(self.source).__name__}")
        require(isinstance(self.caption, str), f"caption must be a string, got {self.caption!r}")
        require(self.task in TASKS, f"task must be one of {', '.join(TASKS)}, got {self.task!r}")
        require(isinstance(self.prompt, str), f"prompt must be a string, got {self.prompt!r}")
        require(bool(self.prompt.strip()) or not FACTS[self.task].needs_prompt, "prompt must not be empty")
        require_unicode("caption", self.caption)
        require_unicode("prompt", self.prompt)
        if self.mask is not None:
            (height, width), (mask_height, mask_width) = self.size_yx, self.mask.shape[-2:]
            require(
                tuple(self.mask.shape) == self.size_yx,
                f"mask must be of the picture's size, {width} x {height}, got {mask_width} x {mask_height}",
            )
            require(bool(self.mask.any()), "mask must have at least one pixel to edit, got an empty one")
        if self.amount is not None:
            expected = self.mask is not None and torch.equal(self.amount > 0, self.mask)
            require(expected and float(self.amount.max()) <= 1, "amount must be above 0 and up to 1 in the mask only")

    @property
    def searches(self) -> bool:
        """Whether one search finds the region, so that the edit can continue from a checkpoint."""
        return FACTS[self.task].searches and self.mask is None

    @property
    def image(self) -> Float[Tensor, "3 H W"]:
        """The whole picture as floats in [0, 1]; see `SourceImage.rgb`."""
        return self.source.rgb

    @property
    def size_yx(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.source.size_yx


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchFeatures:
    """DINO's features of an image (method step 1).

    features: patch tokens. attention: from the CLS token to each patch, averaged over heads, >= 0, summing to 1.
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
    """Points to edit around (method step 2).

    points_yx: (row, column) cells of the grid. weight: the value at each point of the map whose peak it is, >= 0.
    grid_yx: rows and columns of the grid.
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
    """Boxes to edit (method step 3), in pixels of the original, half-open: x0 <= x < x1, y0 <= y < y1.

    anchor_index, size_index: the anchor k and the size m of each box.
    log_prob: log pi(m|k), or None if no policy chose the boxes.
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
class Losses:
    """The terms of each candidate's loss and their weighted sum (method step 8), never averaged over candidates.

    names: names of the terms, in the order of `method.losses.TERMS`. terms: a row for each candidate, a column for each
    name. total: the weighted sum of each row.
    """

    names: tuple[str, ...]
    terms: Float[Tensor, "N L"]
    total: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        expected = (len(self.total), len(self.names))
        require(tuple(self.terms.shape) == expected, f"terms must be {list(expected)}, got {list(self.terms.shape)}")

    @classmethod
    def from_rows(cls, names: tuple[str, ...], rows: Float[Tensor, "N columns"]) -> Losses:
        """The inverse of `rows`, for the rows of one or several batches."""
        return cls(names=names, terms=rows[:, :-1], total=rows[:, -1])

    @property
    def rows(self) -> Float[Tensor, "N columns"]:
        """A row for each candidate: its terms, followed by their weighted sum."""
        return torch.cat([self.terms, self.total[:, None]], dim=1)

    def __getitem__(self, candidates: list[int]) -> Losses:
        """The losses of the candidates at these positions, in this order."""
        return Losses.from_rows(self.names, self.rows[candidates])

    def __len__(self) -> int:
        return self.total.shape[0]

    def of(self, candidate: int) -> dict[str, float]:
        """One candidate's terms by name, and their weighted sum as "total"."""
        return dict(zip((*self.names, "total"), self.rows[candidate].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The boxes that a grounder found for a text, best first.

    boxes_xyxy: in pixels of the picture that it was given, half-open. score: from 0 to 1.
    """

    boxes_xyxy: Int[Tensor, "N 4"]
    score: Float[Tensor, " N"]

    def __len__(self) -> int:
        return self.score.shape[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class LocationSigns:
    """Signs of how well each of N regions fits the object that a caption names, computed before any inpainting.

    Larger is better for each; a sign that is not known is 0 for all regions.

    shown: cosine similarity of the region alone and the caption. focus: mean relevance to the caption inside the region
    minus the mean outside. fit: intersection over union of the region and the box of the named object's outline.
    detected: the largest intersection over union with a box that the grounder found, each times its score as a share of
    the highest one.
    """

    shown: Float[Tensor, " N"]
    focus: Float[Tensor, " N"]
    fit: Float[Tensor, " N"]
    detected: Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """The input of a ranking, one value per candidate; larger is better.

    text_to_image: cosine similarity of the edited picture and the prompt (S_t2i).
    image_to_image: cosine similarity of the edited and the source picture (S_i2i).
    location: how well the region fits the object that the caption names, in standard deviations over all proposed
    regions (`ranking.location_score`); 0 for all if there is no caption.
    gone: minus the cosine similarity of the edited region and the caption; 0 for all if there is no caption.
    """

    text_to_image: Float[Tensor, " N"]
    image_to_image: Float[Tensor, " N"]
    location: Float[Tensor, " N"]
    gone: Float[Tensor, " N"]
