"""The losses of method step 8: one value per candidate, never reduced. Encoders stay outside; embeddings come in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.types import Losses


def clip_loss(candidates: Float[Tensor, "N V D"], prompt: Float[Tensor, " D"]) -> Float[Tensor, " N"]:
    """L_clip = D_cos(E_v(X_o), E_t(T)) = 1 - cos, mean over V augmented views. From 0 to 2."""
    return (1 - F.cosine_similarity(candidates, prompt, dim=-1)).mean(dim=1)


def directional_loss(
    candidates: Float[Tensor, "N V D"],
    source: Float[Tensor, "V D"],
    prompt: Float[Tensor, " D"],
    caption: Float[Tensor, " D"],
) -> Float[Tensor, " N"]:
    """L_dir = D_cos(E_v(X_o) - E_v(X), E_t(T) - E_t(T_src)), mean over views. From 0 to 2.

    Each view of a candidate is compared with the same view of the source. Embeddings have length 1. A direction of no
    length, from an unchanged picture or an unchanged text, has cosine 0 with everything.
    """
    return (1 - F.cosine_similarity(candidates - source, (prompt - caption).expand_as(candidates), dim=-1)).mean(dim=1)


def structure_loss(candidates: Float[Tensor, "N T D"], source: Float[Tensor, "T D"]) -> Float[Tensor, " N"]:
    """L_str = ||S(X_o) - S(X)||, S the cosine self-similarity of CLIP's last-layer patch tokens.

    The norm is the root mean square over the T x T pairs, so that its scale depends neither on the backbone's number
    of patches nor drowns the two cosine losses under the published weights of 1. From 0 to 2.
    """
    difference = self_similarity(candidates) - self_similarity(source)
    return difference.square().mean(dim=(1, 2)).clamp(min=1e-12).sqrt()


def local_loss(regions: Float[Tensor, "N D"], prompt: Float[Tensor, " D"]) -> Float[Tensor, " N"]:
    """L_local = D_cos(E_v(X_o in the region), E_t(T)) = 1 - cos, of the edited region seen alone. From 0 to 2.

    In the whole picture a large edit shows more of the prompt than the right one; alone, each shows what it is.
    """
    return 1 - F.cosine_similarity(regions, prompt, dim=-1)


def self_similarity(tokens: Float[Tensor, "*N T D"]) -> Float[Tensor, "*N T T"]:
    """S: cosine of every patch token with every other."""
    unit = F.normalize(tokens, dim=-1)
    return unit @ unit.transpose(-1, -2)


def combine(
    clip: Float[Tensor, " N"],
    directional: Float[Tensor, " N"],
    structure: Float[Tensor, " N"],
    local: Float[Tensor, " N"],
    *,
    alpha: float,
    beta: float,
    gamma: float,
    delta: float,
) -> Losses:
    """L = alpha L_clip + beta L_dir + gamma L_str + delta L_local, beside its parts; the paper's has no L_local."""
    total = alpha * clip + beta * directional + gamma * structure + delta * local
    return Losses(clip=clip, directional=directional, structure=structure, local=local, total=total)


def join(parts: list[Losses]) -> Losses:
    """Losses of several batches as one, in order."""
    return Losses.from_rows(torch.cat([part.rows for part in parts]))
