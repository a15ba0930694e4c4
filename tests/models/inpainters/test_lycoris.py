"""Files of LyCORIS and DoRA: against their formulas, and against the libraries that write them."""

import sys

import pytest
import torch
from safetensors.torch import save_file

from maskless.data.errors import MasklessError
from maskless.models.inpainters.loading import load_pipeline
from maskless.models.inpainters.lora import LoraFile, add_lora
from maskless.models.inpainters.lycoris import is_beyond_lora

LINEAR, CONVOLUTION = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.resnets.0.conv1"
SHAPES = {LINEAR: (16, 16), CONVOLUTION: (16, 16, 3, 3)}


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def changed(family_folder, tmp_path, tensors, layer: str, *, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A layer's weight before and after a file is added that has these tensors of it, under kohya's name."""
    prefix = "lora_unet_" + layer.replace(".", "_")
    save_file({f"{prefix}.{name}": value for name, value in tensors.items()}, tmp_path / "a.safetensors")
    pipeline = load_pipeline(str(family_folder("sd")))
    weight = pipeline.unet.get_submodule(layer).weight
    before = weight.detach().clone()
    assert add_lora(pipeline, LoraFile(source=str(tmp_path / "a.safetensors"), scale=scale)) == 1
    return before, weight.detach()


def loha(columns: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    parts = {"hada_w1_a": random(16, 2), "hada_w1_b": random(2, columns), "hada_w2_a": random(16, 2) + 1,
             "hada_w2_b": random(2, columns) - 1}  # fmt: skip
    product = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
    return parts | {"alpha": torch.tensor(1.0)}, product / 2


def lokr(columns: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    parts = {"lokr_w1": random(4, 4), "lokr_w2_a": random(4, 2), "lokr_w2_b": random(2, columns // 4)}
    second = (parts["lokr_w2_a"] @ parts["lokr_w2_b"]).reshape(4, 4, -1)
    product = torch.stack([torch.kron(parts["lokr_w1"], second[..., at]) for at in range(second.shape[2])], dim=-1)
    return parts | {"alpha": torch.tensor(6.0)}, 3 * product


def whole_lokr(columns: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    parts = {"lokr_w1": random(4, 4), "lokr_w2": random(4, 4) if columns == 16 else random(4, 4, 3, 3)}
    second = parts["lokr_w2"].reshape(4, 4, -1)
    product = torch.stack([torch.kron(parts["lokr_w1"], second[..., at]) for at in range(second.shape[2])], dim=-1)
    return parts | {"alpha": torch.tensor(9.0)}, product


def full(columns: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    change = random(16, columns)
    return {"diff": change if columns == 16 else change.reshape(16, 16, 3, 3)}, change


@pytest.mark.parametrize("layer", SHAPES)
@pytest.mark.parametrize("make", [loha, lokr, whole_lokr, full])
def test_a_change_is_that_of_its_formula(family_folder, tmp_path, make, layer):
    pytest.importorskip("lycoris")
    shape = SHAPES[layer]
    tensors, expected = make(torch.Size(shape[1:]).numel())
    before, after = changed(family_folder, tmp_path, tensors, layer, scale=0.5)
    assert torch.allclose(after - before, 0.5 * expected.reshape(shape), atol=1e-4)


@pytest.mark.parametrize("on_outputs", [True, False])
@pytest.mark.parametrize("layer", SHAPES)
def test_dora_sets_the_length_of_outputs_or_inputs(family_folder, tmp_path, layer, on_outputs):
    pytest.importorskip("lycoris")
    shape = SHAPES[layer]
    rest = [1] * (len(shape) - 2)
    magnitude = random(16).abs().reshape(16, 1, *rest) if on_outputs else random(16).abs().reshape(1, 16, *rest)
    tensors = {"lora_down.weight": random(2, *shape[1:]), "lora_up.weight": random(16, 2, *rest),
               "alpha": torch.tensor(1.0), "dora_scale": magnitude}  # fmt: skip
    before, after = changed(family_folder, tmp_path, tensors, layer)
    axes = [axis for axis in range(len(shape)) if axis != (0 if on_outputs else 1)]
    assert torch.allclose(torch.linalg.vector_norm(after, dim=axes), magnitude.flatten(), atol=1e-4)
    change = (random(16, 2, *rest).flatten(1) @ random(2, *shape[1:]).flatten(1) / 2).reshape(shape)
    direction = before + change
    length = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    assert torch.allclose(after, direction * magnitude.reshape(length.shape) / length, atol=1e-4)
    _before, half = changed(family_folder, tmp_path, tensors, layer, scale=0.5)
    assert torch.allclose(half, (before + after) / 2, atol=1e-5)
    _before, none = changed(family_folder, tmp_path, tensors, layer, scale=0.0)
    assert torch.equal(none, before)


@pytest.mark.parametrize("layer", SHAPES)
def test_dora_of_peft_is_what_diffusers_loads(family_folder, tmp_path, layer):
    pytest.importorskip("lycoris")
    pytest.importorskip("peft")
    shape = SHAPES[layer]
    rest = [1] * (len(shape) - 2)
    magnitude = random(16).abs().reshape(1, 16, *rest) if rest else random(16).abs()
    tensors = {"lora_A.weight": random(2, *shape[1:]), "lora_B.weight": random(16, 2, *rest),
               "lora_magnitude_vector": magnitude}  # fmt: skip
    path = tmp_path / "a.safetensors"
    save_file({f"unet.{layer}.{name}": value for name, value in tensors.items()}, path)
    theirs, ours = (load_pipeline(str(family_folder("sd"))) for _ in range(2))
    theirs.load_lora_weights(str(path))
    theirs.fuse_lora()
    theirs.unload_lora_weights()
    assert add_lora(ours, LoraFile(source=str(path))) == 1
    expected, found = (each.unet.get_submodule(layer).weight for each in (theirs, ours))
    assert torch.allclose(found, expected, atol=1e-4)


def test_an_edit_with_a_file_of_lycoris(family_editor, tmp_path):
    pytest.importorskip("lycoris")
    tensors, _change = loha(16)
    prefix = "lycoris_" + LINEAR.replace(".", "_")
    save_file({f"{prefix}.{name}": value for name, value in tensors.items()}, tmp_path / "a.safetensors")
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, other = (
        family_editor("sd", lora=lora).edit(image, box=(4, 4, 20, 20), prompt="a blue house").candidates.crops
        for lora in (None, str(tmp_path / "a.safetensors"))
    )
    assert not torch.equal(plain, other)


def test_without_the_library_nothing_is_lost_in_silence(family_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lycoris", None)
    monkeypatch.setitem(sys.modules, "lycoris.functional", None)
    for make in (loha, lokr, full):
        with pytest.raises(MasklessError, match=r"needs lycoris: pip install 'maskless\[lycoris\]'"):
            changed(family_folder, tmp_path, make(16)[0], LINEAR)


@pytest.mark.parametrize("part", ["diff_b", "oft_blocks", "w_norm", "on_input"])
def test_what_is_not_supported_is_named(family_folder, tmp_path, part):
    tensors = loha(16)[0] | {part: torch.zeros(16)}
    with pytest.raises(MasklessError, match=f"contains lora_unet_mid.*{part}, which is not supported"):
        changed(family_folder, tmp_path, tensors, LINEAR)


@pytest.mark.parametrize("part", ["hada_w2_b", "dora_scale"])
def test_what_does_not_fit_changes_nothing(family_folder, tmp_path, part):
    pytest.importorskip("lycoris")
    tensors = loha(16)[0] | {part: torch.ones(7, 3)}
    with pytest.raises(MasklessError, match="made for another model: 1 of its 1 layers do not fit"):
        changed(family_folder, tmp_path, tensors, LINEAR)


def test_what_is_beyond_a_lora():
    assert not is_beyond_lora(["a.lora_down.weight", "a.lora_up.weight", "a.alpha", "b.diffusion.lora_A.weight"])
    for key in ("a.dora_scale", "a.lora_magnitude_vector.weight", "a.hada_w1_a", "a.lokr_w1", "a.lora_mid.weight"):
        assert is_beyond_lora(["a.lora_down.weight", key]), key
