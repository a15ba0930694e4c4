"""The device that models run on, and the number format that they compute in."""

from __future__ import annotations

import torch

from maskless.data.errors import MasklessError


def resolve_device(name: str) -> torch.device:
    """The device of this name; auto is CUDA if available, else MPS if available, else the CPU.

    Raises:
        MasklessError: an unknown name, or a device that is not available.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, usable in available.items() if usable))
    if name not in available:
        raise MasklessError(f"device must be auto, cpu, cuda or mps, got {name!r}")
    if not available[name]:
        raise MasklessError(f"device {name} is not available here; use --device auto or cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of this name; auto is the fastest that the device supports natively.

    Raises:
        MasklessError: an unknown name.
    """
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        # With AVX512-BF16 alone, without AMX, bfloat16 takes 1.3 to 1.9 times as long (docs/performance.md).
        native = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    if name not in known:
        raise MasklessError(f"dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return known[name]
