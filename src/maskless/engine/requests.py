"""Builds an EditRequest from the picture, texts, mask or box that the user gives. No model is needed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from maskless.data.canvas import Extend, holes, margins_of, on_canvas, opaque
from maskless.data.errors import MasklessError, require
from maskless.data.picture import ImageLike, SourceImage, load_image
from maskless.data.tasks import FACTS, TASKS
from maskless.data.types import EditRequest
from maskless.method.scratches import find_scratches

EXTEND_BY = "0.25"
MASK_MODES = ("bright", "opaque", "transparent")
"""Where a mask's picture says to edit."""
FAINTEST = 1 / 512
"""The grey value of a soft mask above which a pixel belongs to it: less than the darkest grey of 8 bits."""
MASK_NOISE = 0.1
"""How far a pixel of a black and white mask may be from black or white, or one of a copied picture from the picture."""
Box = str | Sequence[int]


def make_request(
    image: ImageLike,
    *,
    caption: str = "",
    prompt: str = "",
    task: str = "replace",
    mask: ImageLike | None = None,
    mask_mode: str | None = None,
    soft_mask: bool = False,
    box: Box | None = None,
    extend: Extend | None = None,
    seed: int | None = None,
) -> EditRequest:
    """A checked request, with the region of the tasks that find it in the picture file itself.

    Args:
        image: see `load_image`.
        task: one of TASKS.
        mask: a picture of the same size, bright where it may change and dark elsewhere, or a bool array [H, W].
        mask_mode: what of the mask's picture says where to edit, one of MASK_MODES; None reads a mask without
            transparent parts by its brightness, and one that is the picture itself with transparent parts by these.
        soft_mask: read the grey values of the mask as how much each pixel may change; otherwise it is cut at one half.
        box: (x0, y0, x1, y1) in pixels, half-open, or a string "x0,y0,x1,y1"; instead of a mask.
        extend: how much canvas to add: a float is a share of each side, an int is in pixels, and a string can be either
            or name the sides. Only for the task extend.
        seed: seed of the noise and of the search; None takes that of the config.
    Raises:
        MasklessError: an unusable input; the message says what was expected and what was given.
    """
    require(task in TASKS, f"task must be one of {', '.join(TASKS)}, got {task!r}")
    require(mask is None or box is None, "give a mask or a box, not both")
    require(
        extend is None or task == "extend", f"only the task extend can add canvas (extend), got it with the task {task}"
    )
    require(isinstance(caption, str), f"caption must be a string, got {caption!r}")
    source = load_image(image)
    size_yx = source.size_yx
    region, amount = _region(source, mask, mask_mode, soft_mask, box)
    named = bool(caption.strip()) or region is not None
    located = named or not FACTS[task].needs_location
    require(located, f"the task {task} needs a location: give a caption, a mask or a box")
    margins = (0, 0, 0, 0)
    if task == "extend":
        require(region is None, "the region of the task extend is the added canvas; leave out mask and box")
        margins = margins_of(EXTEND_BY if extend is None else extend, size_yx)
        source, region = on_canvas(source, margins)
    elif task == "complete":
        region = _transparent(source) if region is None else region
        source = opaque(source, region)
    elif task == "repair" and region is None:
        region = _damaged(source)
        source = opaque(source, region)
    return EditRequest(
        source=source,
        caption=caption,
        prompt=prompt,
        task=task,
        mask=region,
        amount=amount,
        margins_px=margins,
        seed=seed,
    )


