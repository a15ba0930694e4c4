"""CLIP: pictures and captions in one space, trained on scenes, on crops, and on edited pairs as hard negatives.

Beside the contrast, each patch token of the picture learns to say what covers it, and the text's embedding which words
of the world it holds. These heads are thrown away; they teach in minutes what the contrast alone takes hours to find,
and keep the text encoder, which the inpainter reads with, from forgetting kinds for the sake of colours.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling

from maskless.storybook.training.loop import Run, opened_in_float32
from maskless.storybook.training.tokenizer import CONTEXT, build_tokenizer
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.captions import describe_change, describe_object, describe_scene, plural, with_style
from maskless.storybook.world.edits import Window, random_edit, shown, window_around
from maskless.storybook.world.scenes import (
    COLOURS,
    KINDS,
    TEXTURES,
    Scene,
    SceneGraph,
    draw,
    render,
    sample,
    split_seed,
)
from maskless.storybook.world.sheets import sheet, to_tensor

BATCH = 24  # examples of five pairs each
LEARNING_RATE = 1.2e-3
OUTER_LAYERS = ("embedding", "projection", "patches", "words")
FIRST_SEED = 100_000_000
PAIR_WEIGHT = 1.0  # of telling a scene from its edited version, beside all others in the batch
EXPORT = "clip"
SIDE, PATCH = 128, 16
CELLS = SIDE // PATCH
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# What a caption can name, each with its plural where it has one; a manner by the word that it shares with no other.
WORDS = (
    *((kind, plural(kind)) for kind in KINDS),
    *((word,) for word in (*COLOURS, *TEXTURES, *BACKGROUNDS, "empty", "pencil", "watercolour", "pixel")),
)
_tokenizer: CLIPTokenizer | None = None


def build(run: Run) -> nn.Module:
    global _tokenizer
    exported = run.models / EXPORT
    # Weights that are trained on keep the words' numbers that they learned, even if the captions have changed since.
    known = (exported / "tokenizer.json").is_file()
    _tokenizer = CLIPTokenizer.from_pretrained(exported) if known else build_tokenizer()
    tokens = _tokens()
    text = {
        "vocab_size": len(tokens),
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": tokens.bos_token_id,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
        "hidden_act": "gelu",
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "image_size": SIDE,
        "patch_size": PATCH,
        "hidden_act": "gelu",
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=192))
    named = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, len(KINDS) + len(COLOURS) + 2))
    return nn.ModuleDict({"clip": clip, "patches": named, "words": nn.Linear(192, len(WORDS))})


def _tokens() -> CLIPTokenizer:
    global _tokenizer
    if _tokenizer is None:
        _tokenizer = build_tokenizer()
    return _tokenizer


def tokenize(texts: list[str]) -> Tensor:
    """Token ids [N, 32]."""
    return _tokens()(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids


def example(seed: int) -> dict[str, Tensor]:
    """Five pairs: a scene, its edited version, three windows of them; pairs of one label are not negatives."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(128, 192))
    graph = sample(seed)
    scenes = [draw(graph, size), draw(random_edit(graph, rng), size)]
    pictures, covers, texts, labels = [], [], [], []
    # The same words for both, so that the change is what differs.
    for scene, text in zip(scenes, describe_change(graph, scenes[1].graph, int(rng.integers(2**31))), strict=True):
        pictures.append(_resized(scene.image))
        covers.append(_cover(scene, (0, 0, size, size)))
        texts.append(text)
        labels.append(_label(scene.graph, whole=True))
    for _ in range(3):
        scene = scenes[int(rng.integers(2))]
        window = _random_window(scene, rng)
        inside = shown(scene, window)
        pictures.append(_resized(scene.image.crop(window)))
        covers.append(_cover(scene, window))
        texts.append(_describe_window(inside, rng))
        labels.append(_label(inside, whole=False))
    return {
        "image": torch.stack(pictures),
        "cover": torch.stack(covers),
        "ids": tokenize(texts),
        "words": torch.stack([named_words(text) for text in texts]),
        "label": torch.tensor(labels),
    }


