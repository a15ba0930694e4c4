"""The losses of method step 8, one value per candidate. Their inputs are embeddings; they call no encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import ResolvedConfig
from maskless.data.types import Losses


def clip_loss(candidates: Float[Tensor, "N V D"], prompt: Float[Tensor, " D"]) -> Float[Tensor, " N"]:
    """L_clip = D_cos(E_v(X_o), E_t(T)) = 1 - cos, averaged over V augmented views. From 0 to 2."""
    return (1 - F.cosine_similarity(candidates, prompt, dim=-1)).mean(dim=1)


def directional_loss(
    candidates: Float[Tensor, "N V D"],
    source: Float[Tensor, "V D"],
    prompt: Float[Tensor, " D"],
    caption: Float[Tensor, " D"],
) -> Float[Tensor, " N"]:
    """L_dir = D_cos(E_v(X_o) - E_v(X), E_t(T) - E_t(T_src)), averaged over views. From 0 to 2.

    Each view of a candidate is compared with the same view of the source. Embeddings have length 1. If the picture or
    the text does not change, the direction has length 0; its cosine is 0, so the loss is 1.
    """
    return (1 - F.cosine_similarity(candidates - source, (prompt - caption).expand_as(candidates), dim=-1)).mean(dim=1)


def structure_loss(candidates: Float[Tensor, "N T D"], source: Float[Tensor, "T D"]) -> Float[Tensor, " N"]:
    """L_str = ||S(X_o) - S(X)||, where S is the cosine self-similarity of CLIP's last-layer patch tokens. From 0 to 2.

    The norm is the root mean square over the T x T pairs. Its scale does not depend on the backbone's number of
    patches, and with the published weights of 1 it does not outweigh the two cosine losses, as a sum would.
    """
    difference = self_similarity(candidates) - self_similarity(source)
    return difference.square().mean(dim=(1, 2)).clamp(min=1e-12).sqrt()


def local_loss(regions: Float[Tensor, "N D"], prompt: Float[Tensor, " D"]) -> Float[Tensor, " N"]:
    """L_local = D_cos(E_v(X_o in the region), E_t(T)) = 1 - cos, for the edited region alone. From 0 to 2.

    In an embedding of the whole picture, a larger edit shows more of the prompt than one of the right size. An
    embedding of the region alone does not depend on its size in the picture.
    """
    return 1 - F.cosine_similarity(regions, prompt, dim=-1)


def self_similarity(tokens: Float[Tensor, "*N T D"]) -> Float[Tensor, "*N T T"]:
    """S: the cosine similarity of every patch token with every other."""
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.transpose(-1, -2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encodings:
    """CLIP's encodings of N candidates, their source and the texts: the input of every loss term.

    candidates, source: embeddings of V views, of length 1. candidate_tokens, source_tokens: last-layer patch tokens.
    regions: embeddings of each candidate's region alone. prompt, caption: embeddings of the texts.
    """

    candidates: Float[Tensor, "N V D"]
    candidate_tokens: Float[Tensor, "N T C"]
    regions: Float[Tensor, "N D"]
    source: Float[Tensor, "V D"]
    source_tokens: Float[Tensor, "T C"]
    prompt: Float[Tensor, " D"]
    caption: Float[Tensor, " D"]


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One term of the loss. title: its name on pages and plots. weight: the option of EditConfig that multiplies it."""

    name: str
    title: str
    weight: str
    function: Callable[[Encodings], Float[Tensor, " N"]]


TERMS = (
    LossTerm(name="clip", title="CLIP", weight="alpha", function=lambda e: clip_loss(e.candidates, e.prompt)),
    LossTerm(
        name="directional",
        title="directional",
        weight="beta",
        function=lambda e: directional_loss(e.candidates, e.source, e.prompt, e.caption),
    ),
    LossTerm(
        name="structure",
        title="structure",
        weight="gamma",
        function=lambda e: structure_loss(e.candidate_tokens, e.source_tokens),
    ),
    LossTerm(name="local", title="region", weight="delta", function=lambda e: local_loss(e.regions, e.prompt)),
)
"""Every term of the loss. To add one, write its function above, its entry here and its weight in data/config.py."""
NAMES = tuple(term.name for term in TERMS)


def weights(config: ResolvedConfig) -> tuple[float, ...]:
    """The weight of each term, in the order of TERMS."""
    return tuple(float(getattr(config, term.weight)) for term in TERMS)


def weighted(encodings: Encodings, config: ResolvedConfig) -> Losses:
    """L = alpha L_clip + beta L_dir + gamma L_str + delta L_local, and its terms. The paper has no L_local."""
    terms = torch.stack([term.function(encodings) for term in TERMS], dim=1)
    total = torch.zeros(len(terms))
    for weight, term in zip(weights(config), terms.unbind(1), strict=True):
        total = total + weight * term
    return Losses(names=NAMES, terms=terms, total=total)


def join(parts: list[Losses]) -> Losses:
    """The losses of several batches, concatenated in order."""
    return Losses.from_rows(parts[0].names, torch.cat([part.rows for part in parts]))
