"""The inpainter: a UNet on the autoencoder's latents that fills a hole with what a text describes.

It is trained at 96 x 96 pixels (24 x 24 latents) on windows of scenes, by v-prediction (arXiv 2202.00512) with a larger
weight inside the hole. Its text encoder starts as CLIP's and is trained too; a second loss keeps every word of a text
recognisable in its output.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from maskless.data.errors import MasklessError
from maskless.storybook.training import autoencoder
from maskless.storybook.training.clip import WORDS, words_in, words_loss
from maskless.storybook.training.loop import Run, remove_origin, set_float32_dtype
from maskless.storybook.world.edits import choose_other, facing_one_way, with_new_textures, with_weighted_kinds
from maskless.storybook.world.graph import COLOURS, KINDS, sample
from maskless.storybook.world.holes import random_hole, window_of
from maskless.storybook.world.scenes import draw, render, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor
from maskless.storybook.world.styles import STYLES

BATCH = 8  # scenes, each with two holes, each with two noises
NOISES = 2  # per hole: drawing and encoding a window costs as much as the UNet's pass
LEARNING_RATE = 5e-4
OUTER_LAYERS = ("conv_in", "conv_out", "token_embedding", "position_embedding", "words")
FIRST_SEED = 275_000_000
SIDE = 96
OTHER_STYLE = 0.15  # share of all scenes that get a random style other than a flat drawing
NEW_TEXTURES = 0.2  # share of all scenes whose large objects get random textures
NEW_KINDS = 0.8  # share of all scenes whose objects get kinds by KIND_WEIGHTS
KIND_WEIGHTS = dict.fromkeys(("fish", "cake", "bird", "snail", "apple"), 6.0) | dict.fromkeys(
    ("umbrella", "house", "flower", "star", "tent", "rocket"), 2.0
)
"""How often a kind is shown, relative to the others: more often if the critic calls few of its drawings right."""
ONE_WAY = 0.85  # share of all scenes in which no object is mirrored: a text does not say which way a fish should face,
# and an inpainter that has seen both ways draws a mixture of them
WORDS_WEIGHT = 0.1  # of the loss that keeps words recognisable
EXPORT = "inpainting/unet"
STEPS, GUIDANCE = 5, 3.0  # more steps are no better (docs/training-log.md)
SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}
_frozen: dict[str, Any] = {}  # the autoencoder, which is not trained here
_tokenizer: list[CLIPTokenizer] = []


def build(run: Run) -> nn.ModuleDict:
    """A new UNet, CLIP's text encoder, and a head that predicts words from its output.

    Raises:
        MasklessError: the autoencoder or CLIP has not been trained yet.
    """
    if (
        not (run.models / "clip" / "config.json").is_file()
        or not (run.models / "inpainting" / "vae" / "config.json").is_file()
    ):
        raise MasklessError(f"{run.models}: train the autoencoder and clip first; the inpainter works on their outputs")
    _frozen["vae"] = autoencoder.load(run.models).to(run.device, memory_format=torch.channels_last)
    if run.compile:
        _frozen["vae"].encoder.compile()
    _tokenizer[:] = [CLIPTokenizer.from_pretrained(run.models / "clip")]
    clip = CLIPModel.from_pretrained(run.models / "clip", torch_dtype=torch.float32)
    text = CLIPTextModel(clip.config.text_config)
    text.load_state_dict(
        {k.removeprefix("text_model."): v for k, v in clip.state_dict().items() if k.startswith("text_model.")}
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 4,
        in_channels=9,
        out_channels=4,
        block_out_channels=(128, 160, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=clip.config.text_config.hidden_size,
        attention_head_dim=(4, 5, 6),
        norm_num_groups=16,
        addition_embed_type="text",  # adds the pooled text to the time embedding: kinds are learned sooner
        addition_embed_type_num_heads=3,
    )
    words = nn.Linear(clip.config.text_config.hidden_size, len(WORDS))
    nn.init.zeros_(words.weight)  # so that an untrained head sends no gradients into the trained text encoder
    return nn.ModuleDict({"unet": unet, "text": text, "words": words})


def tokenize(texts: list[str]) -> Tensor:
    """Token ids [N, 32]."""
    tokens = _tokenizer[0]
    return tokens(
        texts, padding="max_length", truncation=True, max_length=tokens.model_max_length, return_tensors="pt"
    ).input_ids


def example(seed: int) -> dict[str, Tensor]:
    """Two windows of one scene: image [2, 3, 96, 96] in [0, 1], mask [2, 1, 96, 96], ids [2, 32], words [2, W]."""
    rng = np.random.default_rng(seed)
    graph, size = sample(seed), int(rng.integers(128, 289))
    if rng.random() < OTHER_STYLE:
        graph = graph.with_style(choose_other(tuple(STYLES), "flat", rng))
    if rng.random() < NEW_KINDS:
        graph = with_weighted_kinds(graph, KIND_WEIGHTS, rng)
    if rng.random() < ONE_WAY:
        graph = facing_one_way(graph)
    if rng.random() < NEW_TEXTURES:
        graph = with_new_textures(graph, rng)
    scene = draw(graph, size)
    images, masks, texts = [], [], []
    for _ in range(2):
        hole = random_hole(scene, rng)
        images.append(to_tensor(scene.image.crop(hole.window).resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
        mask = (
            Image.fromarray(hole.mask.astype(np.uint8) * 255)
            .crop(hole.window)
            .resize((SIDE, SIDE), Image.Resampling.NEAREST)
        )
        masks.append(torch.from_numpy(np.array(mask) > 127)[None].float())
        texts.append("" if rng.random() < 0.1 else hole.text)
    words = torch.stack([words_in(text) for text in texts])
    return {"image": torch.stack(images), "mask": torch.stack(masks), "ids": tokenize(texts), "words": words}


def add_noise(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a random time for each of the scaled latents [N, 4, h, w] and add the noise of that time.

    Returns the times [N], the noisy latents, and the target v = a eps - s z_0 of the prediction, where a is
    sqrt(alpha_bar) and s is sqrt(1 - alpha_bar).
    """
    device, count = clean.device, len(clean)
    noise = torch.randn(clean.shape, generator=generator, device=device)
    share = (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count
    logits = torch.special.ndtri(share.clamp(1e-4, 1 - 1e-4)) * 1.2 + 0.9
    time = logits.sigmoid().mul(1000).long()[torch.randperm(count, generator=generator, device=device)]
    alphas = _alphas_cumprod().to(device)
    signal, sigma = (scale[time][:, None, None, None] for scale in (alphas.sqrt(), (1 - alphas).sqrt()))
    return time, signal * clean + sigma * noise, signal * noise - sigma * clean


@cache
def _alphas_cumprod() -> Tensor:
    return DPMSolverMultistepScheduler(**SCHEDULE).alphas_cumprod


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """E ||v - v_theta(z_t, mask, masked image, text)||^2, weighted four times inside the hole; v = a eps - s z_0.

    To it the loss is added of the words that a head predicts from the text encoder's output.
    """
    image, mask, ids, words = (batch[key].flatten(0, 1) for key in ("image", "mask", "ids", "words"))
    vae = _frozen["vae"]
    with torch.no_grad():
        both = torch.cat([image, image * (mask < 0.5) + 0.5 * mask]) * 2 - 1
        latents = vae.encode(both.contiguous(memory_format=torch.channels_last)).latents.float().contiguous()
        clean, masked = (latents * vae.config.scaling_factor).chunk(2)
    small = F.interpolate(mask, size=clean.shape[-2:])
    text = model["text"](ids)
    clean, masked, small, hidden = (
        each.repeat(NOISES, *(1,) * (each.ndim - 1)) for each in (clean, masked, small, text.last_hidden_state)
    )
    time, noisy, target = add_noise(clean, generator)
    predicted = model["unet"](torch.cat([noisy, small, masked], dim=1), time, hidden).sample.float()
    weight = 1 + 3 * small
    filling = ((predicted - target).square() * weight).mean() / weight.mean()
    return filling + WORDS_WEIGHT * words_loss(model, text, words)


def pipeline(model: nn.ModuleDict) -> StableDiffusionInpaintPipeline:
    """The pipeline of diffusers with the networks in training."""
    parts = {"vae": _frozen["vae"], "text_encoder": model["text"], "tokenizer": _tokenizer[0], "unet": model["unet"]}
    return StableDiffusionInpaintPipeline(**parts, **stock_parts())  # type: ignore[arg-type]


def stock_parts() -> dict[str, DPMSolverMultistepScheduler | bool | None]:
    """What a pipeline of diffusers takes beside the networks."""
    return {
        "scheduler": DPMSolverMultistepScheduler(**SCHEDULE),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """No figures, but a sheet: windows of ten validation scenes, and their holes filled by ten prompts, a row each."""
    pipe = pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(0)
    crops: list[Image.Image] = []
    masks: list[Image.Image] = []
    index = 0
    while len(crops) < 10:
        scene = render(split_seed("validation", index))
        index += 1
        if not scene.objects or scene.graph.style != "flat" and len(crops) not in (3, 6):
            continue
        x0, y0, x1, y1 = scene.objects[0].box_xyxy
        margin = (max(x1 - x0, y1 - y0) - min(x1 - x0, y1 - y0)) // 2
        grow_x, grow_y = (3, 3 + margin) if x1 - x0 > y1 - y0 else (3 + margin, 3)
        box = (max(0, x0 - grow_x), max(0, y0 - grow_y), min(128, x1 + grow_x), min(128, y1 + grow_y))
        window = window_of(box, 128, 1.6, rng)
        mask = Image.new("L", (128, 128))
        mask.paste(255, box)
        crops.append(scene.image.crop(window).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        masks.append(mask.crop(window).resize((SIDE, SIDE), Image.Resampling.NEAREST))
    rows = [torch.stack([to_tensor(c) for c in crops])]
    prompts = [
        "a red car",
        "a blue house",
        "a pink flower",
        "a yellow star",
        "a black cat",
        "an orange fish",
        "a green pine",
        f"a purple {KINDS[-1]}",
        f"a {tuple(COLOURS)[8]} snail",
        "nothing",
    ]
    for prompt in prompts:
        out = pipe(
            [prompt] * len(crops),
            crops,
            masks,
            height=SIDE,
            width=SIDE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(i) for i in range(len(crops))],
            output_type="pt",
        )
        rows.append(torch.stack(list(out.images.float())))
    return errors(model), sheet(rows)


def errors(model: nn.ModuleDict, scenes: int = 24) -> dict[str, float]:
    """The mean squared error of the predicted latents in the holes of validation scenes, at five times."""
    drawn = [example(split_seed("validation", 30_000 + index)) for index in range(scenes)]
    image, mask, ids = (torch.cat([scene[key] for scene in drawn]) for key in ("image", "mask", "ids"))
    vae = _frozen["vae"]
    clean, masked = (
        (vae.encode(each * 2 - 1).latents.float() * vae.config.scaling_factor)
        for each in (image, image * (mask < 0.5) + 0.5 * mask)
    )
    small = F.interpolate(mask, size=clean.shape[-2:])
    text = model["text"](ids).last_hidden_state
    figures = {}
    for each in (199, 399, 599, 799, 999):
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(each))
        alpha = _alphas_cumprod()[each]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        inputs, time = torch.cat([noisy, small, masked], dim=1), torch.full((len(clean),), each)
        parts = torch.arange(len(clean)).split(8)
        v = torch.cat([model["unet"](inputs[part], time[part], text[part]).sample for part in parts]).float()
        predicted = alpha.sqrt() * noisy - (1 - alpha).sqrt() * v
        figures[f"error t={each}"] = float(((predicted - clean).square() * small).sum() / small.sum() / clean.shape[1])
    return figures


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that StableDiffusionInpaintPipeline.from_pretrained opens, the UNet in shards under 15 MiB."""
    save(pipeline(model), models, "inpainting", {"steps": STEPS, "guidance_scale": GUIDANCE})


def save(
    pipe: StableDiffusionInpaintPipeline | StableDiffusionInstructPix2PixPipeline,
    models: Path,
    name: str,
    advice: dict[str, Any],
) -> None:
    """Write copies of a pipeline's networks in 16 bits and the exported autoencoder into the folder `name` of `models`.

    `advice` holds the settings that the model works best with; it goes into maskless.json. The pipeline holds the
    copies afterwards.
    """
    folder = models / name
    unet = UNet2DConditionModel.from_config(pipe.unet.config)
    unet.load_state_dict(pipe.unet.state_dict())
    text = CLIPTextModel(pipe.text_encoder.config)
    text.load_state_dict(pipe.text_encoder.state_dict())
    pipe.register_modules(vae=autoencoder.load(models).half(), unet=unet.half(), text_encoder=text.half())
    pipe.save_pretrained(folder, max_shard_size="14MB")
    set_float32_dtype(folder / "text_encoder")
    for part in ("vae", "unet"):
        remove_origin(folder / part)
    (folder / "maskless.json").write_text(json.dumps(advice, indent=2))


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported weights into the networks; of another architecture they are refused (see `loop.train`)."""
    folder = models / "inpainting"
    for name, kind, part in (("unet", UNet2DConditionModel, "unet"), ("text", CLIPTextModel, "text_encoder")):
        model[name].load_state_dict(kind.from_pretrained(folder / part, torch_dtype=torch.float32).state_dict())
