"""Compilation of a denoiser's repeated blocks by torch.compile, for many edits with the same models."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import torch

from maskless.data.errors import MasklessError


def compile_denoisers(networks: Sequence[Any], device: torch.device) -> str:
    """Compile the repeated blocks of the networks that name some, and describe for the user what was done.

    Only the blocks are compiled, once for each kind and not for each place where it occurs (diffusers'
    `compile_repeated_blocks`), at the first drawing of each number of pictures. On CUDA, UNets also keep their tensors
    in the order of `torch.channels_last`, which convolutions prefer there.

    Raises:
        MasklessError: what torch.compile needs on this device is not installed.
    """
    _require_compiler(device)
    denoisers = [network for network in networks if getattr(network, "_repeated_blocks", None)]
    for network in denoisers:
        if device.type == "cuda" and hasattr(network, "conv_in"):
            network.to(memory_format=torch.channels_last)
        network.compile_repeated_blocks()
    return "the denoiser is compiled at its first drawing, which takes minutes" if denoisers else "nothing to compile"


def _require_compiler(device: torch.device) -> None:
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise MasklessError("--compile needs triton on cuda: pip install triton, or leave --compile out")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise MasklessError(
            f"--compile needs a C++ compiler on {device.type}: install g++ or clang, or leave --compile out"
        ) from error
