"""The redrawer: InstructPix2Pix (arXiv 2211.09800), which redraws a picture as a text describes it.

It starts from the inpainter's UNet and learns from pairs of pictures that differ in one respect: the style of the whole
picture, or the texture of one object. Its autoencoder and its text encoder are the inpainter's and are not trained.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from maskless.data.errors import MasklessError
from maskless.storybook.training import autoencoder
from maskless.storybook.training.inpainting import add_noise, save, stock_parts
from maskless.storybook.training.loop import Run
from maskless.storybook.world.captions import STYLE_WORDS, describe_object, describe_scene, with_style
from maskless.storybook.world.edits import LARGE, Window, choose_other, graph_of_window
from maskless.storybook.world.graph import TEXTURES, SceneGraph, sample
from maskless.storybook.world.holes import window_of
from maskless.storybook.world.scenes import Scene, VisibleObject, draw, render, split_seed
from maskless.storybook.world.sheets import sheet
from maskless.storybook.world.styles import BLOCKS, STYLES

BATCH = 4  # scenes, each with two windows
LEARNING_RATE = 4e-4
SIDE = 128  # twice the inpainter's: at this side the autoencoder loses little (docs/training-log.md)
OUTER_LAYERS = ("conv_in", "conv_out")
FIRST_SEED = 300_000_000
EXPORT = "redraw/unet"
STEPS, GUIDANCE = 5, 2.0
# how it refines what the inpainter has drawn
REFINEMENT = {"steps": 5, "guidance_scale": 2.0, "strength": 0.2, "keep_unchanged": True}
STYLE_SHARE = 0.35  # of the scenes with large objects, the share whose style changes; in the others textures change
DOUBLE_SIZE = 0.2  # share of the scenes drawn at twice the usual size
WITHOUT_TEXT = 0.1  # share of the pairs without a text, which guidance needs
_frozen: dict[str, Any] = {}  # the inpainter's autoencoder and text encoder
_tokenizer: list[CLIPTokenizer] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One window of a scene before and after a change, and a text that describes it afterwards."""

    before: Image.Image
    after: Image.Image
    window: Window
    text: str


def build(run: Run) -> nn.ModuleDict:
    """A UNet made from the inpainter's.

    Raises:
        MasklessError: the inpainter has not been trained yet.
    """
    folder = run.models / "inpainting"
    if not (folder / "unet" / "config.json").is_file():
        raise MasklessError(f"{run.models}: train the inpainter first; the redrawer starts from it")
    _frozen["vae"] = autoencoder.load(run.models).to(run.device, memory_format=torch.channels_last)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    _frozen["text"] = text.to(run.device).eval().requires_grad_(False)
    _tokenizer[:] = [CLIPTokenizer.from_pretrained(folder / "tokenizer")]
    return nn.ModuleDict({"unet": from_inpainter(UNet2DConditionModel.from_pretrained(folder / "unet"))})


