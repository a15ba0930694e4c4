"""The training of the critic, which tells right drawings of an object from lumps and sees which parts an object has.

An example is one object in six pictures, two of each sort: drawn right; with some of its named parts left out, faded or
blurred; and spoilt in some way (lumps.py). So neither question can be answered by the surroundings, nor that of the
parts by the kind. Right drawings get what they may have: the autoencoder's losses, mild defects, blurred surroundings,
slightly moved parts, another width.

The scenes are the judge's, the second half of the training seeds, and the network starts from the judge's lower layers.
No picture of the inpainter is among the examples, since the critic measures the inpainter.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from maskless.storybook.critic import CROP, Critic, CriticNet
from maskless.storybook.judge import Judge
from maskless.storybook.training import autoencoder, lumps
from maskless.storybook.training.loop import Run
from maskless.storybook.training.lumps import LUMPS, Specimen
from maskless.storybook.world.edits import choose_other, with_new_textures
from maskless.storybook.world.graph import KINDS, SceneGraph, sample
from maskless.storybook.world.scenes import JUDGE_OFFSET, draw, split_seed, visible_parts
from maskless.storybook.world.shapes import PARTS, SHAPES
from maskless.storybook.world.sheets import sheet
from maskless.storybook.world.styles import STYLES

BATCH = 12
LEARNING_RATE = 2e-3
OUTER_LAYERS = ("stem", "spatial", "critic.kind", "critic.right", "critic.parts")
FIRST_SEED = JUDGE_OFFSET
EXPORT = "critic"
SIDES = (96, 128, 160, 256)  # pixels along the scenes
SHARES = (0.35, 0.3, 0.25, 0.1)  # of the scenes of each size
ENCODED = 0.15, 0.03  # shares of the right drawings and of the others that go through the autoencoder
ENCODED_SIDE = 64  # pixels of such a crop: the object is as long as it is in the inpainter's window of 96
PICTURES = 6  # of each object, the first two of them right
SMUDGED_TOO = 0.3  # share of the objects without some parts that are smudged as well
OTHER_PARTS = 0.03  # weight of the parts of other kinds in the loss


def build(run: Run) -> nn.ModuleDict:
    """A new network that starts from the layers that it shares with the exported judge, and the exported autoencoder.

    The judge and the autoencoder stay as they are.
    """
    net, judge = CriticNet(), Judge.from_pretrained(run.models / "judge").net.state_dict()
    own = net.state_dict()
    net.load_state_dict(own | {name: judge[name] for name in own if name in judge})
    return nn.ModuleDict({"critic": net, "vae": autoencoder.load(run.models)})


def example(seed: int) -> dict[str, Tensor]:
    """One object in six pictures, with its targets.

    crop [6, 3, 48, 48] in [0, 1]. kind [6]: its number, -1 where it cannot be told. right [6]: 1 where it is drawn
    right, 0 where not, -1 where that is not said. parts [6, P]: 1 for a part that it has, 0 for others, with their
    weights in the loss, weight [6, P].
    """
    rng = np.random.default_rng(seed)
    specimen = random_specimen(seed, rng)
    kind = specimen.graph.objects[specimen.index].kind
    seen = visible_parts(specimen.graph, specimen.index, specimen.size)
    pictures, kinds, right = [_right(specimen, rng) for _ in range(2)], [KINDS.index(kind)] * 4, [1.0, 1.0]
    parts = [part_targets(kind, there=seen, gone=())] * 2
    for _ in range(2):
        picture, left, gone = without_some_parts(specimen, seen, rng)
        target = 0.0 if len(gone) > len(left) else -1.0 if gone else 1.0
        if gone and rng.random() < SMUDGED_TOO:
            picture, left, target = lumps.smudge(picture, specimen.length, rng), (), 0.0
        pictures.append(picture)
        right.append(target)
        parts.append(part_targets(kind, there=left, gone=gone))
    for _ in range(2):
        name = lumps.random_lump(rng)
        picture = LUMPS[name](specimen, rng)
        enough = lumps.change(specimen, picture) >= lumps.LEAST_CHANGE
        pictures.append(picture)
        kinds.append(-1 if name in lumps.WITHOUT_KIND else KINDS.index(kind))
        right.append(0.0 if enough else -1.0)
        parts.append(lump_parts(kind, name, enough))
    crops = np.stack([lumps.mild(picture, specimen.length, rng) for picture in pictures])
    return {
        "crop": torch.from_numpy(crops).permute(0, 3, 1, 2).contiguous(),
        "kind": torch.tensor(kinds),
        "right": torch.tensor(right),
        "parts": torch.stack([target for target, _ in parts]),
        "weight": torch.stack([weight for _, weight in parts]),
    }


def random_specimen(seed: int, rng: np.random.Generator) -> Specimen:
    """An object of the scene of a seed or, where that has none, of a later scene, in a window."""
    graph = sample(seed)
    while not graph.objects:
        seed += 10**6
        graph = sample(seed)
    if rng.random() < 0.15:
        graph = graph.with_style(choose_other(tuple(STYLES), "flat", rng))
    elif rng.random() < 0.8:
        graph = graph.with_style("flat")
    if rng.random() < 0.25:
        graph = with_new_textures(graph, rng)
    index = len(graph.objects) - 1 if rng.random() < 0.5 else int(rng.integers(len(graph.objects)))
    return specimen_of(graph, index, int(rng.choice(SIDES, p=SHARES)), rng)


def specimen_of(graph: SceneGraph, index: int, size: int, rng: np.random.Generator) -> Specimen:
    """An object in a window that is about as far around it as the critic's crops, wider or higher by up to a tenth."""
    item = next(item for item in draw(graph, size).objects if item.index == index)
    x0, y0, x1, y1 = item.box_xyxy
    longer = max(x1 - x0, y1 - y0, 4)
    sides = np.minimum(longer * rng.uniform(1.12, 1.55) * np.exp(rng.normal(0, 0.04, 2)), size)
    corner = np.array([x0 + x1, y0 + y1]) / 2 - sides / 2 + rng.uniform(-0.07, 0.07, 2) * longer
    left, top = np.clip(corner, 0, size - sides)
    window = (float(left), float(top), float(left + sides[0]), float(top + sides[1]))
    mask = Image.fromarray(item.mask.astype(np.uint8) * 255).resize((CROP, CROP), Image.Resampling.BOX, box=window)
    return Specimen(
        graph=graph,
        index=index,
        size=size,
        window=window,
        mask=np.asarray(mask, dtype=np.float32) / 255,
        length=float(longer * CROP / max(sides)),
    )


