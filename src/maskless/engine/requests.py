"""What the user gives becomes an EditRequest: picture, texts, mask or box, a larger canvas. No model is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskless.data.config import TASKS
from maskless.data.errors import MasklessError, require
from maskless.data.picture import MAX_SIDE_PX, ImageLike, SourceImage, load_image
from maskless.data.types import EditRequest
from maskless.method.scratches import find_scratches

SIDES = ("left", "top", "right", "bottom")
EXTEND_BY = "0.25"
EXTEND_FORMS = "0.25 (of each side), 64 (pixels), 25%, or by side: left=0.5,top=40"
NEED_A_PLACE = ("remove", "texture")
Extend = str | float | int
Box = str | Sequence[int]


def make_request(
    image: ImageLike,
    *,
    caption: str = "",
    prompt: str = "",
    task: str = "replace",
    mask: ImageLike | None = None,
    box: Box | None = None,
    extend: Extend | None = None,
    seed: int | None = None,
) -> EditRequest:
    """A request that its task can be done with.

    Args:
        image: see `load_image`. task: one of TASKS.
        mask: bright where the picture may change, dark elsewhere; of the picture's size; or a bool array [H, W].
        box: (x0, y0, x1, y1) in pixels, half-open, in place of a mask; "x0,y0,x1,y1" will do.
        extend: how much canvas to add: a float is a share of each side, an int pixels, a text either, also by side.
    Raises:
        MasklessError: an input that cannot be used, with what was expected and what came.
    """
    require(task in TASKS, f"task must be one of {', '.join(TASKS)}, got {task!r}")
    require(mask is None or box is None, "give a mask or a box, not both")
    require(extend is None or task == "extend", f"only the task extend takes a canvas to add, got it with {task}")
    source = load_image(image)
    size_yx = (source.rgb.shape[1], source.rgb.shape[2])
    region = _region(mask, box, size_yx)
    named = bool(caption.strip()) or region is not None
    require(named or task not in NEED_A_PLACE, f"the task {task} needs to know what: give a caption, a mask or a box")
    margins = (0, 0, 0, 0)
    if task == "extend":
        require(region is None, "the task extend finds its region itself: the canvas that is added; leave mask and box")
        margins = _margins(EXTEND_BY if extend is None else extend, size_yx)
        source, region = _on_canvas(source, margins)
    elif task == "complete":
        region = _transparent(source) if region is None else region
        source = _opaque(source, region)
    elif task == "repair" and region is None:
        region = _damaged(source)
        source = _opaque(source, region)
    return EditRequest(
        image=source.rgb,
        caption=caption,
        prompt=prompt,
        task=task,
        mask=region,
        margins_px=margins,
        seed=seed,
        source=source,
    )


def _region(mask: ImageLike | None, box: Box | None, size_yx: tuple[int, int]) -> Tensor | None:
    """The user's mask or box, [H, W] bool; None where neither was given."""
    if box is not None:
        x0, y0, x1, y1 = _corners(box, size_yx)
        region = torch.zeros(size_yx, dtype=torch.bool)
        region[y0:y1, x0:x1] = True
        return region
    if mask is None:
        return None
    if isinstance(mask, (np.ndarray, Tensor)) and mask.dtype in (np.bool_, torch.bool):
        region = torch.as_tensor(mask)
    else:
        region = load_image(mask).rgb.mean(dim=0) > 0.5
    height, width = size_yx
    found = " x ".join(str(side) for side in reversed(region.shape))
    require(tuple(region.shape) == size_yx, f"mask must be of the picture's size, {width} x {height}, got {found}")
    require(bool(region.any()), "mask must be bright where to edit, got one that is dark all over")
    return region


def _corners(box: Box, size_yx: tuple[int, int]) -> list[int]:
    try:
        corners = [int(part) for part in (box.split(",") if isinstance(box, str) else box)]
    except (TypeError, ValueError):
        corners = []
    height, width = size_yx
    good = len(corners) == 4 and 0 <= corners[0] < corners[2] <= width and 0 <= corners[1] < corners[3] <= height
    require(good, f"box must be X0,Y0,X1,Y1 in whole pixels, inside the picture of {width} x {height}, got {box!r}")
    return corners


