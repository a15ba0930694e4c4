"""Numbers that overflow in float16, and values that are no numbers."""

import warnings

import pytest
import torch

from maskless.data.errors import MasklessError, MasklessWarning
from maskless.models.inpainters.loading import load_pipeline, make_inpainter
from maskless.models.inpainters.overflow import is_finite, leave_float16
from tiny_families import NATIVE_PX

DENOISERS = {"sd": "unet", "sdxl-inpainting": "unet", "flux": "transformer", "z-image": "transformer"}


def loaded(family_folder, name: str, dtype: torch.dtype, *, factor: float):
    """A model whose first layer multiplies by a factor and whose last layer divides by it."""
    pipeline = load_pipeline(str(family_folder(name)), dtype=dtype)
    denoiser = getattr(pipeline, DENOISERS[name])
    first = next(layer for layer in denoiser.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)))
    first.weight.data *= factor
    return make_inpainter(pipeline, dtype=dtype, native_px=NATIVE_PX), denoiser


def test_what_is_finite():
    assert is_finite(torch.ones(2, 2))
    assert not is_finite(torch.tensor([1.0, torch.nan])) and not is_finite(torch.tensor([1.0, torch.inf]))


@pytest.mark.parametrize("name", ["sd", "sdxl-inpainting", "flux"])
def test_a_model_that_overflows_continues_in_a_wider_format(family_folder, draw, name):
    model, denoiser = loaded(family_folder, name, torch.float16, factor=6e4)
    with pytest.warns(MasklessWarning, match="overflow in float16; it continues in float32"):
        drawn = draw(model, 2)
    assert denoiser.dtype == torch.float32
    assert len(drawn.unique()) > 10, "a picture, not a black square"
    with warnings.catch_warnings():
        warnings.simplefilter("error", MasklessWarning)
        assert torch.equal(draw(model, 2), drawn), "the second time in float32 from the start"


def test_a_model_that_does_not_overflow_stays_in_float16(family_folder, draw):
    model, denoiser = loaded(family_folder, "sd", torch.float16, factor=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MasklessWarning)
        assert draw(model).dtype == torch.uint8
    assert denoiser.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["sd", "z-image"])
@pytest.mark.filterwarnings("ignore::maskless.data.errors.MasklessWarning")
def test_weights_that_are_no_numbers_are_one_line(family_folder, draw, name, dtype):
    model, _denoiser = loaded(family_folder, name, dtype, factor=float("nan"))
    with pytest.raises(MasklessError, match=r"not numbers \(NaN\) in float32; its weights or its LoRA are damaged"):
        draw(model)


def test_a_model_whose_weights_are_kept_elsewhere_is_told_what_to_try(family_folder, draw):
    model, denoiser = loaded(family_folder, "sd", torch.float16, factor=6e4)
    denoiser._hf_hook = type("Hook", (), {"execution_device": torch.device("cpu")})()
    with pytest.raises(MasklessError, match="overflow in float16.*use --dtype float32, or --memory full"):
        draw(model)


def test_a_device_without_memory_for_the_wider_weights_keeps_float16(monkeypatch):
    layer = torch.nn.Linear(2, 2).half()
    convert = torch.nn.Module.to

    def full(self, *given, **named):
        if named.get("dtype") == torch.float32:
            raise torch.OutOfMemoryError("out of memory")
        return convert(self, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "to", full)
    with pytest.raises(MasklessError, match="not enough memory for float32; use --dtype float32 with a lower --memory"):
        leave_float16([layer])
    assert layer.weight.dtype == torch.float16
