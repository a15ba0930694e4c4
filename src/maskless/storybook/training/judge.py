"""The training of the judge, which detects the objects of a picture and recognises its background and style.

The judge measures edits that CLIP chose, so it must not share CLIP's mistakes: its architecture (a convolutional
detector of object centres, after CenterNet, arXiv 1904.07850), its scenes (the second half of the training seeds) and
its augmentations are other ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from maskless.storybook.judge import STRIDE, Judge, JudgeNet, Verdict, iou, match_objects
from maskless.storybook.training.loop import Run
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.edits import LARGE, choose_other, with_new_textures
from maskless.storybook.world.graph import COLOURS, KINDS, TEXTURES, sample
from maskless.storybook.world.scenes import JUDGE_OFFSET, Scene, draw, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor
from maskless.storybook.world.styles import STYLES

BATCH = 24
LEARNING_RATE = 1.5e-3
FIRST_SEED = JUDGE_OFFSET
OTHER_STYLE = 0.3  # share of all scenes that get a random style other than a flat drawing
NEW_TEXTURES = 0.6  # share of all scenes whose large objects get random textures
EXPORT = "judge"
SIDE = 128
CELLS = SIDE // STRIDE  # along the output maps


def build(run: Run) -> nn.ModuleDict:
    """A new network."""
    return nn.ModuleDict({"judge": JudgeNet().to(memory_format=torch.channels_last)})  # type: ignore[call-overload]


def example(seed: int) -> dict[str, Tensor]:
    """The picture [3, 128, 128] in [0, 1] of a scene, with its targets."""
    rng, graph = np.random.default_rng(seed), sample(seed)
    if rng.random() < OTHER_STYLE:
        graph = graph.with_style(choose_other(tuple(STYLES), "flat", rng))
    if rng.random() < NEW_TEXTURES:
        graph = with_new_textures(graph, rng)
    scene = draw(graph, SIDE)
    return {"image": to_tensor(scene.image), **targets(scene)}


def targets(scene: Scene) -> dict[str, Tensor]:
    """What the network should answer for a scene, on maps of [CELLS, CELLS].

    heat [1, h, w]: 1 at the centres of the objects and a Gaussian around them. kind, colour and texture [h, w]: their
    numbers at and near the centres, -1 elsewhere. box [4, h, w]: distances from the cell's centre to the left, top,
    right and bottom edge, in cells, at and near the centres. whole [2]: the numbers of background and style.
    """
    heat = torch.zeros(1, CELLS, CELLS)
    kind, colour, texture = (torch.full((CELLS, CELLS), -1) for _ in range(3))
    box = torch.zeros(4, CELLS, CELLS)
    grid = torch.arange(CELLS) + 0.5
    for item in scene.objects:
        x0, y0, x1, y1 = (v / STRIDE for v in item.box_xyxy)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        column, row = min(int(cx), CELLS - 1), min(int(cy), CELLS - 1)
        sigma = max(0.6, 0.1 * max(x1 - x0, y1 - y0))
        gaussian = torch.exp(-(((grid - cx)[None] ** 2) + (grid - cy)[:, None] ** 2) / (2 * sigma**2))
        heat[0] = torch.maximum(heat[0], gaussian)
        heat[0, row, column] = 1.0
        near = gaussian > 0.6
        near[row, column] = True
        kind[near], colour[near], texture[near] = (
            KINDS.index(item.kind),
            list(COLOURS).index(item.colour),
            TEXTURES.index(item.texture),
        )
        ys, xs = torch.nonzero(near, as_tuple=True)
        box[:, ys, xs] = torch.stack([grid[xs] - x0, grid[ys] - y0, x1 - grid[xs], y1 - grid[ys]])
    whole = torch.tensor([list(BACKGROUNDS).index(scene.graph.background), list(STYLES).index(scene.graph.style)])
    return {"heat": heat, "kind": kind, "colour": colour, "texture": texture, "box": box, "whole": whole}


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Focal loss of the centres; near them cross-entropy of kinds, colours and textures and L1 of the log distances.

    To these the cross-entropy of background and style is added.
    """
    out = model["judge"](_augment(batch["image"], generator))
    heat, logit = batch["heat"], out["heat"].float()
    chance = logit.sigmoid()
    positive = (heat == 1.0).float()
    focal = -positive * (1 - chance) ** 2 * F.logsigmoid(logit) - (1 - positive) * (
        1 - heat
    ) ** 4 * chance**2 * F.logsigmoid(-logit)
    total = focal.sum() / positive.sum().clamp_min(1)
    for name in ("kind", "colour", "texture"):
        total = total + F.cross_entropy(out[name].float(), batch[name], ignore_index=-1)
    inside = (batch["kind"] >= 0)[:, None].expand_as(batch["box"])
    error = (out["box"].float() - batch["box"].clamp_min(0.1).log())[inside].abs().mean()
    whole = F.cross_entropy(out["background"].float(), batch["whole"][:, 0]) + F.cross_entropy(
        out["style"].float(), batch["whole"][:, 1]
    )
    return total + 2 * error + 0.3 * whole


