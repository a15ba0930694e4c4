r"""Weighted prompts, such as "a (blue:1.4) house with (trees:0.7)": words in brackets with a weight after a colon.

Brackets without a weight are plain text, and so are those behind a backslash: \( and \).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.models.clip import text_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEIGHTED = re.compile(r"(?<!\\)\((?P<words>[^()\\]*[^()\\\d\s])\s*:\s*(?P<weight>[012](?:\.\d+)?|3(?:\.0+)?|\.\d+)\)")
"""Words that do not end in a digit, which "(scale 1:2)" does, and a weight from 0 to 3."""
NOTATION = "(words:1.3)"
"""An example of the notation, for messages."""


@dataclass(frozen=True, kw_only=True)
class WeightedPiece:
    """One full context of token ids, with a weight for each; 1 leaves a token as it is."""

    ids: list[int]
    weights: list[float]


def is_weighted(*texts: str) -> bool:
    """Whether any of the texts has words with a weight."""
    return any(WEIGHTED.search(text) for text in texts)


def without_weights(text: str) -> str:
    """The text as a reader would write it: without weights and their brackets, and without backslashes at brackets."""
    return "".join(words for words, _weight in weighted_parts(text))


def weighted_parts(text: str) -> list[tuple[str, float]]:
    """The text in parts with their weights; parts in plain text have the weight 1."""
    parts, position = [], 0
    for found in WEIGHTED.finditer(text):
        parts += [(text[position : found.start()], 1.0), (found["words"], float(found["weight"]))]
        position = found.end()
    parts.append((text[position:], 1.0))
    return [(re.sub(r"\\([()])", r"\1", words), weight) for words, weight in parts if words]


def weighted_pieces(tokenizer: PreTrainedTokenizerBase, text: str, context: int) -> list[WeightedPiece]:
    """A text as one or more full contexts of token ids with their weights; see `text_pieces`."""
    if not is_weighted(text):
        plain = text_pieces(tokenizer, without_weights(text), context)
        return [WeightedPiece(ids=piece.ids, weights=[1.0] * context) for piece in plain]
    ids: list[int] = []
    weights: list[float] = []
    for words, weight in weighted_parts(text):
        own = tokenizer(words, add_special_tokens=False, verbose=False).input_ids
        ids, weights = ids + own, weights + [weight] * len(own)
    empty, room, pieces = text_pieces(tokenizer, "", context)[0].ids, context - 2, []
    for first in range(0, max(len(ids), 1), room):
        part = ids[first : first + room]
        pieces.append(
            WeightedPiece(
                ids=[empty[0], *part, empty[1], *empty[len(part) + 2 :]],
                weights=[1.0, *weights[first : first + room], *[1.0] * (context - 1 - len(part))],
            )
        )
    return pieces


def with_weights(
    states: Float[Tensor, "N T C"], empty: Float[Tensor, "1 T C"], pieces: list[WeightedPiece]
) -> Float[Tensor, "N T C"]:
    """The hidden states of pieces, each moved away from those of an empty text by the weight of its token."""
    weights = torch.tensor([piece.weights for piece in pieces]).to(states)[..., None]
    return torch.where(weights == 1, states, empty + weights * (states - empty))
