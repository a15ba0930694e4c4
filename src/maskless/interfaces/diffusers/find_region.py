"""FindRegion: a block for modular pipelines that finds the region of an edit.

The file is complete in itself, so that `diffusers-cli custom_blocks` can package it for the hub (docs/integrations.md).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import PIL.Image
import torch
from diffusers.modular_pipelines import ModularPipelineBlocks, PipelineState
from diffusers.modular_pipelines.modular_pipeline_utils import InputParam, OutputParam
from torch import Tensor

from maskless.data.errors import require
from maskless.engine.finder import Finder
from maskless.models.inpainters.modular import box_of


class FindRegion(ModularPipelineBlocks):
    """Finds what `caption` names in `image`, and sets `mask_image` and `boxes` for the blocks after it.

    workflow.sub_blocks.insert("find_region", FindRegion(), 0)
    """

    _requirements = {"maskless": ">=0.1.0"}

    @property
    def description(self) -> str:
        """What the block does."""
        return (
            "Finds the region that a caption names, and gives it as mask_image (for inpainting workflows) and as boxes "
            "(for FLUX.3). PasteBack at the end of the workflow keeps every pixel outside of it."
        )

    @property
    def inputs(self) -> list[InputParam]:
        """The values that the block reads."""
        return [
            InputParam(
                "image",
                type_hint=PIL.Image.Image,
                required=True,
                description="The picture to edit: a PIL image, an array [H, W, 3] or a tensor [3, H, W] in [0, 1].",
            ),
            InputParam("caption", type_hint=str, required=True, description="What to find, such as 'a red car'."),
            InputParam("prompt", type_hint=str, description="What should be there instead; the description of boxes."),
            InputParam(
                "finder_models",
                type_hint=str,
                default="storybook",
                description="A preset or folder of Maskless whose DINO and CLIP find the region: sd15 for photographs, "
                "storybook for drawn scenes.",
            ),
            InputParam(
                "region",
                type_hint=str,
                default="box",
                description="What mask_image covers: the box of the best region, or the mask of all objects that the "
                "caption names.",
            ),
        ]

    @property
    def intermediate_outputs(self) -> list[OutputParam]:
        """The values that the block sets."""
        return [
            OutputParam("mask_image", type_hint=PIL.Image.Image, description="White where to edit, of image's size."),
            OutputParam(
                "boxes",
                type_hint=list[dict],
                description="The best region as FLUX.3 takes it: [{'id', 'desc', 'from': 'target', 'tgt_bbox'}], the "
                "box as [y_min, x_min, y_max, x_max] in 0-1.",
            ),
            OutputParam("box_xyxy", type_hint=tuple, description="The best region in pixels, half-open."),
            OutputParam("source_image", description="The picture as it was given, for PasteBack."),
            OutputParam("finding", description="Mask, alternatives and reasons; see maskless.Finder."),
        ]

    @torch.no_grad()
    def __call__(self, components: Any, state: PipelineState) -> tuple[Any, PipelineState]:
        """Find the region.

        Raises:
            MasklessError: an unusable picture, an empty caption, or unknown models.
        """
        block = self.get_block_state(state)
        require(block.region in ("box", "mask"), f"region must be box or mask, got {block.region!r}")
        many = isinstance(block.image, (list, tuple)) or getattr(block.image, "ndim", 3) == 4
        require(not many or len(block.image) == 1, "FindRegion takes one picture")
        picture = block.image[0] if many else block.image
        finding = _finder(block.finder_models).find(picture, block.caption)
        x0, y0, x1, y1 = finding.box_xyxy
        box = torch.zeros(finding.size_yx, dtype=torch.bool)
        box[y0:y1, x0:x1] = True
        outlined = block.region == "mask" and bool(finding.mask.any())
        block.mask_image = _as_picture(finding.mask if outlined else box)
        block.boxes = [box_of(box, block.prompt or block.caption)]
        block.box_xyxy, block.source_image, block.finding = finding.box_xyxy, picture, finding
        self.set_block_state(state, block)
        return components, state


@lru_cache(maxsize=1)
def _finder(models: str) -> Finder:
    """The finder of these models, which is kept for the next picture."""
    return Finder.from_pretrained(models)


def _as_picture(mask: Tensor) -> PIL.Image.Image:
    """A bool mask [H, W] as a grey picture, white where it is True."""
    return PIL.Image.fromarray((mask.to(torch.uint8) * 255).numpy())
