"""Encodes weighted prompts, such as "a (blue)1.4 house with (trees)0.7", with the optional library compel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from maskless.data.errors import MasklessError
from maskless.models.inpainters.denoising import PromptEmbedding

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

WEIGHTED = re.compile(r"\([^()]+\)(?:\d+(?:\.\d+)?|\.\d+|\++|-+)")
"""Words in parentheses followed by a weight: a number, or + signs (a factor of 1.1 each) or - signs (0.9 each)."""


def is_weighted(*texts: str) -> bool:
    """Whether any of the texts has a part with a weight."""
    return any(WEIGHTED.search(text) for text in texts)


def encode_weighted(pipeline: DiffusionPipeline, prompt: str, negative_prompt: str) -> PromptEmbedding:
    """Texts with weights, encoded with the text encoders of a Stable Diffusion pipeline.

    Raises:
        MasklessError: compel is not installed.
    """
    try:
        from compel import CompelForSD, CompelForSDXL
    except ImportError as error:
        raise MasklessError(
            "a prompt with weights, such as (blue)1.4, needs compel: pip install 'maskless[prompts]'"
        ) from error
    chosen = CompelForSDXL if hasattr(pipeline, "text_encoder_2") else CompelForSD
    found = chosen(pipeline, device=str(pipeline._execution_device))(prompt, negative_prompt=negative_prompt)
    return PromptEmbedding(
        prompt=found.embeds.float(),
        negative=found.negative_embeds.float(),
        pooled=found.pooled_embeds,
        negative_pooled=found.negative_pooled_embeds,
    )
