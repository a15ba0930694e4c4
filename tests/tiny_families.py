"""Tiny random pipelines of each inpainting family, in the format that their real weights come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from tiny_models import _text_config, _tokenizer

NATIVE_PX = 32
WORDS = ["a", "blue", "red", "house", "tree", "with", "the", "and", "of", "in", "picture"]
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip


def build_family(name: str, folder: Path) -> Path:
    """Write the pipeline of that name; the same bytes every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = BUILDERS[name](folder)
        pipeline.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    if "processor" in index:
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    advice = {"steps": 2, "native_px": NATIVE_PX}
    (folder / "maskless.json").write_text(json.dumps(advice), encoding="utf-8")
    return folder


def _vae(latent_channels: int = 4, **settings):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=latent_channels,
        sample_size=NATIVE_PX,
        **settings,
    )


def _flow_vae(latent_channels: int = 4):
    return _vae(latent_channels, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)


def _unet(in_channels: int, **settings):
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=NATIVE_PX // 2,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=4,
        **({"cross_attention_dim": 32} | settings),
    )


def _ddim():
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip


def _flow_scheduler(**settings):
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**settings)


def _sd(folder: Path, in_channels: int, kind: str = "StableDiffusionPipeline", **settings):
    import diffusers
    from transformers import CLIPTextModel

    tokenizer = _tokenizer(folder / "tokenizer")
    return getattr(diffusers, kind)(
        vae=_vae(), unet=_unet(in_channels, **settings), text_encoder=CLIPTextModel(_text_config(tokenizer)),
        tokenizer=tokenizer, scheduler=_ddim(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def _sdxl(folder: Path, in_channels: int, inpainting: bool = True):
    from diffusers import StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer, second = _tokenizer(folder / "tokenizer"), _tokenizer(folder / "tokenizer_2")
    unet = _unet(
        in_channels, cross_attention_dim=64, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 32,
    )  # fmt: skip
    kind = StableDiffusionXLInpaintPipeline if inpainting else StableDiffusionXLPipeline
    return kind(
        vae=_vae(), unet=unet, text_encoder=CLIPTextModel(_text_config(tokenizer)), tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(second)), tokenizer_2=second, scheduler=_ddim(),
    )  # fmt: skip


def _t5(folder: Path, width: int = 32):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    words = ["<pad>", "</s>", "<unk>", "▁", *WORDS]
    core = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=2))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    folder.mkdir(parents=True, exist_ok=True)
    core.save(str(folder / "tokenizer.json"))
    tokenizer = T5TokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), extra_ids=0, model_max_length=64)
    config = T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return tokenizer, T5EncoderModel(config)


def _sd3(folder: Path):
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextModelWithProjection

    first, second = _tokenizer(folder / "tokenizer"), _tokenizer(folder / "tokenizer_2")
    third, t5 = _t5(folder / "tokenizer_3", width=64)
    transformer = SD3Transformer2DModel(
        sample_size=NATIVE_PX // 2, patch_size=2, in_channels=16, out_channels=16, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, joint_attention_dim=64, caption_projection_dim=32, pooled_projection_dim=64,
        pos_embed_max_size=16,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=_flow_scheduler(), vae=_flow_vae(16),
        text_encoder=CLIPTextModelWithProjection(_text_config(first)), tokenizer=first,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(second)), tokenizer_2=second,
        text_encoder_3=t5, tokenizer_3=third,
    )  # fmt: skip


def _flux(folder: Path, kind: str, in_channels: int = 16):
    import diffusers
    from transformers import CLIPTextModel

    tokenizer = _tokenizer(folder / "tokenizer")
    second, t5 = _t5(folder / "tokenizer_2")
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=in_channels, out_channels=16, num_layers=1, num_single_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    return getattr(diffusers, kind)(
        scheduler=_flow_scheduler(use_dynamic_shifting=True), vae=_flow_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer)), tokenizer=tokenizer, text_encoder_2=t5,
        tokenizer_2=second, transformer=transformer,
    )  # fmt: skip


