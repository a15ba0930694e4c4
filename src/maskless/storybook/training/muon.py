"""Muon for the weight matrices of a network's hidden layers, AdamW for everything else, as one optimiser."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import nn


class OptimizerState(TypedDict):
    """The states of both optimisers, each as its own `state_dict` gives it."""

    muon: dict[str, object]
    adamw: dict[str, object]


class MuonAndAdamW:
    """torch.optim.Muon (Jordan et al. 2024; its step as large as AdamW's, arXiv 2502.16982) and torch.optim.AdamW.

    Muon trains the parameters of two and more dimensions, a convolution's [out, in, h, w] as a matrix
    [out, in * h * w], but not those of the first and last layers, which have one of the strings `outer` in their name.
    """

    def __init__(self, model: nn.Module, lr: float, outer: tuple[str, ...]) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        inner = {name for name, p in trained.items() if p.ndim >= 2 and not any(part in name for part in outer)}
        self._inner = [trained[name] for name in sorted(inner)]
        self._matrices = [nn.Parameter(p.data.flatten(1)) for p in self._inner]  # they share the parameters' memory
        self._muon = torch.optim.Muon(self._matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        rest = [p for name, p in trained.items() if name not in inner]
        self._adamw = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.01)

    @property
    def param_groups(self) -> list[dict[str, object]]:
        """The groups of both optimisers; a learning rate that is set in them takes effect."""
        return [*self._muon.param_groups, *self._adamw.param_groups]

    def step(self) -> None:
        """Update all parameters by their gradients."""
        for matrix, parameter in zip(self._matrices, self._inner, strict=True):
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        self._muon.step()
        self._adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; those of Muon's parameters are set to None in any case."""
        self._adamw.zero_grad(set_to_none)
        for parameter in (*self._matrices, *self._inner):
            parameter.grad = None

    def state_dict(self) -> OptimizerState:
        """What `load_state_dict` needs to continue from here."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: OptimizerState) -> None:
        """Continue from the state of an optimiser of the same parameters."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])
