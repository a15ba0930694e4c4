"""PasteBack: a block for modular pipelines that restores every pixel outside the region of an edit.

The file is complete in itself, so that `diffusers-cli custom_blocks` can package it for the hub (docs/integrations.md).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam

from maskless.data.errors import require
from maskless.data.masks import mask_box
from maskless.data.paste import paste_back, paste_pixels
from maskless.data.picture import SourceImage, load_image


class PasteBack(ModularPipelineBlocks):
    """Puts the edited region of each of `images` into `source_image`; all other pixels equal it, bit for bit.

    workflow.sub_blocks.insert("paste_back", PasteBack(), len(workflow.sub_blocks))
    """

    _requirements = {"maskless": ">=0.1.0"}

    @property
    def description(self) -> str:
        """What the block does."""
        return (
            "Pastes what the workflow has drawn inside mask_image into the original picture, at its resolution, with "
            "the seam inside the mask. Every pixel outside the mask is the original's, bit for bit."
        )

    @property
    def inputs(self) -> list[InputParam]:
        """The values that the block reads."""
        return [
            InputParam("images", required=True, description="The pictures that the workflow has drawn, of any size."),
            InputParam("source_image", required=True, description="The original picture; FindRegion sets it."),
            InputParam(
                "mask_image",
                type_hint=PIL.Image.Image,
                required=True,
                description="White where the picture may change, of the original's size; FindRegion sets it.",
            ),
            InputParam(
                "feather",
                type_hint=float,
                default=0.06,
                description="Width of the seam inside the mask, as a share of the root of its area; 0 for none.",
            ),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The values that the block sets."""
        return [OutputParam("images", description="The pictures of the original's size, in the form that they had.")]

    @torch.no_grad()
    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        """Paste the regions back.

        Raises:
            MasklessError: a mask of another size than the original, or a picture that cannot be read.
        """
        block = self.get_block_state(state)
        source = load_image(block.source_image)
        mask = load_image(block.mask_image).rgb.mean(dim=0) > 0.5
        size_yx = source.size_yx
        require(tuple(mask.shape) == size_yx, f"mask_image must be {size_yx[1]} x {size_yx[0]}, got {mask.shape[::-1]}")
        require(0 <= block.feather <= 0.5, f"feather must be from 0 to 0.5, got {block.feather}")
        pasted: Any = [_pasted(source, each, mask, float(block.feather)) for each in block.images]
        if isinstance(block.images, torch.Tensor):
            pasted = torch.stack(pasted).to(block.images.device)
        elif isinstance(block.images, np.ndarray):
            pasted = np.stack(pasted)
        block.images = pasted
        self.set_block_state(state, block)
        return components, state


def _pasted(source: SourceImage, drawn: Any, mask: torch.Tensor, feather: float) -> Any:
    """One drawn picture in the original, in the form that it had: a PIL image, an array [H, W, 3] or a tensor [3, H, W]
    in [0, 1]."""
    crop = load_image(drawn).rgb
    height, width = mask.shape
    window = (0, 0, width, height)
    box = mask_box(mask) if bool(mask.any()) else window
    if isinstance(drawn, PIL.Image.Image):
        pixels = paste_pixels(source.pixels, crop, window, box, feather=feather, mask=mask)
        return PIL.Image.fromarray((pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels)
    result = paste_back(source.rgb, crop, window, box, feather=feather, mask=mask)
    return result if isinstance(drawn, torch.Tensor) else result.movedim(0, -1).numpy()
