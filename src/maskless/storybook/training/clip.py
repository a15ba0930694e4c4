"""CLIP: pictures and captions in one embedding space, trained on scenes and windows, with edits as hard negatives.

Beside the contrastive loss there are two classification losses: each patch token of a picture predicts what covers the
patch, and each text embedding predicts which words the text holds. Their heads are not exported. They shorten the
training from hours to minutes, and keep the text encoder, which the inpainter uses too, from forgetting kinds in favour
of colours (docs/training-log.md).
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

from maskless.storybook.training.loop import Run, set_float32_dtype
from maskless.storybook.training.tokenizer import CONTEXT, build_tokenizer
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.captions import describe_change, describe_object, describe_scene, plural, with_style
from maskless.storybook.world.edits import Window, graph_of_window, random_edit, window_around
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, SceneGraph, sample
from maskless.storybook.world.scenes import Scene, draw, render, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor

BATCH = 24  # examples of five pairs each
LEARNING_RATE = 1.2e-3
OUTER_LAYERS = ("embedding", "projection", "patches", "words")
FIRST_SEED = 100_000_000
PAIR_WEIGHT = 1.0  # weight of the contrast between a scene and its edited version
EXPORT = "clip"
SIDE, PATCH = 128, 16
CELLS = SIDE // PATCH
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
# What a caption can name, each with its plural if it has one; a style is recognised by a word that no other style has.
WORDS = (
    *((kind, plural(kind)) for kind in KINDS),
    *((word,) for word in (*COLOURS, *TEXTURES, *BACKGROUNDS, "empty", "pencil", "watercolour", "pixel")),
)
_tokenizer: CLIPTokenizer | None = None


def build(run: Run) -> nn.ModuleDict:
    """CLIP, and the two heads of the classification losses."""
    global _tokenizer
    exported = run.models / EXPORT
    # Exported weights keep their tokenizer: a new one may number the words differently once the captions have changed.
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
    patches = nn.Sequential(nn.LayerNorm(192), nn.Linear(192, len(KINDS) + len(COLOURS) + 2))
    return nn.ModuleDict({"clip": clip, "patches": patches, "words": nn.Linear(192, len(WORDS))})


def _tokens() -> CLIPTokenizer:
    """The exported tokenizer or, before anything is built, a new one."""
    global _tokenizer
    if _tokenizer is None:
        _tokenizer = build_tokenizer()
    return _tokenizer


def tokenize(texts: list[str]) -> Tensor:
    """Token ids [N, 32]."""
    return _tokens()(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids


def example(seed: int) -> dict[str, Tensor]:
    """Five pairs of picture and text: a scene, its edited version, and three windows of them.

    image [5, 3, 128, 128] in [0, 1], cover [5, 2, CELLS, CELLS], ids [5, 32], words [5, W] and label [5]. Pairs of the
    same label mean the same and are not each other's negatives.
    """
    rng = np.random.default_rng(seed)
    size = int(rng.integers(128, 192))
    graph = sample(seed)
    scenes = [draw(graph, size), draw(random_edit(graph, rng), size)]
    pictures, covers, texts, labels = [], [], [], []
    # Both are described in the same wording, so that the captions differ only in what changed.
    for scene, text in zip(scenes, describe_change(graph, scenes[1].graph, int(rng.integers(2**31))), strict=True):
        pictures.append(_resize(scene.image))
        covers.append(_cover(scene, (0, 0, size, size)))
        texts.append(text)
        labels.append(_label(scene.graph, whole=True))
    for _ in range(3):
        scene = scenes[int(rng.integers(2))]
        window = _random_window(scene, rng)
        inside = graph_of_window(scene, window)
        pictures.append(_resize(scene.image.crop(window)))
        covers.append(_cover(scene, window))
        texts.append(_describe_window(inside, rng))
        labels.append(_label(inside, whole=False))
    return {
        "image": torch.stack(pictures),
        "cover": torch.stack(covers),
        "ids": tokenize(texts),
        "words": torch.stack([words_in(text) for text in texts]),
        "label": torch.tensor(labels),
    }


def words_in(text: str) -> Tensor:
    """Which of WORDS a caption contains, [W] of 0 and 1."""
    contained = set(text.replace(",", " ").split())
    return torch.tensor([float(not contained.isdisjoint(forms)) for forms in WORDS])


def _cover(scene: Scene, window: Window) -> Tensor:
    """What covers each patch of a window: numbers of kind and colour [2, CELLS, CELLS].

    Where no object covers a patch, they are len(KINDS) and len(COLOURS).
    """
    shares = [
        np.asarray(
            Image.fromarray(t.mask.astype(np.uint8) * 255).crop(window).resize((CELLS, CELLS), Image.Resampling.BOX)
        )
        for t in scene.objects
    ]
    most = np.stack([np.full((CELLS, CELLS), 80), *shares]).argmax(axis=0)  # an object counts from 31 % of a patch on
    kinds = [len(KINDS), *(KINDS.index(t.kind) for t in scene.objects)]
    colours = [len(COLOURS), *(list(COLOURS).index(t.colour) for t in scene.objects)]
    return torch.from_numpy(np.stack([np.array(kinds)[most], np.array(colours)[most]]))


def _random_window(scene: Scene, rng: np.random.Generator) -> Window:
    """Mostly a window around an object, else a random square."""
    side = scene.image.width
    if scene.objects and rng.random() < 0.88:
        item = scene.objects[int(rng.integers(len(scene.objects)))]
        return window_around(item, side, rng, tight=bool(rng.random() < 0.4))
    width = int(rng.integers(side // 6, side))
    x, y = (int(v) for v in rng.integers(0, side - width + 1, 2))
    return x, y, x + width, y + width


def _describe_window(graph: SceneGraph, rng: np.random.Generator) -> str:
    """A caption of what a window shows: of a single object mostly without its background."""
    if len(graph.objects) != 1 or rng.random() < 0.25:
        return describe_scene(graph, rng)
    text = describe_object(graph.objects[0], rng)
    return with_style(text, graph.style, rng) if graph.style != "flat" and rng.random() < 0.3 else text


def _label(graph: SceneGraph, whole: bool) -> int:
    """A number that is the same for the same objects, and in a `whole` scene the same background and style."""
    objects = sorted((item.kind, item.colour, item.texture if whole else "") for item in graph.objects)
    return zlib.crc32(repr((objects, (graph.background, graph.style) if whole or not objects else "")).encode())


def _resize(image: Image.Image) -> Tensor:
    """A square picture as [3, 128, 128] in [0, 1]."""
    return to_tensor(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """The contrastive loss of all pairs, that of each scene and its edit, and the losses of patches and words.

    Pairs of the same label or of the same text are left out of each other's negatives. A scene and its edited version
    are the hardest to tell apart, so they get a loss of their own.
    """
    image, ids, label = (batch[key].flatten(0, 1) for key in ("image", "ids", "label"))
    out = model["clip"](input_ids=ids, pixel_values=_augment(image, generator) * 2 - 1)
    logits = out.logits_per_image.float()
    same = (label[:, None] == label[None]) | (ids[:, None] == ids[None]).all(dim=2)
    logits = logits.masked_fill(same & ~torch.eye(len(label), dtype=torch.bool, device=label.device), float("-inf"))
    first = torch.arange(0, len(label), batch["label"].shape[1], device=label.device)
    edits = torch.stack([first, first + 1], dim=1)
    pairs = logits[edits[:, :, None], edits[:, None, :]]
    contrast = _symmetric_cross_entropy(logits[None]) + PAIR_WEIGHT * _symmetric_cross_entropy(pairs)
    patches = model["patches"](out.vision_model_output.last_hidden_state[:, 1:]).float().flatten(0, 1)
    kind, colour = batch["cover"].flatten(0, 1).flatten(2).transpose(0, 1).flatten(1)
    guesses = patches.split([len(KINDS) + 1, len(COLOURS) + 1], dim=1)
    return (
        contrast
        + F.cross_entropy(guesses[0], kind)
        + F.cross_entropy(guesses[1], colour)
        + words_loss(model, out.text_model_output, batch["words"].flatten(0, 1))
    )


def _symmetric_cross_entropy(logits: Tensor) -> Tensor:
    """CLIP's loss: cross-entropy over texts and over pictures of logits [B, n, n], right pairs on the diagonal."""
    target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return (F.cross_entropy(logits.transpose(1, 2), target) + F.cross_entropy(logits, target)) / 2


