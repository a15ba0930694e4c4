"""Numbers that overflow in float16: they are detected, and the networks compute in a wider format from then on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskless.data.errors import MasklessError, MasklessWarning
from maskless.models.memory import is_out_of_memory


def is_finite(values: Tensor) -> bool:
    """Whether a tensor holds neither infinities nor NaN."""
    return bool(values.isfinite().all())


def leave_float16(networks: Sequence[nn.Module]) -> torch.dtype:
    """Convert networks from float16 to bfloat16 where the GPU computes in it, else to float32, and warn the user.

    Returns:
        The format that they have now.
    Raises:
        MasklessError: the networks are kept elsewhere and copied to the device, or the wider weights do not fit there.
    """
    device = next(networks[0].parameters()).device
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    wider = torch.bfloat16 if native else torch.float32
    name = str(wider).removeprefix("torch.")
    if any(_is_moved_or_quantised(network) for network in networks):
        raise MasklessError(
            f"the inpainting model's numbers overflow in float16, so it would draw black; use --dtype {name}, or "
            "--memory full"
        )
    try:
        for network in networks:
            nn.Module.to(network, dtype=wider)  # those of diffusers would log advice for developers
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        for network in networks:
            nn.Module.to(network, dtype=torch.float16)
        raise MasklessError(
            f"the inpainting model's numbers overflow in float16, and there is not enough memory for {name}; use "
            f"--dtype {name} with a lower --memory level, or a smaller model"
        ) from error
    warnings.warn(
        f"the inpainting model's numbers overflow in float16; it continues in {name} (--dtype {name})",
        MasklessWarning,
        stacklevel=2,
    )
    return wider


def not_finite(dtype: torch.dtype) -> MasklessError:
    """The error of a model that draws NaN although its format is wide enough, or that cannot use a wider one."""
    name = str(dtype).removeprefix("torch.")
    return MasklessError(
        f"the inpainting model draws values that are not numbers (NaN) in {name}; its weights or its LoRA are damaged, "
        "or it needs --dtype float32"
    )


def _is_moved_or_quantised(network: nn.Module) -> bool:
    """Whether hooks copy the network's weights to the device, or some are stored in another format than float16 and
    float32."""
    kinds = {weight.dtype for weight in network.parameters()}
    return hasattr(network, "_hf_hook") or not kinds <= {torch.float16, torch.float32}