def named_words(text: str) -> Tensor:
    """Which of WORDS a caption holds, [W] of 0 and 1."""
    said = set(text.replace(",", " ").split())
    return torch.tensor([float(not said.isdisjoint(forms)) for forms in WORDS])


def _cover(scene: Scene, window: Window) -> Tensor:
    """What covers each patch of a window: kind and colour numbers [2, CELLS, CELLS]; the last number means nothing."""
    shares = [
        np.asarray(
            Image.fromarray(t.mask.astype(np.uint8) * 255).crop(window).resize((CELLS, CELLS), Image.Resampling.BOX)
        )
        for t in scene.objects
    ]
    most = np.stack([np.full((CELLS, CELLS), 80), *shares]).argmax(axis=0)  # nothing wins below 31 % of a patch
    kinds = [len(KINDS), *(KINDS.index(t.kind) for t in scene.objects)]
    colours = [len(COLOURS), *(list(COLOURS).index(t.colour) for t in scene.objects)]
    return torch.from_numpy(np.stack([np.array(kinds)[most], np.array(colours)[most]]))


def _random_window(scene: Scene, rng: np.random.Generator) -> Window:
    side = scene.image.width
    if scene.objects and rng.random() < 0.88:
        thing = scene.objects[int(rng.integers(len(scene.objects)))]
        return window_around(thing, side, rng, tight=bool(rng.random() < 0.4))
    width = int(rng.integers(side // 6, side))
    x, y = (int(v) for v in rng.integers(0, side - width + 1, 2))
    return x, y, x + width, y + width


def _describe_window(graph: SceneGraph, rng: np.random.Generator) -> str:
    if len(graph.objects) != 1 or rng.random() < 0.25:
        return describe_scene(graph, rng)
    text = describe_object(graph.objects[0], rng)
    return with_style(text, graph.style, rng) if graph.style != "flat" and rng.random() < 0.3 else text


def _label(graph: SceneGraph, whole: bool) -> int:
    things = sorted((thing.kind, thing.colour, thing.texture if whole else "") for thing in graph.objects)
    return zlib.crc32(repr((things, (graph.background, graph.style) if whole or not things else "")).encode())


def _resized(image: Image.Image) -> Tensor:
    return to_tensor(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """CLIP's symmetric cross-entropy, pairs of the same label or text taken out of each other's negatives; the same
    within each scene and its edited version, which is the hardest to tell; and the losses of patches and words."""
    image, ids, label = (batch[key].flatten(0, 1) for key in ("image", "ids", "label"))
    out = model["clip"](input_ids=ids, pixel_values=_augmented(image, generator) * 2 - 1)
    logits = out.logits_per_image.float()
    same = (label[:, None] == label[None]) | (ids[:, None] == ids[None]).all(dim=2)
    logits = logits.masked_fill(same & ~torch.eye(len(label), dtype=torch.bool, device=label.device), float("-inf"))
    first = torch.arange(0, len(label), batch["label"].shape[1], device=label.device)
    edits = torch.stack([first, first + 1], dim=1)
    pairs = logits[edits[:, :, None], edits[:, None, :]]
    contrast = _both_ways(logits[None]) + PAIR_WEIGHT * _both_ways(pairs)
    named = model["patches"](out.vision_model_output.last_hidden_state[:, 1:]).float().flatten(0, 1)
    kind, colour = batch["cover"].flatten(0, 1).flatten(2).transpose(0, 1).flatten(1)
    guesses = named.split([len(KINDS) + 1, len(COLOURS) + 1], dim=1)
    return (
        contrast
        + F.cross_entropy(guesses[0], kind)
        + F.cross_entropy(guesses[1], colour)
        + words_loss(model, out.text_model_output, batch["words"].flatten(0, 1))
    )


def _both_ways(logits: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy of pictures and texts, [B, n, n] with the right pairs on the diagonal."""
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return (F.cross_entropy(logits.transpose(1, 2), target) + F.cross_entropy(logits, target)) / 2


def words_loss(model: nn.Module, text: BaseModelOutputWithPooling, words: Tensor) -> Tensor:
    """Cross-entropy of the words in a caption, told from its embedding and from its last padding token."""
    return sum(
        4 * F.binary_cross_entropy_with_logits(model["words"](token).float(), words)
        for token in (text.pooler_output, text.last_hidden_state[:, -1])
    )


def _augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """A little brightness, contrast and noise, each picture its own."""
    gain, lift = (torch.rand(2, len(image), 1, 1, 1, generator=generator, device=image.device) - 0.5) * 0.16
    noise = torch.randn(image.shape, generator=generator, device=image.device) * 0.02
    return (image * (1 + gain) + lift + noise).clamp(0, 1)


def after_step(model: nn.Module, step: int) -> None:
    with torch.no_grad():
        model["clip"].logit_scale.clamp_(max=4.6052)


def validate(model: nn.Module) -> tuple[dict[str, float], Image.Image]:
    """Zero-shot kind × colour of crops, retrieval among 100 scenes, and edited scenes preferred to their sources."""
    clip = model["clip"]
    scenes = [render(split_seed("validation", i)) for i in range(300)]
    rng = np.random.default_rng(0)
    things = [(scene, thing) for scene in scenes[:150] for thing in scene.objects]
    crops = torch.stack(
        [_resized(scene.image.crop(window_around(thing, 128, rng, tight=True))) for scene, thing in things]
    )
    names = [(kind, colour) for kind in KINDS for colour in COLOURS]
    texts = _text_features(clip, [f"a {c} {k}" for k, c in names])
    found = [names[int(i)] for i in (_image_features(clip, crops) @ texts.T).argmax(dim=1)]
    right = [pair == (thing.kind, thing.colour) for pair, (_, thing) in zip(found, things, strict=True)]
    whole = _image_features(clip, torch.stack([to_tensor(scene.image) for scene in scenes]))
    captions = _text_features(clip, [scene.caption for scene in scenes[:100]])
    retrieved = (whole[:100] @ captions.T).argmax(dim=1).cpu() == torch.arange(100)
    edited = [random_edit(scene.graph, np.random.default_rng(i)) for i, scene in enumerate(scenes)]
    prompts = [
        describe_change(scene.graph, graph, i)[1] for i, (scene, graph) in enumerate(zip(scenes, edited, strict=True))
    ]
    after = _image_features(clip, torch.stack([to_tensor(draw(graph).image) for graph in edited]))
    preferred = ((after - whole) * _text_features(clip, prompts)).sum(dim=1) > 0
    figures = {
        "crops": float(np.mean(right)),
        "retrieval": retrieved.float().mean().item(),
        "preferred": preferred.float().mean().item(),
    }
    return figures, sheet([crops[:10]])


def _text_features(clip: CLIPModel, texts: list[str]) -> Tensor:
    """Unit embeddings [N, D] of texts."""
    ids = tokenize(texts).to(clip.device)
    return F.normalize(clip.get_text_features(ids).pooler_output.float(), dim=-1)


def _image_features(clip: CLIPModel, images: Tensor) -> Tensor:
    """Unit embeddings [N, D] of pictures [N, 3, 128, 128] in [0, 1]."""
    parts = images.to(clip.device).split(64)
    return F.normalize(
        torch.cat([clip.get_image_features(pixel_values=part * 2 - 1).pooler_output.float() for part in parts]), dim=-1
    )


def export(model: nn.Module, models: Path) -> None:
    folder = models / "clip"
    copy = CLIPModel(model["clip"].config)
    copy.load_state_dict(model["clip"].state_dict())
    copy.half().save_pretrained(folder)
    opened_in_float32(folder)
    _tokens().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "CLIPImageProcessor",
                "do_resize": True,
                "size": {"height": SIDE, "width": SIDE},
                "do_center_crop": False,
                "crop_size": {"height": SIDE, "width": SIDE},
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "do_convert_rgb": True,
                "image_mean": list(MEAN),
                "image_std": list(STD),
                "resample": 2,
            },
            indent=2,
        )
    )


def restore(model: nn.Module, models: Path) -> None:
    model["clip"].load_state_dict(CLIPModel.from_pretrained(models / EXPORT, torch_dtype=torch.float32).state_dict())
