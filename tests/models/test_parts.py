"""Parts of a model have all of their weights, and nothing in a folder of others runs, fetches or allocates."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models import parts
from maskless.models.parts import check_settings, check_weights, one_line_model_errors, open_network, read_json
from maskless.models.pretrained import load_models


@pytest.fixture
def copied(tiny_models, tmp_path):
    return Path(shutil.copytree(tiny_models, tmp_path / "copy"))


def without(path: Path, name: str) -> None:
    """Leave one weight out of a file."""
    weights = load_file(path)
    del weights[name]
    save_file(weights, path)


def load(folder: Path):
    return load_models(ModelOptions(models=str(folder), device="cpu", dtype="float32"))


@pytest.mark.parametrize("part", ["inpainting/unet", "inpainting/vae", "inpainting/text_encoder", "dino", "clip"])
@pytest.mark.parametrize("which", [0, -1])
def test_a_missing_weight_of_any_network_is_refused_by_name(copied, part, which):
    path = next((copied / part).glob("*.safetensors"))
    name = sorted(load_file(path))[which]
    without(path, name)
    with pytest.raises(MasklessError, match="lacks 1 weights, the first is") as caught:
        load(copied)
    assert str(copied / part) in str(caught.value)
    # transformers names the weights of its classes, which may lack the prefix that the file has.
    assert str(caught.value).split()[-1].split(".")[-2:] == name.split(".")[-2:]


@pytest.mark.parametrize("part", ["inpainting/unet", "inpainting/text_encoder", "dino", "clip"])
def test_a_weight_of_another_shape_is_one_line(copied, part):
    path = next((copied / part).glob("*.safetensors"))
    weights = load_file(path)
    name = max(weights, key=lambda each: weights[each].numel())
    save_file(weights | {name: weights[name][:-1].contiguous()}, path)
    with pytest.raises(MasklessError, match=str(copied / part)) as caught:
        load(copied)
    assert "\n" not in str(caught.value) and name.split(".")[-2] in str(caught.value)


@pytest.mark.parametrize("name", ["dino/config.json", "clip/tokenizer.json", "inpainting/tokenizer/merges.txt"])
def test_a_pipe_or_a_device_in_place_of_a_file_is_not_read(copied, name):
    (copied / name).unlink()
    os.mkfifo(copied / name)
    with pytest.raises(MasklessError, match=f"{name} .it is not a file"):
        load(copied)
    (copied / name).unlink()
    (copied / name).symlink_to("/dev/zero")
    with pytest.raises(MasklessError, match=f"{name} .it is not a file"):
        load(copied)


def test_a_pointer_of_git_lfs_says_what_it_is(copied):
    next((copied / "dino").glob("*.safetensors")).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(MasklessError, match="is a pointer of Git LFS .* `git lfs pull`"):
        load(copied)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("dino", {"num_hidden_layers": 1_000_000}),
        ("dino", {"hidden_size": 4_000_000}),
        ("dino", {"intermediate_size": 2**24}),
        ("dino", {"num_labels": 10**9}),
        ("inpainting/unet", {"layers_per_block": 1_000_000}),
        ("inpainting/unet", {"block_out_channels": [2**20, 2**20]}),
        ("inpainting/vae", {"latent_channels": 2**24}),
        ("inpainting/text_encoder", {"max_position_embeddings": 2**24}),
        ("inpainting/text_encoder", {"vocab_size": 10**12}),
    ],
)
def test_settings_that_ask_for_more_than_the_files_hold_are_refused_before_memory_is_taken(copied, part, values):
    change(copied / part / "config.json", **values)
    with pytest.raises(MasklessError, match="any model allow|describe a network of|describe more than"):
        load(copied)


def test_a_network_is_not_built_beyond_the_weights_of_its_files(copied):
    """Counts that have no name in the rules stop at the number of parameters."""
    with pytest.raises(MasklessError, match="describe more than 10 weights"), parts._at_most_parameters(10, copied):
        torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(1000))
    torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(10))  # the limit ends with its block


@pytest.mark.parametrize(
    "asked",
    [
        {"attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": {"text_config": "someone/kernel"}},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
        {"text_config": {"quantization_config": "fp8"}},
    ],
)
def test_settings_that_need_code_from_elsewhere_are_refused(asked):
    with pytest.raises(MasklessError, match="asks for .*(not supported|not part of the model)"):
        check_settings(asked, Path("config.json"))


def test_tables_that_a_library_fills_are_bounded():
    for asked in ({"axes_dims_rope": [16, 2**20]}, {"axes_lens": [2**20]}, {"num_train_timesteps": 10**8}):
        with pytest.raises(MasklessError, match="more than its weights or any model allow"):
            check_settings(asked, Path("config.json"), weights=900)


def test_ordinary_settings_pass():
    check_settings(
        {"rope_theta": 10**9, "num_hidden_layers": 80, "attn_implementation": "eager", "quantization_config": None,
         "max_position_embeddings": 131_072, "torch_dtype": "bfloat16", "down_block_types": ["a"] * 4},
        Path("config.json"), weights=900,
    )  # fmt: skip


def test_settings_with_endless_entries_are_refused():
    for endless in (
        {"a": list(range(20_000))},
        {"a": [{"b": number} for number in range(9_000)] * 1, "c": [[0] * 9_999] * 30},
    ):
        with pytest.raises(MasklessError, match="more entries than any model"):
            check_settings(endless, Path("config.json"))


@pytest.mark.parametrize(
    "named",
    [
        ["os", "system"],
        ["evil", "Pipeline"],
        ["diffusers", "DiffusionPipeline"],
        ["transformers", "AutoTokenizer"],
        "x",
        ["a"],
        [1, 2],
    ],
)
def test_a_pipeline_of_other_classes_is_refused_without_importing_them(copied, tmp_path, monkeypatch, named):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    change(copied / "inpainting" / "model_index.json", scheduler=named)
    if named == "x":  # not a part at all, so the scheduler is missing
        with pytest.raises(MasklessError, match="inpainting"):
            load(copied)
    else:
        with pytest.raises(MasklessError, match="as its scheduler, which is not supported"):
            load(copied)
    assert not (tmp_path / "executed").exists()


def test_code_beside_a_model_is_not_run(copied, tmp_path):
    for part in ("dino", "clip"):
        (copied / part / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
        change(copied / part / "config.json", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    change(
        copied / "clip" / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}, tokenizer_class="Evil"
    )
    load(copied)
    change(copied / "clip" / "config.json", model_type="evil")
    with pytest.raises(MasklessError, match="must be a CLIP"):
        load(copied)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "index",
    ["[]", "3", '{"weight_map": [1]}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x.safetensors"}}',
     '{"weight_map": {"a": "/etc/passwd"}}', '{"weight_map": ' + "[" * 100_000, "{}"],
)  # fmt: skip
def test_an_index_that_is_none_is_one_line(copied, index):
    (copied / "dino" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(MasklessError, match="model.safetensors.index.json") as caught:
        check_weights(copied / "dino")
    assert "\n" not in str(caught.value)


def test_a_json_file_is_a_file_with_an_object(tmp_path):
    path = tmp_path / "config.json"
    for content in (b"[1]", b'"x"', b"\xff", b"{", b"[" * 10**5, b"9" * 5000):
        path.write_bytes(content)
        with pytest.raises(MasklessError, match="config.json"):
            read_json(path)
    path.write_text('{"a": "' + "x" * 200 + '"}')
    with pytest.raises(MasklessError, match="100 at most are read"):
        read_json(path, limit=100)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MasklessError, match="it is not a file"):
        read_json(path)


def test_errors_of_libraries_are_one_line_and_others_stay():
    for error in (TypeError("a\n\x1b[31mb"), RuntimeError(""), AssertionError("x"), ImportError("no torchvision")):
        with pytest.raises(MasklessError) as caught, one_line_model_errors("the model"):
            raise error
        assert str(caught.value).startswith("the model: ") and str(caught.value).isprintable()
    for kept in (MemoryError("x"), RuntimeError("CUDA out of memory"), KeyboardInterrupt(), SystemExit(3)):
        with pytest.raises(type(kept)) as same, one_line_model_errors("the model"):
            raise kept
        assert same.value is kept


def test_only_weights_in_16_bits_are_opened_by_their_name(tiny_models, tmp_path):
    from diffusers import UNet2DConditionModel

    folder = Path(shutil.copytree(tiny_models / "inpainting" / "unet", tmp_path / "unet"))
    weights = folder / "diffusion_pytorch_model.safetensors"
    whole = load_file(weights)
    save_file(
        {name: value.half() for name, value in whole.items()}, folder / "diffusion_pytorch_model.fp16.safetensors"
    )
    weights.unlink()
    network = open_network(UNet2DConditionModel, folder, torch_dtype=torch.float32)
    assert network.conv_in.weight.dtype == torch.float32
    assert torch.equal(network.conv_in.weight, whole["conv_in.weight"].half().float())