def from_inpainter(inpainter: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same UNet without the mask's channel: it predicts what the inpainter predicts where the mask is 1 everywhere.

    The latents of the given picture are not scaled, as in InstructPix2Pix.
    """
    config = {k: v for k, v in inpainter.config.items() if not k.startswith("_")}
    unet = UNet2DConditionModel.from_config(config | {"in_channels": 8})
    weights = {name: value.float() for name, value in inpainter.state_dict().items()}
    first = weights["conv_in.weight"]
    noisy, mask, given = first.split([4, 1, 4], dim=1)
    weights["conv_in.weight"] = torch.cat([noisy, given * float(_frozen["vae"].config.scaling_factor)], dim=1)
    weights["conv_in.bias"] = weights["conv_in.bias"] + mask.sum(dim=(1, 2, 3))
    unet.load_state_dict(weights)
    return unet


def example(seed: int) -> dict[str, Tensor]:
    """Two pairs of one scene: before, after [2, 3, 128, 128] uint8, ids [2, 32]."""
    rng = np.random.default_rng(seed)
    graph, size = sample(seed), int(rng.integers(96, 161)) * (2 if rng.random() < DOUBLE_SIZE else 1)
    pairs = pairs_of(graph, size, rng)
    texts = ["" if rng.random() < WITHOUT_TEXT else pair.text for pair in pairs]
    before, after = _windows(pairs)
    tokens = _tokenizer[0]
    ids = tokens(texts, padding="max_length", truncation=True, max_length=tokens.model_max_length, return_tensors="pt")
    return {"before": before, "after": after, "ids": ids.input_ids}


def pairs_of(graph: SceneGraph, size: int, rng: np.random.Generator) -> list[Pair]:
    """Two windows of one scene in which either the style changes, or the texture of one object."""
    large = [index for index, item in enumerate(graph.objects) if item.size > LARGE]
    if not large or rng.random() < STYLE_SHARE:
        return _style_pairs(graph, size, rng)
    return _texture_pairs(graph, size, rng)


def _style_pairs(graph: SceneGraph, size: int, rng: np.random.Generator) -> list[Pair]:
    """The whole picture in another style, rarely in the same one; mostly a flat drawing gets another style."""
    was = "flat" if rng.random() < 0.8 else str(rng.choice(tuple(STYLES)))
    becomes = was if rng.random() < 0.05 else choose_other(tuple(STYLES), was, rng)
    before, after = draw(graph.with_style(was), size), draw(graph.with_style(becomes), size)
    pairs = []
    for _ in range(2):
        window = _tile(size, rng)
        described = graph_of_window(after, window, least=0.5) if rng.random() < 0.3 else after.graph
        text = describe_scene(described, rng) if rng.random() < 0.85 else ""
        if not any(word in text for word in STYLE_WORDS[becomes]):
            text = with_style(text, becomes, rng).removeprefix(", ").removesuffix(" of ")
        pairs.append(Pair(before=before.image, after=after.image, window=window, text=text))
    return pairs


def _texture_pairs(graph: SceneGraph, size: int, rng: np.random.Generator) -> list[Pair]:
    """One object in another texture, rarely in the same one; everything around it stays."""
    if rng.random() < 0.25:
        graph = graph.with_style(str(rng.choice(tuple(STYLES))))
    changed = graph
    for index, item in enumerate(graph.objects):
        was = "plain" if rng.random() < 0.7 else item.texture
        becomes = was if rng.random() < 0.05 else choose_other(TEXTURES, was, rng)
        graph = graph.replace_object(index, texture=was)
        changed = changed.replace_object(index, texture=becomes)
    before, after = draw(graph, size), draw(changed, size)
    large = [item for item in before.objects if graph.objects[item.index].size > LARGE] or list(before.objects)
    return [_texture_pair(before, after, large[int(rng.integers(len(large)))], rng) for _ in range(2)]


def _texture_pair(before: Scene, after: Scene, item: VisibleObject, rng: np.random.Generator) -> Pair:
    """A window around one object, or on a part of it, in which only this object changes as it does in `after`."""
    wanted = after.graph.objects[item.index]
    words = " ".join(word for word in (wanted.colour, wanted.texture, wanted.kind) if word)
    text = f"{'an' if words[0] in 'aeiou' else 'a'} {words}" if rng.random() < 0.8 else describe_object(wanted, rng)
    if wanted.texture not in text:
        text = f"{wanted.texture} {wanted.kind}"
    if after.graph.style != "flat" and rng.random() < 0.5:
        text = with_style(text, after.graph.style, rng)
    alone = before.image.copy()
    alone.paste(after.image, mask=Image.fromarray(item.mask.astype(np.uint8) * 255))
    side, box = before.image.width, item.box_xyxy
    whole = rng.random() < 0.9
    window = window_of(box, side, float(rng.uniform(1.1, 2.0)), rng) if whole else _part_of(box, side, rng)
    return Pair(before=before.image, after=alone, window=window, text=text)


def _tile(side: int, rng: np.random.Generator) -> Window:
    """Mostly a window of about 64 pixels on the grid of pixel art's blocks, else any square.

    The editor redraws a picture at twice its size in such tiles (engine/tiles.py). In a picture of the usual size a
    tile is half the side wide, and a block is two cells of the latents.
    """
    if rng.random() < 0.7:
        width = side // (2 if side < 1.5 * SIDE else 4)
        x, y = (int(v) * side // BLOCKS for v in rng.integers(0, (side - width) * BLOCKS // side + 1, 2))
    else:
        width = int(rng.uniform(0.3, 1.0) * side)
        x, y = (int(v) for v in rng.integers(0, side - width + 1, 2))
    return x, y, x + width, y + width


def _part_of(box: Window, side: int, rng: np.random.Generator) -> Window:
    """A square window on a part of an object, with its centre anywhere in the object's box."""
    width = int(rng.uniform(0.22, 0.45) * side)
    x, y = (
        int(np.clip(rng.uniform(low, high) - width / 2, 0, side - width))
        for low, high in ((box[0], box[2]), (box[1], box[3]))
    )
    return x, y, x + width, y + width


def _windows(pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """The windows before and after the change, each [N, 3, 128, 128] uint8.

    Bytes take a quarter of the memory of floats, also on the way from the processes that draw them.
    """

    def cut(picture: Image.Image, window: Window) -> Tensor:
        array = np.array(picture.crop(window).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        return torch.from_numpy(array).permute(2, 0, 1)

    before = torch.stack([cut(pair.before, pair.window) for pair in pairs])
    return before, torch.stack([cut(pair.after, pair.window) for pair in pairs])


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """E ||v - v_theta(z_t, before, text)||^2, weighted four times where the pair differs; v = a eps - s z_0."""
    before, after, ids = (batch[key].flatten(0, 1) for key in ("before", "after", "ids"))
    before, after = before.float() / 255, after.float() / 255
    vae = _frozen["vae"]
    with torch.no_grad():
        both = (torch.cat([before, after]) * 2 - 1).contiguous(memory_format=torch.channels_last)
        given, clean = vae.encode(both).latents.float().contiguous().chunk(2)
        clean = clean * vae.config.scaling_factor
        text = _frozen["text"](ids).last_hidden_state
    changed = F.adaptive_max_pool2d((before - after).abs().amax(dim=1, keepdim=True), clean.shape[-2:]) > 0.04
    time, noisy, target = add_noise(clean, generator)
    predicted = model["unet"](torch.cat([noisy, given], dim=1), time, text).sample.float()
    weight = 1 + 3 * changed.float()
    return ((predicted - target).square() * weight).mean() / weight.mean()


def pipeline(model: nn.ModuleDict) -> StableDiffusionInstructPix2PixPipeline:
    """The pipeline of diffusers with the networks in training."""
    parts = {"vae": _frozen["vae"], "text_encoder": _frozen["text"], "tokenizer": _tokenizer[0], "unet": model["unet"]}
    return StableDiffusionInstructPix2PixPipeline(**parts, **stock_parts())  # type: ignore[arg-type]


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """No figures, but a sheet: windows of validation scenes, what they should become, and what they become."""
    pipe = pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    pairs = [pair for index in range(6) for pair in pairs_of(render(split_seed("validation", index)).graph, 128, rng)]
    before, after = (windows.float() / 255 for windows in _windows(pairs))
    out = pipe(
        [pair.text for pair in pairs],
        image=before,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        image_guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(i) for i in range(len(pairs))],
        output_type="pt",
    )
    return {}, sheet([before, after, torch.stack(list(out.images.float()))])


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that StableDiffusionInstructPix2PixPipeline.from_pretrained opens, in shards under 15 MiB."""
    advice = {"steps": STEPS, "guidance_scale": GUIDANCE, "native_px": SIDE, "refine": REFINEMENT}
    save(pipeline(model), models, "redraw", advice)


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported UNet and the text encoder that it was trained with, which may no longer be the inpainter's.

    Weights of another architecture are refused (see `loop.train`).
    """
    unet = UNet2DConditionModel.from_pretrained(models / EXPORT, torch_dtype=torch.float32)
    model["unet"].load_state_dict(unet.state_dict())
    text = CLIPTextModel.from_pretrained(models / "redraw" / "text_encoder", torch_dtype=torch.float32)
    _frozen["text"].load_state_dict(text.state_dict())
