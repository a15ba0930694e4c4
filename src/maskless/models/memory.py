"""Memory levels: how much of the models is on the device at once.

A lower level needs less memory and more time, and the lowest also rounds the denoiser's weights. docs/models.md
describes the levels, and docs/performance.md has their costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LEVELS = ("full", "balanced", "low", "minimal")
"""The memory levels, from the one that needs the most memory to the one that needs the least."""


def execution_device(network: nn.Module) -> torch.device:
    """The device that a network computes on. Its weights may be kept elsewhere until they are needed."""
    hook = getattr(network, "_hf_hook", None)
    return next(network.parameters()).device if hook is None else hook.execution_device


def _set_execution_device(network: nn.Module, device: torch.device) -> None:
    """Set the device that a network computes on, in the attribute that diffusers' pipelines also read."""
    network._hf_hook = SimpleNamespace(execution_device=device)  # type: ignore[assignment]


def arrange(
    inpainting: Sequence[nn.Module],
    others: Sequence[nn.Module],
    *,
    device: torch.device,
    memory: str,
    dtype: torch.dtype,
) -> str:
    """Move frozen networks to the device, or install hooks that copy them there when they are used.

    Args:
        inpainting: the networks of the inpainting model.
        others: DINO and CLIP.
        memory: full: all networks stay on the device. balanced: DINO and CLIP stay on the device, and of the inpainting
            model one network at a time. low: one of all networks at a time; attention runs in slices, the autoencoder
            in slices and tiles. minimal: like low, but one layer at a time, and the denoiser's weights are stored in
            float8.
        dtype: number format that the denoiser computes in.
    Returns:
        A short description of what was done, for the user; empty for full.
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
            done.append("no network is moved, because all of them are kept and computed on the CPU")
    elif memory == "minimal":
        for network in networks:
            _offload_by_layer(network, device)
        done.append("one layer at a time on the device")
    else:
        one_at_a_time = inpainting if memory == "balanced" else networks
        for network in others if memory == "balanced" else ():
            network.to(device)
        _OneAtATime(one_at_a_time, device)
        done.append(f"one {'of its ' if memory == 'balanced' else ''}networks at a time on the device")
    return "; ".join(done)


def store_in_float16(networks: Sequence[Any]) -> None:
    """Store the weights of denoisers that compute in float32 in float16, where that changes none of them.

    Half of the memory of the weights is saved. Each layer's are converted whenever it computes, so this is for networks
    that are computed seldom. Weights that were published in half precision stay exactly what they are. The first layer
    keeps its format, because diffusers takes it for that of the network. diffusers' own layerwise casting would take
    longer, because it converts the weights back after each layer.
    """
    for network in _unpacked_denoisers(networks):
        weights = list(network.parameters())
        if all(each.dtype == torch.float32 and torch.equal(each, each.half().float()) for each in weights):
            layers = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]
            for layer in layers[1:]:
                layer.weight.data = layer.weight.data.half()
                parametrize.register_parametrization(layer, "weight", _InFloat32(), unsafe=True)


class _InFloat32(nn.Module):
    """A weight as it is computed with, from what is stored."""

    def forward(self, stored: Tensor) -> Tensor:
        return stored.to(torch.float32)


def share_equal_weights(kept: Sequence[nn.Module], others: Sequence[nn.Module]) -> None:
    """Keep the weights of networks that two models have in common, such as the autoencoder, once in memory.

    kept, others: the networks of the two models, on the same device. A network of the second whose weights all equal
    those of one of the same class of the first takes its tensors; it gets its own again if it is moved or converted.
    """
    for network in others:
        weights = dict(network.named_parameters())
        for twin in kept:
            same = dict(twin.named_parameters())
            if type(network) is not type(twin) or weights.keys() != same.keys():
                continue
            # torch.equal alone would convert one of two formats into the other.
            if all(each.dtype == same[name].dtype and torch.equal(each, same[name]) for name, each in weights.items()):
                for name, each in weights.items():
                    each.data = same[name].data


def is_packed(weight: Tensor | nn.Module | None) -> bool:
    """Whether a weight is quantized, as diffusers keeps those of a GGUF file: in bytes that a layer dequantizes while
    it computes."""
    return hasattr(weight, "quant_type")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the device or of the machine was not sufficient."""
    message = str(error)
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or "out of memory" in message or "can't allocate memory" in message