def _right(specimen: Specimen, rng: np.random.Generator) -> np.ndarray:
    """A right drawing: its parts moved by up to some hundredths, or what is around it blurred."""
    strength = rng.uniform(0, 0.02) if rng.random() < 0.4 else 0.0
    picture = specimen.drawn(lumps.jittered(specimen.polygons, strength, rng)) if strength else specimen.right
    if rng.random() < 0.3:
        behind = lumps.blur(specimen.behind, rng.uniform(0.5, 3.0))
        own = np.clip(lumps.blur(specimen.mask, 0.7) * 3, 0, 1)
        picture = lumps.mixed(behind, picture, own)
    return picture


def without_some_parts(
    specimen: Specimen, seen: dict[str, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Some of the visible parts left out, nearly faded, or blurred: the picture, the names left, and those gone."""
    names = list(seen)
    if not names:
        return _right(specimen, rng), (), ()
    count = len(names) if rng.random() < 0.15 else int(rng.integers(1, len(names) + 1))
    gone = tuple(str(name) for name in rng.choice(names, count, replace=False))
    whole, choice = specimen.right, rng.random()
    if choice < 0.75:
        picture = specimen.drawn([part for part in specimen.polygons if part.name not in gone])
        picture = lumps.mixed(picture, whole, np.full((CROP, CROP), rng.uniform(0, 0.25))) if choice < 0.2 else picture
    else:
        masks = [np.asarray(Image.fromarray(seen[name]).resize((CROP, CROP), 0, box=specimen.window)) for name in gone]
        near = np.clip(lumps.blur(np.any(masks, axis=0).astype(np.float32), 1.2) * 3, 0, 1)
        picture = lumps.mixed(whole, lumps.blur(whole, specimen.length * rng.uniform(0.1, 0.16)), near)
    return picture, tuple(name for name in names if name not in gone), gone


def lump_parts(kind: str, name: str, enough: bool) -> tuple[Tensor, Tensor]:
    """The targets [P] of the parts of an object that was spoilt in a way, and their weights; enough: unmistakably."""
    gone = SHAPES[kind].named_parts if name in lumps.WITHOUT_PARTS and enough else ()
    target, weight = part_targets(kind, there=(), gone=gone)
    return target, torch.zeros(len(PARTS)) if name == "mixture" else weight


def part_targets(kind: str, *, there: Iterable[str], gone: Iterable[str]) -> tuple[Tensor, Tensor]:
    """The targets [P] of the parts and their weights [P], 0 for those of its kind that are neither there nor gone."""
    there, gone = set(there), set(gone)
    target = torch.tensor([float(name in there) for name in PARTS])
    weights = [
        1.0 if name in there | gone else 0.0 if name in SHAPES[kind].named_parts else OTHER_PARTS for name in PARTS
    ]
    return target, torch.tensor(weights)


def loss(model: nn.ModuleDict, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Cross-entropy of the kind, and the binary ones of whether it is drawn right and of the parts."""
    crop = encoded(cast(AutoencoderTiny, model["vae"]), batch["crop"].flatten(0, 1), generator)
    with torch.autocast(crop.device.type, torch.bfloat16):  # 1.7 times as fast here, also on a CPU without AMX
        out = model["critic"](crop.contiguous(memory_format=torch.channels_last))
    kind = F.cross_entropy(out["kind"].float(), batch["kind"].flatten(), ignore_index=-1)
    said = batch["right"].flatten() >= 0
    right = F.binary_cross_entropy_with_logits(out["right"].float()[said], batch["right"].flatten()[said])
    each = F.binary_cross_entropy_with_logits(
        out["parts"].float(), batch["parts"].flatten(0, 1), batch["weight"].flatten(0, 1), reduction="sum"
    )
    return kind + 2 * right + 4 * each / batch["weight"].sum().clamp_min(1)


@torch.no_grad()
def encoded(vae: AutoencoderTiny, crops: Tensor, generator: torch.Generator) -> Tensor:
    """Crops [N, 3, 48, 48] in [0, 1], a random share of them encoded and decoded at 64 pixels."""
    share = torch.full((len(crops),), ENCODED[1], device=crops.device)
    share[::PICTURES] = share[1::PICTURES] = ENCODED[0]
    chosen = torch.rand(len(crops), generator=generator, device=crops.device) < share
    if not chosen.any():
        return crops
    with torch.autocast(crops.device.type, torch.bfloat16):
        large = F.interpolate(crops[chosen], ENCODED_SIDE, mode="bicubic", antialias=True) * 2 - 1
        decoded = vae.decode(vae.encode(large).latents).sample.float() / 2 + 0.5
    out = crops.clone()
    out[chosen] = F.interpolate(decoded.clamp(0, 1), CROP, mode="bicubic", antialias=True).clamp(0, 1)
    return out


def validate(model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
    """What the critic says of objects of 120 validation scenes, and a sheet of its mistakes.

    "right" and "encoded": the share of right drawings that it calls right, also when they were encoded and decoded. By
    the names of LUMPS: the share of such lumps that it calls right. "parts found": the share of the visible parts,
    "parts imagined": of those that were left out.
    """
    critic = Critic(cast(CriticNet, model["critic"]))
    answers = Answers(critic, cast(AutoencoderTiny, model["vae"]))
    for number in range(120):
        answers.ask(number)
    return answers.figures(), answers.mistakes()


class Answers:
    """The critic's answers about validation specimens, with the truth."""

    def __init__(self, critic: Critic, vae: AutoencoderTiny) -> None:
        self.critic, self.vae = critic, vae
        self.shares: dict[str, list[float]] = {}
        self.confidences: dict[str, list[float]] = {}
        self.wrong: list[Tensor] = []

    def ask(self, number: int) -> None:
        """About one object: drawn right, encoded, without one part, and spoilt in every way."""
        seed = split_seed("validation", number)
        rng = np.random.default_rng(seed)
        specimen = random_specimen(seed, rng)
        kind = specimen.graph.objects[specimen.index].kind
        seen = visible_parts(specimen.graph, specimen.index, specimen.size)
        part = str(rng.choice(list(seen))) if seen else None
        pictures = {"right": specimen.right}
        if part is not None:
            pictures["part"] = specimen.drawn([p for p in specimen.polygons if p.name != part])
        for name, lump in LUMPS.items():
            spoilt = lump(specimen, rng)
            if lumps.change(specimen, spoilt) >= lumps.LEAST_CHANGE:
                pictures[name] = spoilt
        crops = torch.from_numpy(np.stack(list(pictures.values()))).permute(0, 3, 1, 2).float()
        large = F.interpolate(crops[:1], ENCODED_SIDE, mode="bicubic", antialias=True).clamp(0, 1) * 2 - 1
        decoded = self.vae.decode(self.vae.encode(large).latents).sample.float().clamp(-1, 1) / 2 + 0.5
        crops = torch.cat([F.interpolate(decoded, CROP, mode="bicubic", antialias=True).clamp(0, 1), crops])
        drawn, parts = self.critic.probabilities(crops)
        for name, crop, chance, has in zip(
            ["encoded", *pictures], crops, drawn[:, KINDS.index(kind)], parts, strict=True
        ):
            if name != "part":
                self.confidences.setdefault(name, []).append(float(chance))
                called = bool(chance >= self.critic.right)
                self.shares.setdefault(name, []).append(called)
                if called != (name in ("right", "encoded")):
                    self.wrong.append(crop)
            if name in ("right", "encoded"):
                self.shares.setdefault("parts found", []).extend(
                    float(has[PARTS.index(p)] >= self.critic.part) for p in seen
                )
            elif name == "part":
                self.shares.setdefault("parts imagined", []).append(float(has[PARTS.index(part)] >= self.critic.part))

    def figures(self) -> dict[str, float]:
        shares = {name: float(np.mean(values)) for name, values in self.shares.items()}
        right = self.confidences["right"] + self.confidences["encoded"]
        spoilt = [v for name, values in self.confidences.items() if name in LUMPS for v in values]
        limit = float(np.quantile(right, 0.03))
        return shares | {"threshold of 97 %": limit, "lumps above it": float(np.mean(np.array(spoilt) >= limit))}

    def mistakes(self) -> Image.Image:
        pictures = (self.wrong or [torch.ones(3, CROP, CROP)])[:48]
        return sheet([torch.stack(pictures[start : start + 16]) for start in range(0, len(pictures), 16)])


def export(model: nn.ModuleDict, models: Path) -> None:
    """Write the folder that Critic.from_pretrained opens."""
    Critic(cast(CriticNet, model["critic"])).save(models / EXPORT)


def restore(model: nn.ModuleDict, models: Path) -> None:
    """Load the exported weights."""
    model["critic"].load_state_dict(Critic.from_pretrained(models / EXPORT).net.state_dict())
