"""Compiled denoisers draw the same pictures, and what is missing for it is one clear line."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.compilation import compile_denoisers
from maskless.models.inpainters.denoising import Sampling
from maskless.models.pretrained import EditModels, load_models


def drawn(models: EditModels) -> torch.Tensor:
    model = models.inpainter
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 1, 64, 64)
    masks[:, :, 16:48, 16:48] = 1
    sampling = Sampling(seed=1, steps=2, guidance_scale=5.0)
    return model.inpaint(images, masks, model.encode_prompt("a blue house"), sampling)


@pytest.mark.slow
def test_a_compiled_denoiser_draws_the_same_picture_and_stays_compiled(tiny_models):
    options = {"models": str(tiny_models), "device": "cpu", "dtype": "float32"}
    plain, compiled = load_models(ModelOptions(**options)), load_models(ModelOptions(**options, compile=True))
    assert plain.placement == "" and "compiled at its first drawing" in compiled.placement
    unet = compiled.inpainter.unet
    blocks = [module for module in unet.modules() if type(module).__name__ in unet._repeated_blocks]
    assert blocks and all(block._compiled_call_impl is not None for block in blocks)
    torch._dynamo.utils.counters.clear()
    first = drawn(compiled)
    assert float((first.float() - drawn(plain).float()).abs().max()) <= 1
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs > 0
    assert torch.equal(drawn(compiled), first)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "nothing is compiled a second time"


def test_networks_without_repeated_blocks_are_left_alone():
    assert compile_denoisers([torch.nn.Linear(2, 2)], torch.device("cpu")) == "nothing to compile"


def test_what_is_missing_is_one_line(monkeypatch):
    with pytest.raises(MasklessError, match="--compile needs triton on cuda"):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        compile_denoisers([], torch.device("cuda"))
    monkeypatch.undo()
    monkeypatch.setenv("CXX", "/nowhere/g++")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/g++",))
    with pytest.raises(MasklessError, match="needs a C\\+\\+ compiler on cpu"):
        compile_denoisers([], torch.device("cpu"))
    with pytest.raises(MasklessError, match="compile needs memory full.*got low"):
        ModelOptions(compile=True, memory="low")