def words_loss(model: nn.ModuleDict, text: BaseModelOutputWithPooling, words: Tensor) -> Tensor:
    """Cross-entropy of the words [N, W] of a text, predicted from its embedding and from its last padding token."""
    pooled, last = (
        4 * F.binary_cross_entropy_with_logits(model["words"](token).float(), words)
        for token in (text.pooler_output, text.last_hidden_state[:, -1])
    )
    return pooled + last


def _augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """A small random change of each picture's brightness and contrast, and a little noise."""
    gain, lift = (torch.rand(2, len(image), 1, 1, 1, generator=generator, device=image.device) - 0.5) * 0.16
    noise = torch.randn(image.shape, generator=generator, device=image.device) * 0.02
    return (image * (1 + gain) + lift + noise).clamp(0, 1)


def after_step(model: nn.ModuleDict, step: int) -> None:
    """Limit the scale of the logits to 100, as CLIP's authors do."""
    with torch.no_grad():
        clip: CLIPModel = model["clip"]
        clip.logit_scale.clamp_(max=4.6052)


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """Zero-shot classification of crops, retrieval of captions, and preference for the edited scene; and some crops.

    "crops": share of objects whose kind and colour are found among all combinations; "retrieval": share of 100 scenes
    whose caption is found among 100; "preferred": share of edits whose prompt fits the edited scene better than the
    source.
    """
    clip = model["clip"]
    scenes = [render(split_seed("validation", i)) for i in range(300)]
    rng = np.random.default_rng(0)
    objects = [(scene, item) for scene in scenes[:150] for item in scene.objects]
    crops = torch.stack(
        [_resize(scene.image.crop(window_around(item, 128, rng, tight=True))) for scene, item in objects]
    )
    names = [(kind, colour) for kind in KINDS for colour in COLOURS]
    texts = _text_features(clip, [f"a {c} {k}" for k, c in names])
    found = [names[int(i)] for i in (_image_features(clip, crops) @ texts.T).argmax(dim=1)]
    right = [pair == (item.kind, item.colour) for pair, (_, item) in zip(found, objects, strict=True)]
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


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that CLIPModel, CLIPTokenizer and CLIPImageProcessor open, the weights in 16 bits."""
    folder = models / EXPORT
    copy = CLIPModel(model["clip"].config)
    copy.load_state_dict(model["clip"].state_dict())
    copy.half().save_pretrained(folder)
    set_float32_dtype(folder)
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


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported weights; the heads, which are not exported, start with new ones."""
    model["clip"].load_state_dict(CLIPModel.from_pretrained(models / EXPORT, torch_dtype=torch.float32).state_dict())
