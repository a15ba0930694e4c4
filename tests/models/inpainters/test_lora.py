"""LoRA files, as training programs write them."""

import json

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


def test_a_pickle_is_refused_by_its_name(family_folder, tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickled.bin")
    with pytest.raises(MasklessError) as caught:
        add_lora(load_pipeline(str(family_folder("sd"))), LoraFile(source=str(tmp_path / "pickled.bin")))
    assert str(tmp_path / "pickled.bin") in str(caught.value) and "--allow-pickle" in str(caught.value)


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf", "1e999"])
def test_a_scale_that_is_not_finite_is_refused(scale):
    with pytest.raises(MasklessError, match="scale of a LoRA must be a finite number"):
        parse_loras(f"style.safetensors:{scale}")


def test_a_comma_in_the_name_of_a_file_does_not_separate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("red, green.safetensors", "a,b,c", "plain"):
        (tmp_path / name).touch()
    assert parse_loras("plain:0.5, red, green.safetensors:0.25 ,a,b,c,gone") == (
        LoraFile(source="plain", scale=0.5), LoraFile(source="red, green.safetensors", scale=0.25),
        LoraFile(source="a,b,c"), LoraFile(source="gone"),
    )  # fmt: skip


@pytest.mark.parametrize("by_root", [False, True])
def test_a_file_of_peft_has_its_prefix_and_its_scale_beside_it(family_folder, tmp_path, by_root):
    first, second = pair(16, 16), pair(16, 16, rank=4, seed=1)
    prefix = "base_model.model."
    write(
        tmp_path / "adapter_model.safetensors",
        {f"{prefix}{ATTENTION}.to_q": first, f"{prefix}{ATTENTION}.to_k": second},
    )
    settings = {"lora_alpha": 8, "r": 2, "alpha_pattern": {"attn1.to_k": 2}, "use_rslora": by_root}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for source in (tmp_path / "adapter_model.safetensors", tmp_path):
        pipeline = load_pipeline(str(family_folder("sd")))
        layers = [pipeline.unet.get_submodule(f"{ATTENTION}.{name}").weight for name in ("to_q", "to_k")]
        before = [weight.detach().clone() for weight in layers]
        assert add_lora(pipeline, LoraFile(source=str(source))) == 2
        for weight, old, (down, up), alpha in zip(layers, before, (first, second), (8, 2), strict=True):
            rank = len(down) ** 0.5 if by_root else len(down)
            assert torch.allclose(weight - old, alpha / rank * up @ down, atol=1e-5)


def test_the_header_of_a_file_of_diffusers_has_its_scale(family_folder, tmp_path):
    down, up = pair(16, 16)
    tensors = {f"unet.{ATTENTION}.to_q.lora_{side}.weight": value for side, value in (("A", down), ("B", up))}
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 6, "unet.r": 2})}
    save_file(tensors, tmp_path / "a.safetensors", metadata=header)
    pipeline = load_pipeline(str(family_folder("sd")))
    weight = pipeline.unet.get_submodule(f"{ATTENTION}.to_q").weight
    before = weight.detach().clone()
    add_lora(pipeline, LoraFile(source=str(tmp_path / "a.safetensors")))
    assert torch.allclose(weight - before, 3 * up @ down, atol=1e-5)


def test_a_file_that_diffusers_would_read_in_part_is_refused(family_folder, tmp_path):
    """It drops the names of one program where a file has those of two."""
    names = ["lora_unet_" + f"{ATTENTION}.to_q".replace(".", "_"), "lora_unet_middle_block_1_proj_in"]
    path = write(tmp_path / "a.safetensors", {name: pair(16, 16) for name in names}, "lora_down", "lora_up")
    pipeline = load_pipeline(str(family_folder("sd")))
    with pytest.raises(MasklessError, match="names of several programs, and only 1 of its 2 layers can be read"):
        add_lora(pipeline, LoraFile(source=str(path)))


@pytest.mark.parametrize("program", ["diffusers", "kohya"])
def test_the_weights_are_those_that_diffusers_loads(family_folder, tmp_path, program):
    pytest.importorskip("peft")
    layers = {f"{ATTENTION}.to_q": pair(16, 16), f"{ATTENTION}.to_out.0": pair(16, 16, seed=1),
              f"{ATTENTION}.to_v": pair(16, 16, seed=2)}  # fmt: skip
    if program == "kohya":
        named = {"lora_unet_" + name.replace(".", "_"): layer for name, layer in layers.items()}
        alphas = {f"{name}.alpha": torch.tensor(1.0) for name in named}
        path = write(tmp_path / "a.safetensors", named, "lora_down", "lora_up", **alphas)
    else:
        path = write(tmp_path / "a.safetensors", {f"unet.{name}": layer for name, layer in layers.items()})
    theirs, ours = (load_pipeline(str(family_folder("sd"))) for _ in range(2))
    theirs.load_lora_weights(str(path))
    theirs.fuse_lora(lora_scale=0.7)
    theirs.unload_lora_weights()
    assert add_lora(ours, LoraFile(source=str(path), scale=0.7)) == 3
    expected = theirs.unet.state_dict()
    assert all(torch.allclose(value, expected[name], atol=1e-5) for name, value in ours.unet.state_dict().items())


def test_several_files_with_their_scales(tmp_path):
    assert parse_loras("a.safetensors, owner/name:0.8 ,b:1.5") == (
        LoraFile(source="a.safetensors"), LoraFile(source="owner/name", scale=0.8), LoraFile(source="b", scale=1.5)
    )  # fmt: skip
    assert parse_loras("") == ()
    with pytest.raises(MasklessError, match="FILE:SCALE"):
        parse_loras("style.safetensors:much")
