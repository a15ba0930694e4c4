"""A transformer in a GGUF file takes the place of a pipeline's own, as diffusers itself loads it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from maskless.data.errors import MasklessError
from maskless.data.model_options import ModelOptions
from maskless.models.fingerprint import fingerprint_of
from maskless.models.inpainters.gguf_transformer import MARKS, check_transformer, load_transformer
from maskless.models.inpainters.loading import PIPELINES, load_pipeline, make_inpainter
from maskless.models.memory import _Offloaded, arrange, is_packed
from tiny_families import NATIVE_PX
from tiny_gguf import ARCHITECTURES, original_names, transformer_weights, write_gguf, write_large_flux

pytest.importorskip("gguf")
pytest.importorskip("accelerate")

LARGEST_ERROR = {"F16": 0.001, "BF16": 0.01, "Q8_0": 0.01, "Q4_0": 0.13}
"""Largest difference of a dequantized weight, in the largest number of its matrix: half a step of the format."""
TO_Q = "transformer.transformer_blocks.0.attn.to_q"


@pytest.fixture(scope="session")
def gguf_file(family_folder, tmp_path_factory):
    """The file of a family's transformer in a format; read only."""
    root = tmp_path_factory.mktemp("gguf")

    def file(family: str, kind: str = "Q8_0", *, original: bool = False) -> Path:
        path = root / f"{family}-{kind}{'-original' * original}.gguf"
        if not path.exists():
            weights = transformer_weights(family_folder(family))
            weights = original_names(family, weights) if original else weights
            write_gguf(path, weights, kind=kind, architecture=ARCHITECTURES[family])
        return path

    return file


def with_file(folder: Path, path: Path, **options):
    """That family's model with the denoiser of the file, as it is loaded for an edit."""
    transformer = load_transformer(path, folder, dtype=torch.float32)
    return make_inpainter(load_pipeline(str(folder), transformer=transformer), native_px=NATIVE_PX, **options)