def _augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """Random defects such as edited pictures have: blur, loss of resolution, noise, a colour cast, other contrast."""
    count, device = len(image), image.device
    draws = torch.rand(8, count, 1, 1, 1, generator=generator, device=device)
    kernel = torch.tensor([1.0, 2.0, 1.0], device=device)
    kernel = (kernel[:, None] * kernel[None] / 16).expand(3, 1, 3, 3)
    soft = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    coarse = F.interpolate(F.interpolate(image, scale_factor=0.5, mode="area"), scale_factor=2, mode="bilinear")
    out = torch.where(draws[0] < 0.25, soft, torch.where(draws[0] > 0.88, coarse, image))
    cast = (torch.rand(count, 3, 1, 1, generator=generator, device=device) - 0.5) * 0.06
    noise = torch.randn(image.shape, generator=generator, device=device) * 0.04 * draws[2]
    return ((out - 0.5) * (0.92 + 0.16 * draws[3]) + 0.5 + cast + noise).clamp(0, 1)


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """Shares of objects, backgrounds, styles and textures recognised in 150 validation scenes; a sheet of detections.

    "extra" counts the detections that lie on no object, for each true object.
    """
    judge = Judge(cast(JudgeNet, model["judge"]))
    rng = np.random.default_rng(0)
    scenes = [draw(with_new_textures(sample(split_seed("validation", i)), rng), SIDE) for i in range(150)]
    pairs = list(zip(judge.detect([scene.image for scene in scenes]), scenes, strict=True))
    total = sum(len(scene.objects) for scene in scenes)
    matches = [match_objects(verdict.objects, scene.objects) for verdict, scene in pairs]
    figures = {
        "objects": sum(match.right for match in matches) / total,
        "extra": sum(match.extra for match in matches) / total,
        "background": float(np.mean([verdict.background == scene.graph.background for verdict, scene in pairs])),
        "style": float(np.mean([verdict.style == scene.graph.style for verdict, scene in pairs])),
        **{f"texture {name}": _share_named(name, pairs) for name in TEXTURES},
    }
    pictures = []
    for verdict, scene in pairs[:16]:
        picture = scene.image.copy()
        for item in verdict.objects:
            ImageDraw.Draw(picture).rectangle(item.box_xyxy, outline=COLOURS[item.colour])
            ImageDraw.Draw(picture).text(item.box_xyxy[:2], item.kind, fill=(0, 0, 0))
        pictures.append(to_tensor(picture))
    return figures, sheet([torch.stack(pictures[:8]), torch.stack(pictures[8:])])


def _share_named(texture: str, pairs: Sequence[tuple[Verdict, Scene]]) -> float:
    """Share of the large objects of a texture that the judge detects, with the right kind and texture."""
    named = [
        any(
            (detected.kind, detected.texture) == (item.kind, texture) and iou(detected.box_xyxy, item.box_xyxy) >= 0.5
            for detected in verdict.objects
        )
        for verdict, scene in pairs
        for item in scene.objects
        if item.texture == texture and scene.graph.objects[item.index].size > LARGE
    ]
    return float(np.mean(named))


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that Judge.from_pretrained opens."""
    Judge(cast(JudgeNet, model["judge"])).save(models / "judge")


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported weights."""
    model["judge"].load_state_dict(Judge.from_pretrained(models / EXPORT).net.state_dict())