def memory_advice(memory: str) -> str:
    """Advice for the user if the models do not fit into memory at this level."""
    lower = LEVELS[LEVELS.index(memory) + 1 :]
    if lower:
        return f"try --memory {' or '.join(lower)}"
    return "this is the lowest --memory level: use a smaller model (see maskless models) or another --device"


class _Offloaded:
    """Modules whose weights are kept in main memory and are on the device only between `load` and `unload`.

    `load` replaces them by copies on the device, and `unload` restores the originals. The copies are discarded, because
    frozen weights do not change.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._device = device
        self._kept = [
            (tensors, name, tensor)
            for module in modules
            for tensors in (module._parameters, module._buffers)
            for name, tensor in tensors.items()
            if tensor is not None
        ]
        self.loaded = False

    @property
    def empty(self) -> bool:
        """Whether the modules have no weights of their own."""
        return not self._kept

    def load(self) -> None:
        if self.loaded:
            return
        copies: dict[int, Tensor] = {}  # by id, so that a weight that is shared inside the network is copied once
        for tensors, name, tensor in self._kept:
            if id(tensor) not in copies:
                copy = tensor.detach().to(self._device)
                is_weight = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_weight else copy
            tensors[name] = copies[id(tensor)]  # type: ignore[assignment]
        self.loaded = True

    def unload(self) -> None:
        for tensors, name, tensor in self._kept:
            tensors[name] = tensor  # type: ignore[assignment]
        self.loaded = False


class _OneAtATime:
    """Networks of which only the one that was used last is on the device."""

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self._networks = [_Offloaded(list(network.modules()), device) for network in networks]
        for network, offloaded in zip(networks, self._networks, strict=True):
            _set_execution_device(network, device)
            # A network may be called through one of its parts, as an autoencoder is through its encoder and decoder.
            for part in (network, *network.children()):
                part.register_forward_pre_hook(self._load_alone(offloaded))

    def _load_alone(self, wanted: _Offloaded) -> Any:
        """A forward hook that unloads the other networks and loads this one."""

        def load(_module: nn.Module, _inputs: Any) -> None:
            for other in self._networks:
                if other is not wanted and other.loaded:
                    other.unload()
            wanted.load()

        return load


def _offload_by_layer(network: nn.Module, device: torch.device) -> None:
    """Install hooks that keep each module's own weights on the device only while that module computes."""
    _set_execution_device(network, device)
    inside_attention = {
        id(part)
        for module in network.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    for module in network.modules():
        # torch's attention uses the weights of its output layer without calling it, so hooks of that layer do not run.
        whole = isinstance(module, nn.MultiheadAttention)
        if id(module) in inside_attention and not whole:
            continue
        layer = _Offloaded(list(module.modules()) if whole else [module], device)
        if not layer.empty:
            module.register_forward_pre_hook(lambda _module, _inputs, layer=layer: layer.load())
            module.register_forward_hook(lambda _module, _inputs, _output, layer=layer: layer.unload())


def _slice(networks: Sequence[Any]) -> None:
    """Make networks that support it compute attention one head at a time, and autoencode pictures one at a time and in
    tiles."""
    for network in networks:
        if hasattr(network, "set_attention_slice"):
            network.set_attention_slice("max")
        if hasattr(network, "use_slicing"):
            network.enable_slicing()
        # AutoencoderTiny needs little memory anyway, and its tiling in diffusers only works with cells of 8 pixels.
        if hasattr(network, "use_tiling") and type(network).__name__ != "AutoencoderTiny":
            network.enable_tiling()


def _store_in_float8(networks: Sequence[Any], device: torch.device, dtype: torch.dtype) -> str:
    """Store the denoiser's weights in float8, if the device supports it, and describe what was done."""
    if device.type == "mps":
        return "no float8 on mps"
    plain = _unpacked_denoisers(networks)
    for network in plain:
        network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    return "the denoiser's weights in float8" if plain else "the denoiser's weights quantized as in their file"


def _unpacked_denoisers(networks: Sequence[Any]) -> list[Any]:
    """The denoisers among networks whose weights are not quantized."""
    denoisers = [each for each in networks if hasattr(each, "enable_layerwise_casting") and not hasattr(each, "decode")]
    return [network for network in denoisers if not any(map(is_packed, network.parameters()))]
