"""DINO, DINOv2 with registers and SigLIP 2 from disk equal transformers' own; DINO's released file is converted."""

import json

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.models.encoders import load_clip, load_dino
from tiny_models import _preprocessor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 8}


def random_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Weights unlike those of a fresh model, where registers are zeros and layer scales ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.eval()


def normalised(image: torch.Tensor, mean=MEAN, std=STD) -> torch.Tensor:
    return ((image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))


def dino_of(kind: str):
    import transformers as tf

    if kind == "vit":
        return tf.ViTModel(tf.ViTConfig(**SIZES, intermediate_size=64), add_pooling_layer=False)
    if kind == "dinov2":
        return tf.Dinov2Model(tf.Dinov2Config(**SIZES, mlp_ratio=2))
    return tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=3))


@pytest.mark.parametrize(("kind", "first_patch"), [("vit", 1), ("dinov2", 1), ("dinov2_with_registers", 4)])
def test_dino_equals_transformers(tmp_path, image, kind, first_patch):
    """Features and the last block's attention at float32; registers are no places in the picture."""
    model = random_weights(dino_of(kind))
    model.save_pretrained(tmp_path)
    _preprocessor(tmp_path, "ViTImageProcessor", MEAN, STD, 64)
    found = load_dino(tmp_path).features(image)
    model.set_attn_implementation("eager")
    asked = {"interpolate_pos_encoding": True} if kind == "vit" else {}
    with torch.no_grad():
        output = model(pixel_values=normalised(image), output_attentions=True, **asked)
    tokens = output.last_hidden_state[0, first_patch:].reshape(8, 12, 32).permute(2, 0, 1)
    attention = output.attentions[-1][0, :, 0, first_patch:].mean(dim=0).reshape(8, 12)
    assert found.grid_yx == (8, 12)
    assert torch.allclose(found.features, tokens, atol=1e-5)
    assert torch.allclose(found.attention, attention / attention.sum(), atol=1e-5)


def released_names(model) -> dict[str, torch.Tensor]:
    """A ViT's weights as facebookresearch/dino names them."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    released = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
    }
    parts = {"embeddings.patch_embeddings.projection": "patch_embed.proj", "layernorm": "norm"}
    for number in range(model.config.num_hidden_layers):
        old, new = f"layers.{number}", f"blocks.{number}"
        parts |= {
            f"{old}.layernorm_before": f"{new}.norm1",
            f"{old}.layernorm_after": f"{new}.norm2",
            f"{old}.attention.o_proj": f"{new}.attn.proj",
            f"{old}.mlp.fc1": f"{new}.mlp.fc1",
            f"{old}.mlp.fc2": f"{new}.mlp.fc2",
        }
        for leaf in ("weight", "bias"):
            released[f"{new}.attn.qkv.{leaf}"] = torch.cat(
                [state[f"{old}.attention.{part}_proj.{leaf}"] for part in ("q", "k", "v")]
            )
    for old, new in parts.items():
        for leaf in ("weight", "bias"):
            released[f"{new}.{leaf}"] = state[f"{old}.{leaf}"]
    return released


@pytest.fixture
def released():
    """A ViT of two heads of 64, as all released ones have them, and its weights under the release's names."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        **SIZES | {"hidden_size": 128, "num_attention_heads": 2}, intermediate_size=256, layer_norm_eps=1e-6
    )
    model = random_weights(ViTModel(config, add_pooling_layer=False))
    return model, released_names(model)


@pytest.mark.parametrize("form", ["flat", "teacher", "distributed", "safetensors"])
def test_a_released_dino_is_converted(tmp_path, image, released, form):
    model, names = released
    path = tmp_path / ("dino.safetensors" if form == "safetensors" else "dino.pth")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(names, path)
    elif form == "flat":
        torch.save(names, path)
    else:
        prefix = "module.backbone." if form == "distributed" else "backbone."
        wrapped = {prefix + name: value for name, value in names.items()} | {"head.last_layer.weight_g": torch.ones(2)}
        torch.save({"student": {}, "teacher": wrapped, "epoch": 3}, path)
    dino = load_dino(path, allow_pickle=form != "safetensors")
    assert (dino.patch_px, dino.shorter_px) == (8, 64)
    with torch.no_grad():
        output = model(pixel_values=normalised(image), interpolate_pos_encoding=True)
    tokens = output.last_hidden_state[0, 1:].reshape(8, 12, 128).permute(2, 0, 1)
    assert torch.allclose(dino.features(image).features, tokens, atol=1e-5)


def test_a_released_dino_is_a_pickle_and_has_to_be_allowed(tmp_path, released):
    torch.save(released[1], tmp_path / "dino.pth")
    with pytest.raises(MasklessError, match="--allow-pickle"):
        load_dino(tmp_path / "dino.pth")


def test_weights_of_something_else_are_one_line(tmp_path, released):
    names = released[1]
    for changed in ({"layer.weight": torch.ones(2)}, {k: v for k, v in names.items() if k != "blocks.1.mlp.fc2.bias"}):
        torch.save(changed, tmp_path / "dino.pth")
        with pytest.raises(MasklessError, match="dino.pth") as caught:
            load_dino(tmp_path / "dino.pth", allow_pickle=True)
        assert "\n" not in str(caught.value)


def test_other_kinds_are_refused(tiny_models):
    with pytest.raises(MasklessError, match="must be a ViT, DINOv2 .*, got clip"):
        load_dino(tiny_models / "clip")
    with pytest.raises(MasklessError, match="must be a CLIP or a SigLIP .*, got vit"):
        load_clip(tiny_models / "dino")


@pytest.fixture
def siglip(tmp_path):
    """A folder as google/siglip2-base-patch16-224 has it: SigLIP's architecture, Gemma's tokens in small letters."""
    from transformers import SiglipConfig, SiglipModel
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Siglip2Tokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])
    tokenizer.padding_side = "right"
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config=shared | {"vocab_size": len(tokens), "max_position_embeddings": 16, "projection_size": 32},
        vision_config=shared | {"image_size": 64, "patch_size": 16},
    )
    model = random_weights(SiglipModel(config))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _preprocessor(tmp_path, "SiglipImageProcessor", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 64)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "siglip"
    return tmp_path, model, tokenizer


def test_siglip_equals_transformers(siglip):
    folder, model, tokenizer = siglip
    clip = load_clip(folder)
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ids = [*tokenizer("a red car", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    padded = torch.tensor([ids + [tokenizer.pad_token_id] * (16 - len(ids))])
    with torch.no_grad():
        output = model(input_ids=padded, pixel_values=(image - 0.5) / 0.5)
    encoding = clip.encode(image)
    assert torch.allclose(encoding.embedding, output.image_embeds, atol=1e-5)
    assert encoding.tokens.shape == (2, 16, 32)  # every patch, and no CLS token to leave out
    assert torch.allclose(clip.encode_text("A red CAR"), output.text_embeds[0], atol=1e-5)


def test_siglip_reads_long_texts_to_the_end_and_finds_relevance(siglip, picture):
    clip = load_clip(siglip[0])
    long = "a red car beside a small green house "
    assert float((clip.encode_text(long + "now") - clip.encode_text(long + "then")).norm()) > 1e-3
    assert float(clip.encode_text("").norm()) == pytest.approx(1, abs=1e-5)
    found = clip.relevance(clip.relevance_crops(picture), clip.encode_text("a red square"))
    assert float(found.min()) == 0 and float(found.max()) == pytest.approx(1)
