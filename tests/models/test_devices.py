"""Devices and number formats: what auto chooses, and one line for what is not available."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.devices import resolve_device, resolve_dtype


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_takes_bfloat16_only_where_it_is_native(monkeypatch, has_bf16, expected):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: has_bf16 or including_emulation
    )
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_bf16)
    assert resolve_dtype("auto", torch.device("cuda")) == expected
    assert resolve_dtype("auto", torch.device("cpu")) == (torch.bfloat16 if has_bf16 else torch.float32)
    assert resolve_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="here CUDA is available")
def test_cuda_without_cuda_is_one_line():
    with pytest.raises(MasklessError, match="device cuda is not available here"):
        resolve_device("cuda")


def test_auto_is_resolved_once():
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    assert resolve_dtype("float16", torch.device("cpu")) == torch.float16
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    for wrong in (lambda: resolve_device("abacus"), lambda: resolve_dtype("roman", torch.device("cpu"))):
        with pytest.raises(MasklessError, match="must be auto"):
            wrong()
