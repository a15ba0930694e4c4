"""Weighted prompts, such as “a (blue)1.4 house with (trees)0.7”, by the library compel where it is installed."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from maskless.data.errors import MasklessError

WEIGHTED = re.compile(r"\([^()]+\)(?:\d+(?:\.\d+)?|\.\d+|\++|-+)")
"""A part in brackets with a weight after it: 1 is as usual, each + is 1.1 times and each - 0.9 times."""


def is_weighted(*texts: str) -> bool:
    """Whether any of the texts weights a part of it."""
    return any(WEIGHTED.search(text) for text in texts)


def encode_weighted(pipeline: Any, prompt: str, negative_prompt: str) -> dict[str, Tensor | None]:
    """Fields of a PromptEmbedding, of texts with weights, on the text encoders of a Stable Diffusion pipeline.

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
    return {
        "prompt": found.embeds.float(),
        "negative": found.negative_embeds.float(),
        "pooled": found.pooled_embeds,
        "negative_pooled": found.negative_pooled_embeds,
    }
