"""Where a LoRA file is, and which layers its names mean."""

import pytest
import torch
from safetensors.torch import save_file

from maskless.data.errors import MasklessError
from maskless.models.inpainters.loading import load_pipeline
from maskless.models.inpainters.lora_files import (
    ScaleSettings,
    alpha_of,
    find_file,
    layer_of,
    module_names,
    read_file,
    scale_settings,
)


def files(folder, *names):
    for name in names:
        save_file({"a": torch.zeros(1)}, folder / name)
    return folder


def test_the_file_of_a_folder(tmp_path):
    assert find_file(str(files(tmp_path, "one.safetensors"))).name == "one.safetensors"
    with pytest.raises(MasklessError, match="must hold one LoRA file.*several: one.safetensors, two.safetensors; name"):
        find_file(str(files(tmp_path, "two.safetensors")))
    assert find_file(str(files(tmp_path, "adapter_model.safetensors"))).name == "adapter_model.safetensors"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MasklessError, match="got none"):
        find_file(str(tmp_path / "empty"))


@pytest.mark.parametrize("source", ["gone.safetensors", "./gone/file.safetensors", "/gone/file", "a/"])
def test_what_is_not_there_is_one_line(source):
    with pytest.raises(MasklessError, match="no such LoRA file"):
        find_file(source)


def test_a_hub_that_cannot_be_asked_is_one_line(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for source in ("owner/name", "owner/name/file.safetensors"):
        with pytest.raises(MasklessError, match=f"no such LoRA file: {source} is neither") as caught:
            find_file(source)
        assert "\n" not in str(caught.value)


def test_damaged_files_are_one_line(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"not weights")
    (tmp_path / "b.bin").write_bytes(b"not weights")
    torch.save(["a list"], tmp_path / "c.bin")
    for name, message in (("a.safetensors", "cannot read"), ("b.bin", "cannot read"), ("c.bin", "tensors by name")):
        with pytest.raises(MasklessError, match=message):
            read_file(tmp_path / name, allow_pickle=True)
    files(tmp_path, "d.safetensors")
    (tmp_path / "adapter_config.json").write_text("[", encoding="utf-8")
    with pytest.raises(MasklessError, match="cannot read the scale of the LoRA"):
        scale_settings(tmp_path / "d.safetensors")


def test_the_alpha_of_a_layer():
    settings = {"unet": ScaleSettings(alpha=8, patterns={"to_k": 2.0}), "": ScaleSettings(alpha=1, by_root=True)}
    assert alpha_of(settings, "unet.a.to_q", 4) == 8 and alpha_of(settings, "unet.a.to_k", 4) == 2
    assert alpha_of(settings, "text_encoder.a", 4) == 2 and alpha_of({}, "unet.a", 4) == 4


@pytest.mark.parametrize(
    ("family", "prefix", "name"),
    [
        ("sd", "lora_unet_mid_block_attentions_0_proj_in", "unet.mid_block.attentions.0.proj_in"),
        ("sd", "lora_te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        ("sdxl", "lora_te2_text_model_encoder_layers_0_self_attn_q_proj",
         "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"),
        ("sdxl", "lora_unet_middle_block_1_transformer_blocks_0_attn1_to_out_0",
         "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"),
        ("sdxl", "lora_unet_middle_block_0_in_layers_2", "unet.mid_block.resnets.0.conv1"),
        ("sd", "lycoris_mid_block_attentions_0_proj_in", "unet.mid_block.attentions.0.proj_in"),
        ("flux", "lycoris_transformer_blocks_0_attn_to_q", "transformer.transformer_blocks.0.attn.to_q"),
        ("sd", "mid_block.attentions.0.proj_in", "unet.mid_block.attentions.0.proj_in"),
        ("sd", "unet.mid_block.attentions.0.proj_in", "unet.mid_block.attentions.0.proj_in"),
    ],
)  # fmt: skip
def test_the_layers_that_names_mean(family_folder, family, prefix, name):
    pipeline = load_pipeline(str(family_folder(family)))
    assert module_names(pipeline, [prefix]) == {prefix: name}
    assert layer_of(pipeline, name) is not None and layer_of(pipeline, f"{name}.gone") is None


def test_names_that_diffusers_does_not_know_are_one_line(family_folder):
    with pytest.raises(MasklessError, match="names of the LoRA's layers do not fit"):
        module_names(load_pipeline(str(family_folder("sdxl"))), ["lora_unet_input_blocks_x_1_proj"])
