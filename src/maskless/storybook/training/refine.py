"""Trains the redrawer to refine: what the inpainter has drawn at 64 pixels, it draws at 128 with edges and details.

It continues from the redrawer's weights. An example is a window with a hole that the inpainter has filled, the same
window as the renderer draws it, and the text of the hole. The inpainter starts from the true latents, partly noised, so
that the layout is the true one and the edges are the inpainter's. A share of each batch consists of the redrawer's own
pairs, so that it keeps what it has learned of styles and textures. The autoencoder, the text encoder and the inpainter
are not trained.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from maskless.data.errors import MasklessError
from maskless.storybook.training import autoencoder, inpainting, redraw
from maskless.storybook.training.loop import Run
from maskless.storybook.world.edits import with_new_textures
from maskless.storybook.world.graph import sample
from maskless.storybook.world.holes import random_hole
from maskless.storybook.world.scenes import draw, split_seed
from maskless.storybook.world.sheets import sheet

BATCH = 4  # scenes, each with two windows
LEARNING_RATE = 4e-4
OUTER_LAYERS = ("conv_in", "conv_out")
EMA_DECAY = 0.995
FIRST_SEED = 340_000_000
SIDE = redraw.SIDE
SCENE_PX = (144, 288)  # range of the scenes' sides
NEW_TEXTURES = 0.2  # share of the scenes whose large objects get random textures
WITHOUT_TEXT = 0.1  # share of the holes without a text, which guidance needs
OWN_PAIRS = 0.15  # share of the scenes that give the redrawer's own pairs
STRENGTHS = (0.4, 0.6, 0.8)  # shares of its steps that the inpainter makes …
STRENGTH_SHARES = (0.35, 0.45, 0.2)  # … and how often each is drawn
NOISES = 2  # noisy latents of each pair in a batch
EXPORT = "redraw/unet"
VALIDATION_SCENES = 16
_inpainter: list[StableDiffusionInpaintPipeline] = []  # not trained here


def build(run: Run) -> nn.ModuleDict:
    """The redrawer's UNet.

    Raises:
        MasklessError: the redrawer has not been trained yet.
    """
    folder = run.models / "redraw"
    if not (folder / "unet" / "config.json").is_file():
        raise MasklessError(f"{run.models}: train the redrawer first; the training to refine continues from it")
    frozen = redraw._frozen
    frozen["vae"] = autoencoder.load(run.models).to(run.device, memory_format=torch.channels_last)
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    frozen["text"] = text.to(run.device).eval().requires_grad_(False)
    redraw._tokenizer[:] = [CLIPTokenizer.from_pretrained(folder / "tokenizer")]
    unet = UNet2DConditionModel.from_pretrained(run.models / "inpainting" / "unet", torch_dtype=torch.float32)
    parts = {
        "vae": frozen["vae"],
        "text_encoder": frozen["text"],
        "tokenizer": redraw._tokenizer[0],
        "unet": unet.to(run.device).eval().requires_grad_(False),
    }
    _inpainter[:] = [StableDiffusionInpaintPipeline(**parts, **inpainting.stock_parts())]  # type: ignore[arg-type]
    _inpainter[0].set_progress_bar_config(disable=True)
    return nn.ModuleDict({"unet": UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)})


def example(seed: int) -> dict[str, Tensor]:
    """Two windows of one scene: before, after [2, 3, 128, 128] uint8, hole [2, 1, 128, 128] bool, ids [2, 32].

    If there is a hole, before and after are the same picture, because only `loss` lets the inpainter fill it.
    """
    rng = np.random.default_rng(seed)
    if rng.random() < OWN_PAIRS:
        return redraw.example(seed) | {"hole": torch.zeros(2, 1, SIDE, SIDE, dtype=torch.bool)}
    graph, size = sample(seed), int(rng.integers(*SCENE_PX))
    scene = draw(with_new_textures(graph, rng) if rng.random() < NEW_TEXTURES else graph, size)
    images, masks, texts = [], [], []
    for _ in range(2):
        hole = random_hole(scene, rng)
        image = scene.image.crop(hole.window).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        mask = Image.fromarray(hole.mask.astype(np.uint8) * 255).crop(hole.window)
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        masks.append(torch.from_numpy(np.array(mask.resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 127)[None])
        texts.append("" if rng.random() < WITHOUT_TEXT else hole.text)
    windows = torch.stack(images)
    return {"before": windows, "after": windows, "hole": torch.stack(masks), "ids": _tokenize(texts)}


def _tokenize(texts: list[str]) -> Tensor:
    """Token ids [N, 32]."""
    tokens = redraw._tokenizer[0]
    return tokens(
        texts, padding="max_length", truncation=True, max_length=tokens.model_max_length, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def fill_holes(image: Tensor, hole: Tensor, text: Tensor, seed: int, strength: float) -> Tensor:
    """Windows [N, 3, 128, 128] in [0, 1] whose holes [N, 1, 128, 128] of 0 and 1 the inpainter fills at its own size.

    text: [N, T, C], the encoded text of each hole. strength: share of the steps that are made, above 0 and up to 1;
    below 1 the inpainter starts from the window's own latents, partly noised.
    """
    size = (inpainting.SIDE, inpainting.SIDE)
    small, mask = F.interpolate(image, size=size, mode="area"), F.adaptive_max_pool2d(hole, size)
    empty = redraw._frozen["text"](_tokenize([""]).to(image.device)).last_hidden_state.float()
    drawn = _inpainter[0](
        prompt_embeds=text,
        negative_prompt_embeds=empty.expand(len(text), -1, -1),
        image=small,
        mask_image=mask,
        height=inpainting.SIDE,
        width=inpainting.SIDE,
        strength=strength,
        num_inference_steps=inpainting.STEPS,
        guidance_scale=inpainting.GUIDANCE,
        generator=[torch.Generator().manual_seed(seed + number) for number in range(len(small))],
        output_type="pt",
    )
    pictures = torch.stack(list(drawn.images)).to(image)
    enlarged = F.interpolate(pictures, size=image.shape[-2:], mode="bicubic").clamp(0, 1)
    return torch.where(_whole_cells(hole) > 0, enlarged, image)


def _whole_cells(hole: Tensor) -> Tensor:
    """Holes [N, 1, 128, 128] with every cell of the inpainter's latents that they touch, because it draws whole
    cells."""
    cells = F.adaptive_max_pool2d(hole, inpainting.SIDE // 4)
    return F.interpolate(cells, size=hole.shape[-2:], mode="nearest-exact")


@cache
def _alphas_cumprod() -> Tensor:
    return DPMSolverMultistepScheduler(**inpainting.SCHEDULE).alphas_cumprod


def noised_at(clean: Tensor, time: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The noisy latents of scaled latents [N, 4, h, w] at times [N], and the target v = a eps - s z_0."""
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    alphas = _alphas_cumprod().to(clean.device)
    signal, sigma = (scale[time][:, None, None, None] for scale in (alphas.sqrt(), (1 - alphas).sqrt()))
    return signal * clean + sigma * noise, signal * noise - sigma * clean