def dequantized(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    return {name: dequantize_gguf_tensor(weight).float() for name, weight in network.state_dict().items()}


@pytest.mark.parametrize("kind", LARGEST_ERROR)
@pytest.mark.parametrize(
    ("family", "original"),
    [(family, False) for family in ARCHITECTURES] + [(family, True) for family in ("z-image", "sd3", "flux2-klein")],
)
def test_the_weights_are_those_of_the_model_under_either_programs_names(
    family_folder, gguf_file, family, original, kind
):
    folder = family_folder(family)
    network = load_transformer(gguf_file(family, kind, original=original), folder, dtype=torch.float32)
    expected, found = transformer_weights(folder), dequantized(network)
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert (found[name] - weight).abs().max() <= LARGEST_ERROR[kind] * weight.abs().max() + 1e-9, name
    packed = [name for name, weight in network.named_parameters() if is_packed(weight)]
    assert bool(packed) == (kind != "F16") and all(name.endswith(".weight") for name in packed)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize("family", ["flux-fill", "flux-kontext", "z-image"])
def test_pictures_equal_those_of_diffusers_own_loading(family_folder, gguf_file, draw, family, kind):
    import diffusers

    folder, path = family_folder(family), gguf_file(family, kind)
    ours = draw(with_file(folder, path), 1)
    index = json.loads((folder / "model_index.json").read_text())
    theirs = getattr(diffusers, index["transformer"][1]).from_single_file(
        str(path), config=str(folder), subfolder="transformer", torch_dtype=torch.float32,
        quantization_config=diffusers.GGUFQuantizationConfig(compute_dtype=torch.float32),
    )  # fmt: skip
    pipeline = getattr(diffusers, PIPELINES[index["_class_name"]]).from_pretrained(folder, transformer=theirs)
    assert torch.equal(ours, draw(make_inpainter(pipeline, native_px=NATIVE_PX), 1))
    plain = draw(make_inpainter(load_pipeline(str(folder)), native_px=NATIVE_PX), 1)
    distance = (ours.float() - plain.float()).abs().mean()
    assert distance <= {"F16": 1, "Q8_0": 3, "Q4_0": 20}[kind]


def test_a_quantized_weight_that_no_layer_dequantizes_is_dequantized_once(family_folder, gguf_file, draw, tmp_path):
    """diffusers would compute with its bytes."""
    folder = family_folder("z-image")
    path = write_gguf(tmp_path / "every.gguf", transformer_weights(folder), kind="Q8_0", every=True)
    model = with_file(folder, path)
    assert not is_packed(model.pipeline.transformer.x_pad_token)
    assert (draw(model, 1).float() - draw(with_file(folder, gguf_file("z-image")), 1).float()).abs().mean() <= 2


@pytest.mark.parametrize("memory", ["full", "minimal"])
def test_an_edit_by_the_path_that_users_take(family_editor, gguf_file, memory):
    editor = family_editor("flux-fill", transformer=str(gguf_file("flux-fill", "Q4_0")), memory=memory)
    assert editor.models.names["transformer"].endswith("flux-fill-Q4_0.gguf")
    assert any(map(is_packed, editor.models.inpainter.pipeline.transformer.parameters()))
    image = torch.rand(3, 48, 40, generator=torch.Generator().manual_seed(3))
    result = editor.edit(image, prompt="a blue house", box=(8, 8, 32, 32))
    outside = torch.ones(48, 40, dtype=torch.bool)
    outside[8:32, 8:32] = False
    edited = result.best.tensor()
    assert torch.equal(edited[:, outside], result.request.image[:, outside])
    assert not torch.equal(edited, result.request.image)


def test_minimal_memory_leaves_quantized_weights_as_they_are(family_folder, gguf_file, draw):
    model = with_file(family_folder("flux-fill"), gguf_file("flux-fill"))
    before = draw(model, 1)
    options = {"device": torch.device("cpu"), "memory": "minimal", "dtype": torch.float32}
    done = arrange([model.pipeline.transformer], [], **options)
    assert "the denoiser's weights quantized as in their file" in done
    assert torch.equal(draw(model, 1), before)


def test_weights_that_are_copied_to_a_device_stay_quantized(family_folder, gguf_file):
    network = load_transformer(gguf_file("flux-fill"), family_folder("flux-fill"), dtype=torch.float32)
    kept = dict(network.named_parameters())
    offloaded = _Offloaded(list(network.modules()), torch.device("cpu"))
    offloaded.load()
    copied = dict(network.named_parameters())
    assert [name for name, weight in copied.items() if is_packed(weight)]
    assert all(is_packed(copied[name]) == is_packed(weight) for name, weight in kept.items())
    offloaded.unload()
    assert all(weight is kept[name] for name, weight in network.named_parameters())


def test_the_fingerprint_is_that_of_the_files_numbers(family_folder, gguf_file):
    folder = family_folder("flux-fill")
    found = [
        fingerprint_of([load_transformer(gguf_file("flux-fill", kind), folder, dtype=torch.float32)])
        for kind in ("Q8_0", "Q8_0", "Q4_0", "F16")
    ]
    assert found[0] == found[1] and len(set(found)) == 3


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0"])
def test_a_lora_is_computed_beside_quantized_weights(family_folder, gguf_file, draw, tmp_path, kind):
    folder = family_folder("flux-fill")
    network = load_transformer(gguf_file("flux-fill", kind), folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 32, generator=generator), torch.randn(32, 2, generator=generator)
    lora = tmp_path / "style.safetensors"
    save_file({f"{TO_Q}.lora_A.weight": down, f"{TO_Q}.lora_B.weight": up}, lora)
    layer = network.get_submodule(TO_Q.removeprefix("transformer."))
    inputs = torch.randn(4, 32, generator=generator)
    before = layer(inputs)
    model = make_inpainter(load_pipeline(str(folder), transformer=network), lora=f"{lora}:0.5,{lora}:0.25",
                           native_px=NATIVE_PX)  # fmt: skip
    assert torch.allclose(layer(inputs) - before, 0.75 * inputs @ (up @ down).T, atol=1e-4)
    assert not torch.equal(draw(model, 1), draw(with_file(folder, gguf_file("flux-fill", kind)), 1))
    assert is_packed(layer.weight) == (kind != "F16")


def test_a_lora_of_another_model_or_beyond_lora_is_refused(family_folder, gguf_file, tmp_path):
    folder, path = family_folder("flux-fill"), gguf_file("flux-fill")
    wrong, loha = tmp_path / "wrong.safetensors", tmp_path / "loha.safetensors"
    save_file({f"{TO_Q}.lora_A.weight": torch.zeros(2, 48), f"{TO_Q}.lora_B.weight": torch.zeros(48, 2)}, wrong)
    with pytest.raises(MasklessError, match="was made for another model: 1 of its 1 layers do not fit"):
        with_file(folder, path, lora=str(wrong))
    parts = {f"{TO_Q}.hada_w{i}_{side}": torch.zeros(shape) for i in (1, 2)
             for side, shape in (("a", (32, 2)), ("b", (2, 32)))}  # fmt: skip
    save_file(parts, loha)
    with pytest.raises(MasklessError, match="cannot be added to the quantized weights of a GGUF file; use"):
        with_file(folder, path, lora=str(loha))


def test_every_family_with_a_transformer_is_told_by_its_weights(family_folder, gguf_file):
    """Each file is refused in one line by the pipelines of all other families."""
    named = {}
    for family in ("flux", "flux2-klein", "sd3", "qwen-image", "z-image"):
        for other in ("flux", "flux2-klein", "sd3", "qwen-image", "z-image"):
            if family != other:
                with pytest.raises(MasklessError, match="holds the denoiser of .*; name the model that it") as caught:
                    check_transformer(gguf_file(family), family_folder(other))
                assert "\n" not in str(caught.value)
                named[family] = str(caught.value).split("denoiser of ")[1].split(" (")[0]
    assert len(set(named.values())) == len(MARKS)


def test_a_variant_of_the_same_family_is_one_line_that_says_so(family_folder, gguf_file):
    with pytest.raises(MasklessError, match=r"x_embedder.weight.*\[32, 16\].* of another variant of FLUX.1") as caught:
        check_transformer(gguf_file("flux"), family_folder("flux-fill"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "original", "lacking", "named"),
    [
        ("flux", False, "proj_out.weight", "lacks"),
        ("qwen-image", False, "proj_out.weight", "lacks 1 weights, the first is proj_out.weight"),
        ("z-image", True, "cap_embedder.1.bias", "lacks 1 weights, the first is cap_embedder.1.bias"),
        ("flux2-klein", True, "img_in.weight", "lacks 1 weights, the first is x_embedder.weight"),
        ("sd3", True, "x_embedder.proj.bias", "lacks weights, the first is x_embedder.proj.bias"),
    ],
)
def test_a_weight_that_the_file_lacks_is_named(family_folder, tmp_path, family, original, lacking, named):
    weights = transformer_weights(family_folder(family))
    weights = original_names(family, weights) if original else weights
    del weights[lacking]
    path = write_gguf(tmp_path / "lacks.gguf", weights)
    with pytest.raises(MasklessError, match=named) as caught:
        check_transformer(path, family_folder(family))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_unet_and_a_pipeline_with_one_are_one_line(family_folder, gguf_file, tmp_path):
    unet = write_gguf(tmp_path / "sd15.gguf", {"input_blocks.0.0.weight": torch.zeros(4, 32)}, architecture="sd1")
    with pytest.raises(MasklessError, match="holds a UNet .* which diffusers does not read from GGUF"):
        check_transformer(unet, family_folder("flux"))
    with pytest.raises(MasklessError, match="StableDiffusionPipeline in .* has a UNet; name one of FLUX"):
        check_transformer(gguf_file("flux"), family_folder("sd"))
    text = write_gguf(tmp_path / "t5.gguf", {"enc.blk.0.attn_q.weight": torch.zeros(4, 32)}, architecture="t5encoder")
    with pytest.raises(MasklessError, match=r"holds no denoiser that is known here \(architecture t5encoder\)"):
        check_transformer(text, family_folder("flux"))


def test_a_format_that_diffusers_does_not_read_is_named(family_folder, tmp_path):
    weights = transformer_weights(family_folder("qwen-image"))
    weights["txt_in.weight"] = torch.nn.functional.pad(weights["txt_in.weight"], (0, 240))
    path = write_gguf(tmp_path / "tq.gguf", weights, kind="TQ1_0")
    with pytest.raises(MasklessError, match="stores txt_in.weight as TQ1_0, which diffusers does not read; use a file"):
        check_transformer(path, family_folder("qwen-image"))


def test_a_folder_needs_no_weights_of_its_own_transformer(family_editor, family_folder, gguf_file, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(family_folder("z-image"), folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    index = {"weight_map": {"proj": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    from maskless.models.sources import fetch_models

    beside = family_editor("z-image").models.names
    options = ModelOptions(
        models=str(folder), dino=beside["dino"], clip=beside["clip"], transformer=str(gguf_file("z-image"))
    )
    assert set(fetch_models(options)) == {"inpainting", "dino", "clip", "transformer"}
    with_file(folder, gguf_file("z-image"))


def test_flux_at_its_real_width_is_read_under_the_names_of_its_authors(family_folder, tmp_path):
    """diffusers reads these names at this width only, so the tiny models cannot have them."""
    settings = json.loads((family_folder("flux-fill") / "transformer" / "config.json").read_text())
    settings |= {
        "in_channels": 384, "out_channels": 64, "attention_head_dim": 128, "num_attention_heads": 24,
        "joint_attention_dim": 4096, "pooled_projection_dim": 768, "axes_dims_rope": [16, 56, 56],
    }  # fmt: skip
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(settings))
    index = {"_class_name": "FluxFillPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    check_transformer(write_large_flux(tmp_path / "fill.gguf", double=1, single=1), tmp_path)
    with pytest.raises(MasklessError, match="short.gguf lacks all blocks of one kind"):
        check_transformer(write_large_flux(tmp_path / "short.gguf", double=1, single=0), tmp_path)
    with pytest.raises(MasklessError, match=r"x_embedder.weight.*\[3072, 64\].* of another variant of FLUX.1"):
        check_transformer(write_large_flux(tmp_path / "dev.gguf", double=1, single=1, in_channels=64), tmp_path)