def _qwen_tokenizer(folder: Path):
    """A byte-level tokenizer without merges, with Qwen's special tokens and a chat template."""
    from transformers import Qwen2TokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = Qwen2TokenizerFast(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=2048
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIAL)})
    tokenizer.chat_template = CHAT
    return tokenizer


def _qwen3(tokenizer, layers: int):
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=2048,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def _klein(folder: Path):
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel

    tokenizer = _qwen_tokenizer(folder / "tokenizer")
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=2, latent_channels=4,
        sample_size=NATIVE_PX,
    )  # fmt: skip
    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    return Flux2KleinPipeline(
        scheduler=_flow_scheduler(use_dynamic_shifting=True), vae=vae, text_encoder=_qwen3(tokenizer, 28),
        tokenizer=tokenizer, transformer=transformer,
    )  # fmt: skip


def _z_image(folder: Path):
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    tokenizer = _qwen_tokenizer(folder / "tokenizer")
    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=16, axes_dims=[4, 4, 8], axes_lens=[2048, 64, 64],
    )  # fmt: skip
    return ZImagePipeline(
        scheduler=_flow_scheduler(use_dynamic_shifting=True), vae=_flow_vae(), text_encoder=_qwen3(tokenizer, 2).model,
        tokenizer=tokenizer, transformer=transformer,
    )  # fmt: skip


def _qwen_vision(tokenizer):
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in
           ("vision_start", "vision_end", "image_pad", "video_pad")}  # fmt: skip
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=ids["image_pad"], video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"], bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen(folder: Path, editing: bool = False):
    from diffusers import (
        AutoencoderKLQwenImage,
        QwenImageEditPipeline,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )

    tokenizer = _qwen_tokenizer(folder / "tokenizer")
    # The editing pipeline always works on 1024 x 1024 pixels, so its autoencoder makes few latents of them.
    levels = 6 if editing else 1
    vae = AutoencoderKLQwenImage(
        base_dim=2, z_dim=4, dim_mult=[1] * (levels + 1), num_res_blocks=0, temperal_downsample=[False] * levels,
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    # Or nothing of the latents would come through that many random layers.
    for weight in [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]:
        weight.data.mul_((4 if editing else 2) if weight.ndim > 3 else 1)
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, guidance_embeds=False, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    parts = {
        "scheduler": _flow_scheduler(use_dynamic_shifting=True), "vae": vae, "text_encoder": _qwen_vision(tokenizer),
        "tokenizer": tokenizer, "transformer": transformer,
    }  # fmt: skip
    if not editing:
        return QwenImagePipeline(**parts)
    # What Qwen2VLProcessor.save_pretrained writes; it cannot be made without torchvision, which videos need.
    (folder / "processor").mkdir()
    tokenizer.save_pretrained(folder / "processor")
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor", "size": pixels}
    (folder / "processor" / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return QwenImageEditPipeline(**parts, processor=None)


BUILDERS: dict[str, Callable[[Path], object]] = {
    "sd-inpainting": lambda folder: _sd(folder, 9, "StableDiffusionInpaintPipeline"),
    "sd": lambda folder: _sd(folder, 4),
    "instruct-pix2pix": lambda folder: _sd(folder, 8, "StableDiffusionInstructPix2PixPipeline"),
    "sdxl-inpainting": lambda folder: _sdxl(folder, 9),
    "sdxl": lambda folder: _sdxl(folder, 4, inpainting=False),
    "sd3": _sd3,
    "flux": lambda folder: _flux(folder, "FluxPipeline"),
    "flux-fill": lambda folder: _flux(folder, "FluxFillPipeline", in_channels=2 * 16 + 4 * 2 * 2),
    "flux-kontext": lambda folder: _flux(folder, "FluxKontextPipeline"),
    "flux2-klein": _klein,
    "qwen-image": _qwen,
    "qwen-image-edit": lambda folder: _qwen(folder, editing=True),
    "z-image": _z_image,
}
