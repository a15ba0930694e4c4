"""What identifies a network: its weights, wherever they were loaded from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

SAMPLES = 64
"""How many numbers of each weight are read: a network of billions of numbers is identified in a moment."""


def fingerprint_of(networks: Iterable[nn.Module]) -> str:
    """Sixteen hexadecimal digits that the same weights in the same number format always have.

    They are computed from the name, the shape and SAMPLES evenly spaced numbers of every weight, so that another
    training has others, but a change of single numbers may go unnoticed. Call it before the weights are moved or
    stored in a smaller format.
    """
    digest = hashlib.sha256()
    for network in networks:
        for name, weight in sorted(network.state_dict().items()):
            flat = weight.detach().flatten()
            picked = flat[torch.linspace(0, len(flat) - 1, min(SAMPLES, len(flat))).long()] if len(flat) else flat
            digest.update(f"{name} {tuple(weight.shape)}".encode())
            digest.update(picked.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
