"""The judge: a detector that says which objects a picture shows, where, in which colour, and in which place and style.

It is used by evaluation only. Its architecture (a convolutional network that marks object centres, after CenterNet,
arXiv 1904.07850), its scenes (the second half of the training seeds) and its augmentations are not those of CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional as F

from maskless.storybook.judge import STRIDE, Judge, JudgeNet, Verdict, iou, match_objects
from maskless.storybook.training.loop import Run
from maskless.storybook.world.backgrounds import BACKGROUNDS
from maskless.storybook.world.edits import LARGE, other, retextured
from maskless.storybook.world.scenes import COLOURS, JUDGE_OFFSET, KINDS, TEXTURES, Scene, draw, sample, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor
from maskless.storybook.world.styles import STYLES

BATCH = 24
LEARNING_RATE = 1.5e-3
FIRST_SEED = JUDGE_OFFSET
OTHER_MANNER = 0.3  # share of the scenes, beside those that are no flat drawings anyway, which get another manner
RETEXTURED = 0.6  # share of the scenes whose large objects get textures anew
EXPORT = "judge"
SIDE = 128
CELLS = SIDE // STRIDE


def build(run: Run) -> nn.Module:
    return nn.ModuleDict({"judge": JudgeNet()}).to(memory_format=torch.channels_last)


def example(seed: int) -> dict[str, Tensor]:
    """A scene with its targets on the grid of centres."""
    rng, graph = np.random.default_rng(seed), sample(seed)
    if rng.random() < OTHER_MANNER:
        graph = graph.with_style(other(tuple(STYLES), "flat", rng))
    if rng.random() < RETEXTURED:
        graph = retextured(graph, rng)
    scene = draw(graph, SIDE)
    return {"image": to_tensor(scene.image), **targets(scene)}


def targets(scene: Scene) -> dict[str, Tensor]:
    """heat [1, h, w]: 1 at the centres and a Gaussian around; the rest at the centre cells only, -1 elsewhere.

    box [4, h, w]: distances from the cell's centre to the left, top, right and bottom edge, in cells.
    """
    heat = torch.zeros(1, CELLS, CELLS)
    kind, colour, texture = (torch.full((CELLS, CELLS), -1) for _ in range(3))
    box = torch.zeros(4, CELLS, CELLS)
    grid = torch.arange(CELLS) + 0.5
    for thing in scene.objects:
        x0, y0, x1, y1 = (v / STRIDE for v in thing.box_xyxy)
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        column, row = min(int(cx), CELLS - 1), min(int(cy), CELLS - 1)
        sigma = max(0.6, 0.1 * max(x1 - x0, y1 - y0))
        spread = torch.exp(-(((grid - cx)[None] ** 2) + (grid - cy)[:, None] ** 2) / (2 * sigma**2))
        heat[0] = torch.maximum(heat[0], spread)
        heat[0, row, column] = 1.0
        near = spread > 0.6
        near[row, column] = True
        kind[near], colour[near], texture[near] = (
            KINDS.index(thing.kind),
            list(COLOURS).index(thing.colour),
            TEXTURES.index(thing.texture),
        )
        ys, xs = torch.nonzero(near, as_tuple=True)
        box[:, ys, xs] = torch.stack([grid[xs] - x0, grid[ys] - y0, x1 - grid[xs], y1 - grid[ys]])
    place = torch.tensor([list(BACKGROUNDS).index(scene.graph.background), list(STYLES).index(scene.graph.style)])
    return {"heat": heat, "kind": kind, "colour": colour, "texture": texture, "box": box, "place": place}


def loss(model: nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Focal loss on the centres; cross-entropy and L1 (of log distances) where there is an object."""
    out = model["judge"](_augmented(batch["image"], generator))
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
    place = F.cross_entropy(out["background"].float(), batch["place"][:, 0]) + F.cross_entropy(
        out["style"].float(), batch["place"][:, 1]
    )
    return total + 2 * error + 0.3 * place


def _augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """What an edited picture may suffer: blur, noise, a colour cast, grey erased specks, a change of resolution."""
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


def validate(model: nn.Module) -> tuple[dict[str, float], Image.Image]:
    judge = Judge(model["judge"])
    rng = np.random.default_rng(0)
    scenes = [draw(retextured(sample(split_seed("validation", i)), rng), SIDE) for i in range(150)]
    found = judge.detect([scene.image for scene in scenes])
    pairs = list(zip(found, scenes, strict=True))
    total = sum(len(scene.objects) for scene in scenes)
    matches = [match_objects(objects.things, scene.objects) for objects, scene in pairs]
    figures = {
        "objects": sum(match.right for match in matches) / total,
        "extra": sum(match.extra for match in matches) / total,
        "background": float(np.mean([objects.background == scene.graph.background for objects, scene in pairs])),
        "style": float(np.mean([objects.style == scene.graph.style for objects, scene in pairs])),
        **{f"texture {name}": _share_named(name, pairs) for name in TEXTURES},
    }
    pictures = []
    for objects, scene in pairs[:16]:
        picture = scene.image.copy()
        for thing in objects.things:
            ImageDraw.Draw(picture).rectangle(thing.box_xyxy, outline=COLOURS[thing.colour])
            ImageDraw.Draw(picture).text(thing.box_xyxy[:2], thing.kind, fill=(0, 0, 0))
        pictures.append(to_tensor(picture))
    return figures, sheet([torch.stack(pictures[:8]), torch.stack(pictures[8:])])


def _share_named(texture: str, pairs: Sequence[tuple[Verdict, Scene]]) -> float:
    """The share of the large things of a texture which the judge sees there, of their kind and in that texture."""
    named = [
        any(
            (seen.kind, seen.texture) == (thing.kind, texture) and iou(seen.box_xyxy, thing.box_xyxy) >= 0.5
            for seen in objects.things
        )
        for objects, scene in pairs
        for thing in scene.objects
        if thing.texture == texture and scene.graph.objects[thing.index].size > LARGE
    ]
    return float(np.mean(named))


def export(model: nn.Module, models: Path) -> None:
    Judge(model["judge"]).save(models / "judge")


def restore(model: nn.Module, models: Path) -> None:
    model["judge"].load_state_dict(Judge.from_pretrained(models / EXPORT).net.state_dict())
