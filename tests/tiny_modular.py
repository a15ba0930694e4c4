"""Tiny random modular pipelines, in the format that their real weights come in: modular_model_index.json and a folder
for each part."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tiny_families import QWEN_SPECIAL, _flow_scheduler, _klein, _qwen, _qwen_tokenizer

NATIVE_PX = 64
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template like Qwen-VL's, in which a message may have pictures."""


def build_modular_family(name: str, folder: Path) -> Path:
    """Write the modular pipeline of that name; the same bytes every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind, parts = BUILDERS[name](folder)
    index: dict[str, object] = {"_class_name": kind, "_diffusers_version": "0.42.1"}
    for part, component in parts.items():
        library, named = ("transformers", component) if isinstance(component, str) else _class_of(component)
        if not isinstance(component, str):
            component.save_pretrained(folder / part)
        spec = {"pretrained_model_name_or_path": f"somebody/{name}", "subfolder": part, "type_hint": [library, named]}
        index[part] = [library, named, spec]
    folder.joinpath("modular_model_index.json").write_text(json.dumps(index), encoding="utf-8")
    advice = {"steps": 2, "native_px": NATIVE_PX}
    folder.joinpath("maskless.json").write_text(json.dumps(advice), encoding="utf-8")
    return folder


def _class_of(component: object) -> tuple[str, str]:
    return type(component).__module__.split(".")[0], type(component).__name__


def _processor(folder: Path) -> str:
    """Qwen3-VL's processor, as its files lie in a folder; it cannot be made without torchvision, which videos need."""
    tokenizer = _qwen_tokenizer(folder)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen3VLProcessor", "patch_size": 4,
        "temporal_patch_size": 2, "merge_size": 2, "size": {"shortest_edge": 64, "longest_edge": 32 * 32},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return "Qwen3VLProcessor"


def _special_ids(tokenizer) -> dict[str, int]:
    assert "<|image_pad|>" in QWEN_SPECIAL
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start",
             "vision_end_token_id": "vision_end"}  # fmt: skip
    return {field: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for field, name in names.items()}


def _sight(**settings) -> dict:
    return {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "out_hidden_size": 16,
        "num_position_embeddings": 64, **settings,
    }  # fmt: skip


def _reader(tokenizer):
    """FLUX.3's text encoder: its states after eight of 32 layers are used."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 32,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    config = Qwen3VLConfig(
        text_config=text, vision_config=_sight(deepstack_visual_indexes=[0]), **_special_ids(tokenizer)
    )
    return Qwen3VLForConditionalGeneration(config)


def _upsampler(tokenizer):
    """FLUX.3's prompt upsampler, with weights by which it answers every request with the letter a."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 16384,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 1, "linear_num_value_heads": 2,
        "layer_types": ["linear_attention", "full_attention"], "eos_token_id": _id(tokenizer, "<|im_end|>"),
    }  # fmt: skip
    config = Qwen3_5Config(text_config=text, vision_config=_sight(), **_special_ids(tokenizer))
    model = Qwen3_5ForConditionalGeneration(config)
    model.generation_config.eos_token_id = _id(tokenizer, "<|im_end|>")
    for name, weight in model.named_parameters():
        if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight")) and "language_model" in name:
            weight.data.zero_()  # a token's state is its embedding alone
    embedding, head = model.get_input_embeddings().weight.data, model.lm_head.weight.data
    head.zero_()
    for number, (letter, next_letter) in enumerate((("Ċ", "a"), ("a", "<|im_end|>"))):
        embedding[_id(tokenizer, letter)] = 0
        embedding[_id(tokenizer, letter), number] = 1
        head[_id(tokenizer, next_letter), number] = 1
    return model


def _id(tokenizer, token: str) -> int:
    return tokenizer.convert_tokens_to_ids(token)


def _flux3(folder: Path, distilled: bool = False, upsampler: bool = True):
    from diffusers import AutoencoderKLFlux2, Flux3Transformer2DModel

    tokenizer = _qwen_tokenizer(folder / "tokenizer")
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1, norm_num_groups=2, latent_channels=4,
        sample_size=NATIVE_PX,
    )  # fmt: skip
    transformer = Flux3Transformer2DModel(
        in_channels=16, cond_in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=8 * 16, timestep_channels=16, axes_dims_rope=(4, 4, 4, 4),
        flow_map=distilled,
    )  # fmt: skip
    parts = {
        "transformer": transformer, "vae": vae, "scheduler": _flow_scheduler(use_dynamic_shifting=True),
        "text_encoder": _reader(tokenizer), "tokenizer": _processor(folder / "tokenizer"),
    }  # fmt: skip
    if upsampler:
        parts |= {"prompt_upsampler": _upsampler(tokenizer),
                  "prompt_upsampler_processor": _processor(folder / "prompt_upsampler_processor")}  # fmt: skip
    return ("Flux3DistilledModularPipeline" if distilled else "Flux3ModularPipeline"), parts


def _of_standard(kind: str, pipeline: object):
    """The modular pipeline with the parts of a pipeline of the usual kind."""
    return kind, {name: part for name, part in pipeline.components.items() if part is not None}


BUILDERS = {
    "flux3": _flux3,
    "flux3-distilled": lambda folder: _flux3(folder, distilled=True),
    "flux3-without-upsampler": lambda folder: _flux3(folder, upsampler=False),
    "qwen-image": lambda folder: _of_standard("QwenImageModularPipeline", _qwen(folder)),
    "flux2-klein": lambda folder: _of_standard("Flux2KleinModularPipeline", _klein(folder)),
}
