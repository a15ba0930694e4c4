"""One .safetensors file under the names of the original training code becomes the same pipeline."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.inpainters.loading import make_inpainter
from maskless.models.inpainters.single_file import FIRST_CONVOLUTION, PARTS, SECOND_TEXT_ENCODER, settings_of
from maskless.models.pretrained import load_models

CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
"""A weight whose width tells Stable Diffusion 1.5 from 2."""


def original_unet_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A UNet of two stages and one layer each, the first plain and the second with attention, as CompVis names it."""
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
              "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
    places = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0", "conv_out": "out.2", "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op", "down_blocks.1.resnets.0": "input_blocks.3.0",
        "down_blocks.1.attentions.0": "input_blocks.3.1", "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1", "mid_block.resnets.1": "middle_block.2",
        "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv", "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
    }  # fmt: skip
    renamed = {}
    for name, value in state.items():
        place = max((old for old in places if name.startswith(f"{old}.")), key=len)
        rest = name.removeprefix(f"{place}.")
        if ".resnets." in place:
            stem, leaf = rest.rsplit(".", 1)
            rest = f"{resnet[stem]}.{leaf}"
        renamed[f"model.diffusion_model.{places[place]}.{rest}"] = value
    return renamed


def original_vae_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """An AutoencoderKL of four stages as CompVis names it; its decoder counts stages from the other end."""
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    renamed = {}
    for name, value in state.items():
        new = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        new = new.replace("conv_shortcut", "nin_shortcut")
        if "attn_1" in new:
            stem, part, leaf = re.fullmatch(r"(.*attn_1)\.(.+)\.(weight|bias)", new).groups()
            new = f"{stem}.{attention[part]}.{leaf}"
            if leaf == "weight" and part != "group_norm":
                value = value[:, :, None, None]
        renamed[f"first_stage_model.{new}"] = value
    return renamed


@pytest.fixture
def single_file(tiny_models: Path, tmp_path: Path) -> Path:
    """The tiny inpainting model as one file, its settings in the folder of the same name beside it."""
    from diffusers import StableDiffusionInpaintPipeline
    from safetensors.torch import save_file

    pipeline = StableDiffusionInpaintPipeline.from_pretrained(tiny_models / "inpainting", safety_checker=None)
    settings = tmp_path / "tiny"
    shutil.copytree(tiny_models / "inpainting", settings, ignore=shutil.ignore_patterns("*.safetensors"))
    text = {
        f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}": value
        for name, value in pipeline.text_encoder.state_dict().items()
    }
    weights = original_unet_names(pipeline.unet.state_dict()) | original_vae_names(pipeline.vae.state_dict()) | text
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_a_single_file_is_the_same_model(tiny_models, single_file):
    encoders = {"dino": str(tiny_models / "dino"), "clip": str(tiny_models / "clip")}
    options = {"device": "cpu", "dtype": "float32", "offline": True}
    one = load_models(ModelOptions(models=str(single_file), **encoders, **options))
    folder = load_models(ModelOptions(models=str(tiny_models), **options))
    assert one.names["inpainting"] == str(single_file)
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(folder.inpainter.pipeline, part).state_dict()
        found = getattr(one.inpainter.pipeline, part).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    prompts = [models.inpainter.encode_prompt("a blue house").prompt for models in (one, folder)]
    assert torch.allclose(*prompts, atol=1e-6)


def load_file_of(single_file: Path, tiny_models: Path):
    encoders = {"dino": str(tiny_models / "dino"), "clip": str(tiny_models / "clip")}
    return load_models(ModelOptions(models=str(single_file), device="cpu", dtype="float32", offline=True, **encoders))


@pytest.mark.parametrize(
    ("beginning", "named"),
    [
        (
            "model.diffusion_model.middle_block.1.proj_in.bias",
            "its unet, the first is mid_block.attentions.0.proj_in.bias",
        ),
        ("first_stage_model.decoder.conv_out.weight", "its vae, the first is decoder.conv_out.weight"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "its text_encoder, .*final_layer_norm.bias"),
    ],
)
def test_a_weight_that_the_file_lacks_is_named(single_file, tiny_models, beginning, named):
    from safetensors.torch import load_file, save_file

    weights = {name: value for name, value in load_file(single_file).items() if not name.startswith(beginning)}
    save_file(weights, single_file)
    with pytest.raises(MasklessError, match=f"tiny.safetensors lacks 1 weights of {named}"):
        load_file_of(single_file, tiny_models)


