"""Muon beside AdamW: it learns, goes on from its state, and leaves the first and last layers to AdamW."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from maskless.storybook.training.muon import MuonAndAdamW


def _network() -> nn.Module:
    torch.manual_seed(0)
    layers = {"conv_in": nn.Conv2d(1, 8, 3), "hidden": nn.Conv2d(8, 8, 3), "conv_out": nn.Conv2d(8, 1, 3)}
    return nn.Sequential(nn.ModuleDict(layers))


def _step(network: nn.Module, optimizer: MuonAndAdamW, seed: int) -> float:
    image = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(seed))
    layers: Any = network[0]  # type: ignore[index]
    out = layers["conv_out"](layers["hidden"](layers["conv_in"](image)).relu())
    loss = (out - image[..., 3:-3, 3:-3]).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def test_it_learns_and_every_layer_moves() -> None:
    network = _network()
    before = copy.deepcopy(network.state_dict())
    optimizer = MuonAndAdamW(network, 1e-2, ("conv_in", "conv_out"))
    losses = [_step(network, optimizer, seed) for seed in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(not torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_hidden_convolution_moves_alike_in_every_direction() -> None:
    """What Muon is: all singular values of its step are about the same, those of AdamW's are not."""
    network = _network()
    before = network[0]["hidden"].weight.detach().clone()  # type: ignore[index]
    _step(network, MuonAndAdamW(network, 1e-2, ("conv_in", "conv_out")), 0)
    moved = (network[0]["hidden"].weight.detach() - before).flatten(1)  # type: ignore[index]
    values = torch.linalg.svdvals(moved)
    assert values.min() > 0.5 * values.max()


def test_it_goes_on_from_its_state() -> None:
    first = _network()
    optimizer = MuonAndAdamW(first, 1e-2, ("conv_in", "conv_out"))
    for seed in range(5):
        _step(first, optimizer, seed)
    second = copy.deepcopy(first)
    resumed = MuonAndAdamW(second, 1e-2, ("conv_in", "conv_out"))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    _step(first, optimizer, 5)
    _step(second, resumed, 5)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
