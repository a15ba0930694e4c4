"""LoRA files, as training programs write them."""

import pytest
import torch
from safetensors.torch import save_file

from maskless.data.errors import MasklessError
from maskless.models.inpainters.loading import load_pipeline
from maskless.models.inpainters.lora import LoraFile, add_lora, parse_loras

ATTENTION = "mid_block.attentions.0.transformer_blocks.0.attn1"


def pair(out: int, into: int, rank: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator)


def write(path, layers: dict[str, tuple[torch.Tensor, torch.Tensor]], down="lora_A", up="lora_B", **further):
    tensors = {f"{name}.{down}.weight": each[0] for name, each in layers.items()}
    tensors |= {f"{name}.{up}.weight": each[1] for name, each in layers.items()}
    save_file(tensors | further, path)
    return path


def test_a_lora_is_added_to_the_weights(family_folder, tmp_path):
    path = write(tmp_path / "style.safetensors", {f"unet.{ATTENTION}.to_q": (layer := pair(16, 16))})
    pipeline = load_pipeline(str(family_folder("sd")))
    weight = pipeline.unet.get_submodule(f"{ATTENTION}.to_q").weight
    before = weight.detach().clone()
    assert add_lora(pipeline, LoraFile(source=str(path), scale=0.5)) == 1
    assert torch.allclose(weight - before, 0.5 * layer[1] @ layer[0], atol=1e-5)


def test_kohyas_files_have_names_and_an_alpha_of_their_own(family_folder, tmp_path):
    name = "lora_unet_" + f"{ATTENTION}.to_q".replace(".", "_")
    layer = pair(16, 16)
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    alphas = {f"{name}.alpha": torch.tensor(1.0), f"{text}.alpha": torch.tensor(2.0)}
    path = write(
        tmp_path / "kohya.safetensors", {name: layer, text: (words := pair(32, 32))}, "lora_down", "lora_up", **alphas
    )
    pipeline = load_pipeline(str(family_folder("sd")))
    weight = pipeline.unet.get_submodule(f"{ATTENTION}.to_q").weight
    attention = next(each for name, each in pipeline.text_encoder.named_modules() if name.endswith("0.self_attn"))
    before, before_text = weight.detach().clone(), attention.q_proj.weight.detach().clone()
    assert add_lora(pipeline, LoraFile(source=str(path))) == 2
    assert torch.allclose(weight - before, layer[1] @ layer[0] / 2, atol=1e-5)
    assert torch.allclose(attention.q_proj.weight - before_text, words[1] @ words[0], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("sdxl", f"unet.{ATTENTION}.to_out.0"),
        ("sd3", "transformer.transformer_blocks.0.attn.to_q"),
        ("flux-fill", "transformer.transformer_blocks.0.attn.to_q"),
        ("flux2-klein", "transformer.transformer_blocks.0.attn.to_q"),
        ("qwen-image", "transformer.transformer_blocks.0.attn.to_q"),
        ("z-image", "transformer.layers.0.attention.to_q"),
    ],
)
def test_every_family_takes_its_loras(family_folder, tmp_path, name, module):
    pipeline = load_pipeline(str(family_folder(name)))
    part, _, inner = module.partition(".")
    weight = getattr(pipeline, part).get_submodule(inner).weight
    before = weight.detach().clone()
    path = write(tmp_path / "lora.safetensors", {module: (layer := pair(*weight.shape))})
    assert add_lora(pipeline, LoraFile(source=str(path))) == 1
    assert torch.allclose(weight - before, layer[1] @ layer[0], atol=1e-5)


def test_an_edit_with_a_lora_differs_and_scale_nought_does_not(family_editor, family_folder, tmp_path):
    path = write(tmp_path / "a.safetensors", {f"unet.{ATTENTION}.to_q": pair(16, 16)})
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    drawn = [
        family_editor("sd", lora=lora).edit(image, caption="a tree", prompt="a blue house").candidates.crops
        for lora in (None, f"{path}:0", f"{path}:4")
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_lora_of_another_family_changes_nothing_and_is_named(family_folder, tmp_path):
    pipeline = load_pipeline(str(family_folder("sd")))
    before = {name: weight.clone() for name, weight in pipeline.unet.state_dict().items()}
    fitting = {f"unet.{ATTENTION}.to_q": pair(16, 16)}
    for wrong in (
        {"transformer.transformer_blocks.0.attn.to_q": pair(16, 16)},
        {f"unet.{ATTENTION}.to_k": pair(64, 64)},
    ):
        path = write(tmp_path / "other.safetensors", fitting | wrong)
        with pytest.raises(
            MasklessError, match="made for another model: 1 of its 2 layers do not fit.*use one for this"
        ):
            add_lora(pipeline, LoraFile(source=str(path)))
    after = pipeline.unet.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_what_is_no_lora_is_one_clear_line(family_editor, family_folder, tmp_path):
    pipeline = load_pipeline(str(family_folder("sd")))
    save_file({"unet.conv_in.weight": torch.zeros(8, 4, 3, 3)}, tmp_path / "whole.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights", encoding="utf-8")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickled.bin")
    for name, message in (
        ("whole.safetensors", "not of a LoRA layer"),
        ("text.safetensors", "cannot read"),
        ("pickled.bin", "allow-pickle"),
        ("missing.safetensors", "no such LoRA file"),
    ):
        with pytest.raises(MasklessError, match=message):
            add_lora(pipeline, LoraFile(source=str(tmp_path / name)))


def test_several_files_with_their_scales(tmp_path):
    assert parse_loras("a.safetensors, owner/name:0.8 ,b:1.5") == (
        LoraFile(source="a.safetensors"), LoraFile(source="owner/name", scale=0.8), LoraFile(source="b", scale=1.5)
    )  # fmt: skip
    assert parse_loras("") == ()
    with pytest.raises(MasklessError, match="FILE:SCALE"):
        parse_loras("style.safetensors:much")