@pytest.mark.parametrize(("part", "named"), [("vae", "autoencoder"), ("text_encoder", "text encoder")])
def test_a_file_without_a_part_takes_it_from_beside_or_says_what_is_missing(single_file, tiny_models, part, named):
    from safetensors.torch import load_file, save_file

    weights = load_file(single_file)
    save_file({name: value for name, value in weights.items() if not name.startswith(PARTS[part])}, single_file)
    with pytest.raises(MasklessError, match=f"has no {named} .*; use the complete checkpoint, or put {part} with its"):
        load_file_of(single_file, tiny_models)
    shutil.copytree(tiny_models / "inpainting" / part, single_file.with_suffix("") / part, dirs_exist_ok=True)
    models = load_file_of(single_file, tiny_models)
    expected = load_models(ModelOptions(models=str(tiny_models), device="cpu", dtype="float32"))
    found, wanted = (getattr(each.inpainter.pipeline, part).state_dict() for each in (models, expected))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_a_file_with_four_channels_is_read_where_its_settings_are_beside_it(single_file, tiny_models):
    import json

    from safetensors.torch import load_file, save_file

    weights = load_file(single_file)
    weights[FIRST_CONVOLUTION] = weights[FIRST_CONVOLUTION][:, :4].contiguous()
    save_file(weights, single_file)
    config = single_file.with_suffix("") / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 4}))
    assert load_file_of(single_file, tiny_models).inpainter.unet.config.in_channels == 4


def test_a_single_file_without_a_mask_input_is_read_with_the_settings_of_one_with_it(tiny_models, single_file, draw):
    """Most checkpoints of Stable Diffusion are of this kind; the settings of the presets are those for inpainting."""
    from safetensors.torch import load_file, save_file

    from maskless.models.inpainters.single_file import load_single_file

    weights = load_file(single_file)
    weights[FIRST_CONVOLUTION] = weights[FIRST_CONVOLUTION][:, :4].contiguous()
    plain = single_file.with_name("plain.safetensors")
    save_file(weights, plain)
    pipeline = load_single_file(plain, single_file.with_suffix(""))
    assert torch.equal(pipeline.unet.conv_in.weight, weights[FIRST_CONVOLUTION])
    assert pipeline.unet.config.in_channels == 4
    assert draw(make_inpainter(pipeline, native_px=32)).shape == (1, 3, 32, 32)


def written(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    from safetensors.torch import save_file

    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


def test_the_settings_are_those_of_the_model_that_the_shapes_tell(tmp_path):
    convolution = {FIRST_CONVOLUTION: (4, 9, 3, 3)}
    attention = CROSS
    sd15 = written(tmp_path / "a.safetensors", convolution | {attention: (4, 768)})
    plain = written(tmp_path / "d.safetensors", {FIRST_CONVOLUTION: (4, 4, 3, 3), attention: (4, 768)})
    assert settings_of(plain) == settings_of(sd15)
    sd2 = written(tmp_path / "b.safetensors", convolution | {attention: (4, 1024)})
    sdxl = written(tmp_path / "c.safetensors", convolution | {attention: (4, 2048), SECOND_TEXT_ENCODER: (4,)})
    found = [settings_of(path) for path in (sd15, sd2, sdxl)]
    assert [name.split("/")[0] for name in found] == ["stable-diffusion-v1-5", "sd2-community", "diffusers"]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"weight": (2, 2)}, "is not a Stable Diffusion checkpoint"),
        ({FIRST_CONVOLUTION: (4, 5, 3, 3)}, "9 input channels, or with 4 if it was not trained for inpainting, got 5"),
        ({FIRST_CONVOLUTION: (4, 4, 3, 3), CROSS: (4, 1024)}, "some of which predict noise and some velocity; put its"),
        ({FIRST_CONVOLUTION: (4, 9, 3, 3)}, "is not a known kind of model; put its settings"),
    ],
)
def test_other_files_are_one_line(tmp_path, tiny_models, shapes, message):
    path = written(tmp_path / "file.safetensors", shapes)
    with pytest.raises(MasklessError, match=message) as caught:
        load_models(
            ModelOptions(models=str(path), dino=str(tiny_models / "dino"), clip=str(tiny_models / "clip"), device="cpu")
        )
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_pickle_or_a_file_for_clip_is_one_line(tmp_path, tiny_models):
    (tmp_path / "model.ckpt").write_bytes(b"x")
    folders = {"dino": str(tiny_models / "dino"), "clip": str(tiny_models / "clip")}
    with pytest.raises(MasklessError, match="must be a .safetensors file, got .*model.ckpt; a .ckpt is a pickle"):
        load_models(ModelOptions(models=str(tmp_path / "model.ckpt"), **folders, device="cpu"))
    with pytest.raises(MasklessError, match="clip model must be a folder or a hub id"):
        load_models(ModelOptions(models=str(tiny_models), clip=str(tmp_path / "model.ckpt"), device="cpu"))


def test_a_file_that_is_cut_short_is_one_line(tmp_path, tiny_models):
    path = written(tmp_path / "file.safetensors", {FIRST_CONVOLUTION: (4, 9, 3, 3)})
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(MasklessError, match="damaged or cut short"):
        load_models(
            ModelOptions(models=str(path), dino=str(tiny_models / "dino"), clip=str(tiny_models / "clip"), device="cpu")
        )