def _region(
    source: SourceImage, mask: ImageLike | None, mask_mode: str | None, soft_mask: bool, box: Box | None
) -> tuple[Bool[Tensor, "H W"] | None, Float[Tensor, "H W"] | None]:
    """The user's mask or box as a mask, None if neither was given, and its grey values if it is soft."""
    height, width = size_yx = source.size_yx
    require(mask is not None or not soft_mask, "soft_mask says how to read a mask, and there is no mask")
    if box is not None:
        x0, y0, x1, y1 = _corners(box, size_yx)
        region = torch.zeros(size_yx, dtype=torch.bool)
        region[y0:y1, x0:x1] = True
        return region, None
    if mask is None:
        require(mask_mode is None, "mask_mode says how to read a mask, and there is no mask")
        return None, None
    if isinstance(mask, (np.ndarray, Tensor)) and mask.dtype in (np.bool_, torch.bool):
        grey = torch.as_tensor(mask).to(torch.float32)
    else:
        grey = _grey_values(load_image(mask), mask_mode, source)
    region = grey > (FAINTEST if soft_mask else 0.5)
    found = " x ".join(str(side) for side in reversed(region.shape))
    require(tuple(region.shape) == size_yx, f"mask must be of the picture's size, {width} x {height}, got {found}")
    require(
        bool(region.any()),
        f"mask must be {mask_mode or 'bright'} where the picture may change, got one that is "
        f"{'transparent' if mask_mode == 'opaque' else 'opaque' if mask_mode else 'dark'} everywhere",
    )
    return region, grey * region if soft_mask else None


def _grey_values(mask: SourceImage, mask_mode: str | None, picture: SourceImage) -> Float[Tensor, "H W"]:
    """How much each pixel may change according to the picture of a mask, 0 to 1: its brightness or its transparency."""
    modes = ", ".join(MASK_MODES)
    require(mask_mode in (None, *MASK_MODES), f"mask_mode must be one of {modes}, got {mask_mode!r}")
    brightness, transparent = mask.rgb.mean(dim=0), holes(mask)
    mode = mask_mode or _mask_mode(mask, brightness, transparent, picture)
    if mode == "bright":
        return brightness
    if mask.alpha is None:
        raise MasklessError(f"mask_mode {mode} needs a mask with transparency, and this one has none")
    opacity = torch.from_numpy(mask.alpha.astype(np.float32)) / float(np.iinfo(mask.alpha.dtype).max)
    return opacity if mode == "opaque" else 1 - opacity


def _mask_mode(mask: SourceImage, brightness: Tensor, transparent: Tensor | None, picture: SourceImage) -> str:
    """How to read a mask if the user does not say it.

    Raises:
        MasklessError: the mask has transparent parts, and they could mean either.
    """
    if transparent is None or not bool(transparent.any()):
        return "bright"
    # The picture with holes, as ComfyUI and the image APIs of the web exchange it: the holes are to be edited.
    opaque_part = ~transparent
    if mask.size_yx == picture.size_yx and bool(opaque_part.any()):
        distance = (mask.rgb - picture.rgb).abs().amax(dim=0)[opaque_part]
        if float(distance.mean()) < MASK_NOISE / 10 and float(distance.max()) < MASK_NOISE:
            return "transparent"
    grey = (brightness > MASK_NOISE) & (brightness < 1 - MASK_NOISE)
    if bool((brightness > 0.5).any()) and bool((brightness <= 0.5).any()) and not bool(grey.any()):
        return "bright"
    raise MasklessError(
        "the mask has transparent parts: say whether to edit where it is opaque (--mask-mode opaque) or where it is "
        "transparent (--mask-mode transparent)"
    )


def _corners(box: Box, size_yx: tuple[int, int]) -> list[int]:
    """The user's box as [x0, y0, x1, y1] in pixels, half-open and inside the picture."""
    try:
        corners = [int(part) for part in (box.split(",") if isinstance(box, str) else box)]
    except (TypeError, ValueError):
        corners = []
    height, width = size_yx
    good = len(corners) == 4 and 0 <= corners[0] < corners[2] <= width and 0 <= corners[1] < corners[3] <= height
    require(good, f"box must be X0,Y0,X1,Y1 in whole pixels, inside the picture of {width} x {height}, got {box!r}")
    return corners


def _transparent(source: SourceImage) -> Tensor:
    """The mask of the pixels that are not fully opaque."""
    region = holes(source)
    if region is None or not bool(region.any()):
        raise MasklessError(
            "the task complete fills transparent pixels and this picture has none; "
            "give --mask FILE or --box X0,Y0,X1,Y1"
        )
    return region


def _damaged(source: SourceImage) -> Tensor:
    """The mask of transparent pixels and scratches."""
    scratches, transparent = find_scratches(source.rgb), holes(source)
    region = scratches if transparent is None else scratches | transparent
    require(bool(region.any()), "found no scratch or hole to repair; give --mask FILE or --box X0,Y0,X1,Y1")
    return region
