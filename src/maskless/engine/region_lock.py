"""The region lock: windows that an editor redrew as a whole are aligned with the picture before they are pasted.

Some models draw outside the mask too, and what they return may lie elsewhere (`redraws_window`). Others take the whole
picture, but its latents are restored outside the mask at each step, so that nothing can drift there; with the option
`whole_window` they get a mask of everything, and draw as they do where no mask restrains them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskless.data.alignment import Alignment
from maskless.data.config import EditConfig
from maskless.method.alignment import align
from maskless.models.inpainters.protocol import InpaintingModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Locked:
    """Redrawn windows after the alignment, RGB 0..255, and for each how it lay on the picture, in pixels of the window;
    None where nothing was measured."""

    drawn: UInt8[Tensor, "N 3 S S"]
    alignments: tuple[Alignment | None, ...]


def redraws_window(inpainter: InpaintingModel, config: EditConfig) -> bool:
    """Whether the windows that come back are drawn as a whole, so that they are to be aligned."""
    return inpainter.redraws_window or (config.whole_window and inpainter.takes_picture)


def given_masks(
    inpainter: InpaintingModel, masks: Float[Tensor, "N 1 S S"], config: EditConfig
) -> Float[Tensor, "N 1 S S"]:
    """The masks that the model gets: those of the region, or of everything where it is to redraw the whole window."""
    if inpainter.redraws_window or not redraws_window(inpainter, config):
        return masks
    return torch.ones_like(masks)


def lock(
    drawn: UInt8[Tensor, "N 3 S S"],
    pictures: Float[Tensor, "N 3 S S"],
    masks: Float[Tensor, "N 1 S S"],
    config: EditConfig,
) -> Locked:
    """What an editor returned for each window, aligned with the picture by what lies outside the mask.

    A window that lies right is not changed by a single bit, and neither is one that cannot be aligned.

    Args:
        drawn: what it returned. pictures: what it was given, in [0, 1]. masks: above 0 where the picture may change.
        config: `align` switches this off; `align_limit` is the largest residual of an aligned window.
    """
    if not config.align:
        return Locked(drawn=drawn, alignments=(None,) * len(drawn))
    windows, alignments = [], []
    for returned, picture, mask in zip(drawn, pictures, masks, strict=True):
        found = align(returned / 255, picture, mask[0] > 0, limit=config.align_limit)
        alignments.append(None if found is None else found.alignment)
        changed = found is not None and (found.alignment.warped or found.alignment.colours_matched)
        windows.append((found.picture * 255).round().to(torch.uint8) if found is not None and changed else returned)
    return Locked(drawn=torch.stack(windows), alignments=tuple(alignments))
