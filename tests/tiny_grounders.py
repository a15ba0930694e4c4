"""Tiny random grounders of each kind, in the format that their real weights come in."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tiny_models import _preprocessor, _text_config, _tokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "red", "square", "cat")


def build_grounder(kind: str, folder: Path) -> Path:
    """Write the grounder of that kind; the same bytes every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        {"owlv2": _owlv2, "grounding-dino": _grounding_dino, "clipseg": _clipseg}[kind](folder)
    return folder


def _vision(**settings) -> dict:
    return {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64,
        "patch_size": 8, **settings,
    }  # fmt: skip


def _owlv2(folder: Path) -> None:
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    tokenizer = _tokenizer(folder)
    text = _text_config(tokenizer).to_dict() | {"model_type": "owlv2_text_model"}
    config = Owlv2Config(text_config=text, vision_config=_vision(), projection_dim=32)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _preprocessor(folder, "Owlv2ImageProcessor", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 64)


def _clipseg(folder: Path) -> None:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    tokenizer = _tokenizer(folder)
    config = CLIPSegConfig(
        text_config=_text_config(tokenizer).to_dict() | {"model_type": "clipseg_text_model"}, vision_config=_vision(),
        projection_dim=32, reduce_dim=16, extract_layers=[0, 1], decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )  # fmt: skip
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _preprocessor(folder, "ViTImageProcessor", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 64)


def _grounding_dino(folder: Path) -> None:
    from transformers import BertConfig, BertTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), do_lower_case=True)
    backbone = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 2], window_size=4,
        out_features=["stage2", "stage3"],
    )  # fmt: skip
    words = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone, text_config=words, d_model=32, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=20,
        num_feature_levels=3, encoder_n_points=2, decoder_n_points=2, max_text_len=32, two_stage=True,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _preprocessor(folder, "GroundingDinoImageProcessor", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 64)
    settings = json.loads((folder / "preprocessor_config.json").read_text("utf-8"))
    settings["size"] = {"shortest_edge": 64, "longest_edge": 128}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
