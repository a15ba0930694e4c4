"""The values that an edit passes on until something is drawn: frozen, keyword-only, shapes checked on construction.

image + texts -> PatchFeatures -> Anchors -> Regions -> Losses and Scores; what comes of them is in result.py.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from maskless.data.config import NEED_NO_PROMPT, TASKS
from maskless.data.errors import require
from maskless.data.picture import MAX_SIDE_PX, MIN_SIDE_PX, SourceImage


@dataclass(frozen=True, kw_only=True, eq=False)
class EditRequest:
    """What the user asks for.

    image: RGB in [0, 1], at the original resolution.
    caption: what is there; may be empty, then the place comes from attention alone.
    prompt: what should be there; may be empty where the task can do without (NEED_NO_PROMPT).
    task: one of TASKS. mask: True where the picture may change, in place of a search; None lets the task find it.
    margins_px: left, top, right, bottom: how much of the picture is canvas that was added, and belongs to the mask.
    seed: of the noise and of the search; None takes the config's.
    source: the file's own pixels and metadata, for saving bit for bit; None where the image came without them.
    """

    image: Float[Tensor, "3 H W"]
    caption: str
    prompt: str
    task: str = "replace"
    mask: Bool[Tensor, "H W"] | None = None
    margins_px: tuple[int, int, int, int] = (0, 0, 0, 0)
    seed: int | None = None
    source: SourceImage | None = None

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
class Losses:
    """Method step 8, one value per candidate, never reduced.

    total = alpha clip + beta directional + gamma structure + delta local. The first three look at the whole picture,
    the last at the edited region.
    """

    clip: Float[Tensor, " N"]
    directional: Float[Tensor, " N"]
    structure: Float[Tensor, " N"]
    local: Float[Tensor, " N"]
    total: Float[Tensor, " N"]

    def __post_init__(self) -> None:
        shapes = {tuple(getattr(self, name).shape) for name in LOSS_NAMES}
        require(len(shapes) == 1 and len(next(iter(shapes))) == 1, f"losses must all be [N], got {sorted(shapes)}")

    @classmethod
    def from_rows(cls, rows: Float[Tensor, "N L"]) -> Losses:
        """What `rows` gave, of one or several batches."""
        return cls(**dict(zip(LOSS_NAMES, rows.unbind(1), strict=True)))

    @property
    def rows(self) -> Float[Tensor, "N L"]:
        """A row for each candidate: its losses in the order of LOSS_NAMES, the total last."""
        return torch.stack([getattr(self, name) for name in LOSS_NAMES], dim=1)

    def __getitem__(self, candidates: list[int]) -> Losses:
        return Losses.from_rows(self.rows[candidates])

    def __len__(self) -> int:
        return self.total.shape[0]


LOSS_NAMES = tuple(each.name for each in fields(Losses))
"""The parts as they are declared, and last the total."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaceSigns:
    """How much each of N regions is the thing that a caption names, read before any inpainting; larger is more.

    shown: cosine of the region alone and the caption. hidden: how little the picture still shows the caption with the
    region painted over. focus: mean relevance to the caption inside the region less that outside. fit: intersection
    over union with the box of the named thing's outline. A sign that is not known is 0 for all.
    """

    shown: Float[Tensor, " N"]
    hidden: Float[Tensor, " N"]
    focus: Float[Tensor, " N"]
    fit: Float[Tensor, " N"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What a ranking looks at, one value per candidate; larger is better.

    text_to_image: cosine of the edited picture and the prompt (S_t2i).
    image_to_image: cosine of the edited and the source picture (S_i2i).
    place: how much the region is what the caption names, in spreads over all regions that were proposed
    (`ranking.place_score`); 0 for all where there is no caption.
    """

    text_to_image: Float[Tensor, " N"]
    image_to_image: Float[Tensor, " N"]
    place: Float[Tensor, " N"]