def stratified_times(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Times [N] in 0..999 in random order, one from each of N equal parts of a normal distribution of their logits."""
    share = (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count
    logits = torch.special.ndtri(share.clamp(1e-4, 1 - 1e-4)) * 1.3
    return logits.sigmoid().mul(1000).long()[torch.randperm(count, generator=generator, device=device)]


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """E ||v - v_theta(z_t, before, text)||^2, weighted four times in the hole or where the pair differs."""
    before, after, hole, ids = (batch[key].flatten(0, 1) for key in ("before", "after", "hole", "ids"))
    before, after, hole = before.float() / 255, after.float() / 255, hole.float()
    with torch.no_grad():
        text = redraw._frozen["text"](ids).last_hidden_state.float()
        filled = hole.flatten(1).any(dim=1)
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        chosen = torch.multinomial(torch.tensor(STRENGTH_SHARES), 1, generator=torch.Generator().manual_seed(seed))
        if bool(filled.any()):
            before[filled] = fill_holes(before[filled], hole[filled], text[filled], seed, STRENGTHS[int(chosen)])
        given, clean = encoded(before, after)
    changed = F.adaptive_max_pool2d((before - after).abs().amax(dim=1, keepdim=True), clean.shape[-2:]) > 0.04
    inside = F.adaptive_max_pool2d(hole, clean.shape[-2:])
    heavy = torch.where(filled[:, None, None, None], inside, changed.float())
    given, clean, heavy, text = (each.repeat(NOISES, *(1,) * (each.ndim - 1)) for each in (given, clean, heavy, text))
    time = stratified_times(len(clean), generator, clean.device)
    noisy, target = noised_at(clean, time, generator)
    predicted = model["unet"](torch.cat([noisy, given], dim=1), time, text).sample.float()
    weight = 1 + 3 * heavy
    return ((predicted - target).square() * weight).mean() / weight.mean()


def encoded(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """The latents of pictures in [0, 1]: of `before` unscaled, as the UNet gets them, and of `after` scaled."""
    vae = redraw._frozen["vae"]
    both = (torch.cat([before, after]) * 2 - 1).contiguous(memory_format=torch.channels_last)
    given, clean = vae.encode(both).latents.float().contiguous().chunk(2)
    return given, clean * vae.config.scaling_factor


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """The errors of the predicted latents in the holes of validation scenes at several times, and a sheet: holes that
    the inpainter has filled from pure noise, what becomes of them, and the truth."""
    rows = [example(split_seed("validation", 20_000 + index)) for index in range(VALIDATION_SCENES)]
    device = redraw._frozen["vae"].device
    image, hole, ids = (
        torch.cat([row[key] for row in rows if row["hole"].any()]).to(device) for key in ("after", "hole", "ids")
    )
    image, hole = image.float() / 255, hole.float()
    text = redraw._frozen["text"](ids).last_hidden_state.float()
    before = fill_holes(image, hole, text, 0, 0.6)
    given, clean = encoded(before, image)
    small = F.adaptive_max_pool2d(hole, clean.shape[-2:])
    figures = {"error filled": _error_in_hole(encoded(before, before)[1], clean, small)}
    for each in (199, 399, 599, 799, 999):
        time = torch.full((len(clean),), each, device=device)
        noisy, _ = noised_at(clean, time, torch.Generator(device).manual_seed(each))
        inputs = torch.cat([noisy, given], dim=1)
        parts = torch.arange(len(clean), device=device).split(8)
        v = torch.cat([model["unet"](inputs[part], time[part], text[part]).sample for part in parts]).float()
        signal = _alphas_cumprod()[each]
        figures[f"error t={each}"] = _error_in_hole(signal.sqrt() * noisy - (1 - signal).sqrt() * v, clean, small)
    count = 8
    filled = fill_holes(image[:count], hole[:count], text[:count], 0, 1.0)
    pipe = redraw.pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    out = pipe(
        redraw._tokenizer[0].batch_decode(ids[:count], skip_special_tokens=True),
        image=filled,
        num_inference_steps=redraw.STEPS,
        guidance_scale=redraw.GUIDANCE,
        image_guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(i) for i in range(count)],
        output_type="pt",
    )
    return figures, sheet([filled.cpu(), torch.stack(list(out.images.float())).cpu(), image[:count].cpu()])


def _error_in_hole(predicted: Tensor, clean: Tensor, hole: Tensor) -> float:
    """The mean squared error of latents [N, 4, h, w] where the hole [N, 1, h, w] is 1."""
    return float(((predicted - clean).square() * hole).sum() / hole.sum() / clean.shape[1])


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the redrawer's folder, because it is the same network."""
    redraw.export(model, models)


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the redrawer's exported weights."""
    redraw.restore(model, models)