def _transparent(source: SourceImage) -> Tensor:
    """Where the picture is not fully opaque."""
    holes = _holes(source)
    require(
        holes is not None and bool(holes.any()),
        "the task complete fills transparent pixels and this picture has none; give --mask FILE or --box X0,Y0,X1,Y1",
    )
    assert holes is not None
    return holes


def _damaged(source: SourceImage) -> Tensor:
    """Transparent holes, and scratches."""
    scratches = find_scratches(source.rgb)
    holes = _holes(source)
    region = scratches if holes is None else scratches | holes
    require(bool(region.any()), "found no scratch or hole to repair; give --mask FILE or --box X0,Y0,X1,Y1")
    return region


def _holes(source: SourceImage) -> Tensor | None:
    if source.alpha is None:
        return None
    return torch.from_numpy(source.alpha < np.iinfo(source.alpha.dtype).max)


def _opaque(source: SourceImage, region: Tensor) -> SourceImage:
    """The same picture, but what is going to be filled will be seen."""
    if source.alpha is None:
        return source
    alpha = source.alpha.copy()
    alpha[region.numpy()] = np.iinfo(alpha.dtype).max
    return replace(source, alpha=alpha)


def _margins(extend: Extend, size_yx: tuple[int, int]) -> tuple[int, int, int, int]:
    """Pixels to add at the left, top, right and bottom."""
    amounts = dict.fromkeys(SIDES, 0)
    wrong = f"extend must be {EXTEND_FORMS}, got {extend!r}"
    text = f"{extend:f}" if isinstance(extend, float) else str(extend)
    for part in text.split(","):
        found = re.fullmatch(rf"\s*(?:({'|'.join(SIDES)})\s*=)?\s*(\d+|\d*\.\d+|\d+(?:\.\d+)?%)\s*", part)
        if found is None:
            raise MasklessError(wrong)
        for side in SIDES if found[1] is None else (found[1],):
            length = size_yx[1] if side in ("left", "right") else size_yx[0]
            amounts[side] = _pixels(found[2], length)
    require(any(amounts.values()), wrong)
    height, width = size_yx[0] + amounts["top"] + amounts["bottom"], size_yx[1] + amounts["left"] + amounts["right"]
    require(
        max(height, width) <= MAX_SIDE_PX,
        f"the extended picture may be at most {MAX_SIDE_PX} pixels a side, got {width} x {height}",
    )
    return amounts["left"], amounts["top"], amounts["right"], amounts["bottom"]


def _pixels(amount: str, length: int) -> int:
    if amount.endswith("%"):
        return round(float(amount[:-1]) / 100 * length)
    return round(float(amount) * length) if "." in amount else int(amount)


def _on_canvas(source: SourceImage, margins: tuple[int, int, int, int]) -> tuple[SourceImage, Tensor]:
    """The picture on its larger canvas, its border repeated there for now, and the canvas that was added."""
    left, top, right, bottom = margins
    pad = ((top, bottom), (left, right))
    white = np.iinfo(source.pixels.dtype).max
    rgb = F.pad(source.rgb[None], (left, right, top, bottom), mode="replicate")[0]
    canvas = replace(
        source,
        rgb=rgb,
        pixels=np.pad(source.pixels, (*pad, (0, 0)), mode="edge"),
        alpha=None if source.alpha is None else np.pad(source.alpha, pad, constant_values=white),
    )
    added = torch.ones(rgb.shape[1:], dtype=torch.bool)
    added[top : top + source.rgb.shape[1], left : left + source.rgb.shape[2]] = False
    return canvas, added


def without_margins(pixels: np.ndarray, margins: tuple[int, int, int, int]) -> np.ndarray:
    """[H, W, ...] pixels of a canvas without what was added to it."""
    left, top, right, bottom = margins
    return pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right]
