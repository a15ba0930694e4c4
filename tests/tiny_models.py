"""Small random models in the same on-disk format as the bundled ones: tests go through the real loading path."""

from __future__ import annotations

import json
from pathlib import Path

import torch

CONTEXT = 32
NATIVE_PX = 64


def build_tiny_models(folder: Path) -> Path:
    """Write inpainting/, dino/ and clip/ under folder; the same bytes every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _inpainting(folder / "inpainting")
        _dino(folder / "dino")
        _clip(folder / "clip")
    return folder


def _tokenizer(folder: Path):
    """A byte-level CLIP tokenizer without merges: one token for each letter."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT)


def _text_config(tokenizer):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _inpainting(folder: Path) -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    tokenizer = _tokenizer(folder / "tokenizer")
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=NATIVE_PX,
    )
    unet = UNet2DConditionModel(
        sample_size=NATIVE_PX // 8,
        in_channels=9,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    pipeline = StableDiffusionInpaintPipeline(
        vae=vae,
        unet=unet,
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            prediction_type="v_prediction",
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def _dino(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=64,
        patch_size=4,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    _preprocessor(folder, "ViTImageProcessor", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 64)


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    tokenizer = _tokenizer(folder)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        projection_dim=32,
    )
    config = CLIPConfig(
        text_config=_text_config(tokenizer).to_dict(), vision_config=vision.to_dict(), projection_dim=32
    )
    CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _preprocessor(folder, "CLIPImageProcessor", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 64)


def _preprocessor(folder: Path, kind: str, mean: tuple, std: tuple, size: int) -> None:
    settings = {
        "image_processor_type": kind,
        "image_mean": list(mean),
        "image_std": list(std),
        "size": {"height": size, "width": size},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")


def build_tiny_preview(folder: Path, *, latent_channels: int = 4, levels: int = 4) -> Path:
    """Write a small autoencoder of random weights as the repository of TAESD lies: in diffusers' format, with each half
    beside it. Each level but one halves the sides."""
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file

    widths = (4,) * levels
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = AutoencoderTiny(
            encoder_block_out_channels=widths, decoder_block_out_channels=widths, num_encoder_blocks=(1,) * levels,
            num_decoder_blocks=(1,) * levels, latent_channels=latent_channels,
        )  # fmt: skip
    network.save_pretrained(folder)
    for half in ("encoder", "decoder"):
        save_file(getattr(network, half).state_dict(), str(folder / f"taesd_{half}.safetensors"))
    return folder
