"""How much of the models is on the device at once: levels that give speed, and the last one exactness, for memory."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

LEVELS = ("full", "balanced", "low", "minimal")


def execution_device(network: nn.Module) -> torch.device:
    """Where a network computes: not always where its weights lie, which may come and go."""
    hook = getattr(network, "_hf_hook", None)
    return next(network.parameters()).device if hook is None else hook.execution_device


def _executes_on(network: nn.Module, device: torch.device) -> None:
    """Keep the device where diffusers' pipelines look for it as well."""
    network._hf_hook = SimpleNamespace(execution_device=device)  # type: ignore[assignment]


def place(
    inpainting: Sequence[nn.Module],
    others: Sequence[nn.Module],
    *,
    device: torch.device,
    memory: str,
    dtype: torch.dtype,
) -> str:
    """Put frozen networks on the device, or arrange that they come to it when they are used.

    Args:
        inpainting: the networks of the inpainting model. others: DINO and CLIP.
        memory: full: all stay on the device. balanced: of the inpainting model's networks one at a time is there.
            low: of all networks one at a time; attention in slices, the autoencoder in slices and tiles. minimal: one
            layer at a time, and the denoiser's weights are kept in float8 between its layers' turns.
        dtype: what the denoiser computes in.
    Returns:
        What was done, in a few words.
    """
    done = []
    if memory in ("low", "minimal"):
        _slice(inpainting)
        done.append("attention and autoencoder in slices and tiles")
    if memory == "minimal":
        done.append(_store_in_float8(inpainting, device, dtype))
    networks = [*inpainting, *others]
    if memory == "full" or device.type == "cpu":
        for network in networks:
            network.to(device)
        if memory != "full":
            done.append("nothing to move away: on the CPU networks compute where they are kept")
    elif memory == "minimal":
        for network in networks:
            _visit_in_layers(network, device)
        done.append("one layer at a time on the device")
    else:
        visiting = inpainting if memory == "balanced" else networks
        for network in others if memory == "balanced" else ():
            network.to(device)
        _Turns(visiting, device)
        done.append(f"one {'of its ' if memory == 'balanced' else ''}networks at a time on the device")
    return "; ".join(done)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: the device's or the machine's."""
    message = str(error)
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "out of memory" in message or "can't allocate memory" in message


def less_memory(memory: str) -> str:
    """What to try where a level does not fit."""
    lower = LEVELS[LEVELS.index(memory) + 1 :]
    if lower:
        return f"try --memory {' or '.join(lower)}"
    return "this is the lowest --memory level: take a smaller model (see maskless models) or another --device"


class _Visitor:
    """Modules whose weights are kept in main memory; copies of them visit the device. Nothing is copied back, for the
    weights are frozen."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._kept = [
            (tensors, name, tensor)
            for module in modules
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items()
            if tensor is not None
        ]
        self.there = False

    def come(self) -> None:
        if self.there:
            return
        copies: dict[int, Tensor] = {}  # a weight that is shared inside the network travels once
        for tensors, name, tensor in self._kept:
            if id(tensor) not in copies:
                copy = tensor.detach().to(self._device)
                is_weight = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_weight else copy
            tensors[name] = copies[id(tensor)]  # type: ignore[assignment]
        self.there = True

    def leave(self) -> None:
        for tensors, name, tensor in self._kept:
            tensors[name] = tensor  # type: ignore[assignment]
        self.there = False


class _Turns:
    """Networks of which one at a time is on the device: the one that was used last."""

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self._visitors = [_Visitor(list(network.modules()), device) for network in networks]
        for network, visitor in zip(networks, self._visitors, strict=True):
            _executes_on(network, device)
            # A network may be entered through one of its parts, as an autoencoder is through its encoder.
            for part in (network, *network.children()):
                part.register_forward_pre_hook(self._turn_of(visitor))

    def _turn_of(self, visitor: _Visitor) -> Any:
        def come(_module: nn.Module, _inputs: Any) -> None:
            for other in self._visitors:
                if other is not visitor and other.there:
                    other.leave()
            visitor.come()

        return come


def _visit_in_layers(network: nn.Module, device: torch.device) -> None:
    """Each module's own weights are on the device while it computes."""
    _executes_on(network, device)
    inside_attention = {
        id(part)
        for module in network.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    for module in network.modules():
        # torch's attention reads the weights of its output layer without calling it.
        whole = isinstance(module, nn.MultiheadAttention)
        if id(module) in inside_attention and not whole:
            continue
        visitor = _Visitor(list(module.modules()) if whole else [module], device)
        if visitor._kept:
            module.register_forward_pre_hook(lambda _module, _inputs, visitor=visitor: visitor.come())
            module.register_forward_hook(lambda _module, _inputs, _output, visitor=visitor: visitor.leave())


def _slice(networks: Sequence[Any]) -> None:
    """Attention head by head, pictures through the autoencoder one by one and the larger ones in tiles: where a network
    offers it."""
    for network in networks:
        if hasattr(network, "set_attention_slice"):
            network.set_attention_slice("max")
        if hasattr(network, "use_slicing"):
            network.enable_slicing()
        # AutoencoderTiny needs little memory as it is, and its tiles in diffusers fit a factor of 8 alone.
        if hasattr(network, "use_tiling") and type(network).__name__ != "AutoencoderTiny":
            network.enable_tiling()


def _store_in_float8(networks: Sequence[Any], device: torch.device, dtype: torch.dtype) -> str:
    if device.type == "mps":
        return "no float8 on mps"
    for network in networks:
        if hasattr(network, "enable_layerwise_casting") and not hasattr(network, "decode"):
            network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    return "the denoiser's weights in float8"
