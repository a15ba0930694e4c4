"""The suite `models`: what the bundled networks can do, on scenes that none of them has seen.

Each gate is one function from the loaded models and scene seeds to rows; to add one, write it and name it in `GATES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskless.data.boxes import context_window
from maskless.data.config import EditConfig
from maskless.data.masks import window_mask
from maskless.data.paste import crop_window, met, paste_back
from maskless.evaluation.measures.rows import Row, mean_row, share_row
from maskless.method.anchors import find_anchors
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.pretrained import EditModels, load_models
from maskless.storybook.judge import Detection, Judge, Verdict, match_objects
from maskless.storybook.world.captions import describe_change
from maskless.storybook.world.edits import other, random_edit, window_around
from maskless.storybook.world.scenes import COLOURS, KINDS, Scene, VisibleObject, draw, render, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor

ENGINE = EditConfig()  # the crop and the seam are the engine's own


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The networks under test and the scenes they are tested on."""

    models: EditModels
    judge: Judge
    scenes: list[Scene]
    seeds: list[int]
    steps: int | None = None


def run(
    split: str = "held-out",
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    steps: int | None = None,
    sheets: Path | None = None,
) -> list[Row]:
    """Measure every gate on `limit` scenes (200).

    steps: denoising steps in place of the model's own. sheets: a folder for pictures of what was inpainted, for a
    person to judge.
    """
    count = 200 if limit is None else limit
    seeds = [split_seed(split, seed_offset + i) for i in range(count)]
    bench = Bench(
        models=load_models(models),
        judge=Judge.from_pretrained(bundled_folder(models) / "judge"),
        scenes=[render(s) for s in seeds],
        seeds=seeds,
        steps=steps,
    )
    rows: list[Row] = []
    for gate in GATES:
        rows += gate(bench, sheets)
    return rows


def bundled_folder(models: str) -> Path:
    """Where a set of models lies: the bundled one's folder for "storybook", else the folder itself."""
    return Path(str(resources.files("maskless"))) / "assets" / "storybook" if models == "storybook" else Path(models)


def _named(task: str, metric: str, gate: float | None) -> dict[str, Any]:
    return {"suite": "models", "method": "storybook", "task": task, "metric": metric, "gate": gate}


@torch.no_grad()
def autoencoder(bench: Bench, sheets: Path | None) -> list[Row]:
    """PSNR in dB of the whole picture through the autoencoder and back."""
    inpainter, values = bench.models.inpainter, []
    assert isinstance(inpainter, StableDiffusionInpainter)
    for scene in bench.scenes:
        image = to_tensor(scene.image)[None].to(inpainter.device)
        back = inpainter.vae.decode(inpainter.encode(image * 2 - 1)).sample.float().clamp(-1, 1) / 2 + 0.5
        values.append(float(-10 * torch.log10((back - image).square().mean())))
    return [mean_row(values, **_named("autoencoder", "PSNR dB", 30.0))]


@torch.no_grad()
def clip(bench: Bench, sheets: Path | None) -> list[Row]:
    """Crops zero-shot, retrieval among 100 distinct captions, and the edited scene preferred to its source."""
    model = bench.models.clip
    names = [(kind, colour) for kind in KINDS for colour in COLOURS]
    texts = torch.stack([model.encode_text(f"a {colour} {kind}") for kind, colour in names])
    rng = np.random.default_rng(0)
    pairs = [(scene, thing) for scene in bench.scenes for thing in scene.objects]
    crops = [_at_clip_size(scene.image.crop(window_around(thing, 128, rng, tight=True))) for scene, thing in pairs]
    said = (model.encode(torch.stack(crops)).embedding @ texts.T).argmax(dim=1).tolist()
    right = [names[i] == (thing.kind, thing.colour) for i, (_, thing) in zip(said, pairs, strict=True)]
    preferred = []
    for scene, seed in zip(bench.scenes, bench.seeds, strict=True):
        graph = random_edit(scene.graph, np.random.default_rng(seed))
        _was, prompt = describe_change(scene.graph, graph, seed)
        both = model.encode(torch.stack([to_tensor(draw(graph).image), to_tensor(scene.image)])).embedding
        after, before = (both @ model.encode_text(prompt)).tolist()
        preferred.append(after > before)
    return [
        share_row(right, **_named("clip", "crop: kind and colour", 0.95)),
        share_row(_retrieved(bench), **_named("clip", "scene to caption R@1 of 100", 0.85)),
        share_row(preferred, **_named("clip", "edited scene preferred", 0.97)),
    ]


def _retrieved(bench: Bench) -> list[bool]:
    """For up to 100 scenes of distinct captions, whether the best caption is the scene's own."""
    distinct = list({scene.caption: scene for scene in bench.scenes}.values())[:100]
    model = bench.models.clip
    images = model.encode(torch.stack([to_tensor(scene.image) for scene in distinct])).embedding
    texts = torch.stack([model.encode_text(scene.caption) for scene in distinct])
    return [best == i for i, best in enumerate((images @ texts.T).argmax(dim=1).tolist())]


def dino(bench: Bench, sheets: Path | None) -> list[Row]:
    """Of the nine anchors by attention alone, the share that lie on an object, in scenes that have one."""
    on = []
    for scene in bench.scenes:
        if not scene.objects:
            continue
        anchors = find_anchors(
            bench.models.dino.features(to_tensor(scene.image)).attention, None, count=9, source="attention"
        )
        truth = np.any([thing.mask for thing in scene.objects], axis=0)
        cell = truth.shape[0] / anchors.grid_yx[0]
        on += [
            bool(truth[int((row + 0.5) * cell), int((column + 0.5) * cell)])
            for row, column in anchors.points_yx.tolist()
        ]
    return [share_row(on, **_named("dino", "anchors on an object", 0.85))]


def judge(bench: Bench, sheets: Path | None) -> list[Row]:
    """The judge on clean scenes: objects right (kind, colour, IoU >= 0.5), objects too many, place and style."""
    verdicts = bench.judge.detect([scene.image for scene in bench.scenes])
    matches = [
        match_objects(verdict.things, scene.objects) for verdict, scene in zip(verdicts, bench.scenes, strict=True)
    ]
    right = [
        i < match.right for match, scene in zip(matches, bench.scenes, strict=True) for i in range(len(scene.objects))
    ]
    pairs = list(zip(verdicts, bench.scenes, strict=True))
    return [
        share_row(right, **_named("judge", "objects right", 0.98)),
        mean_row([float(match.extra) for match in matches], **_named("judge", "objects too many a scene", None)),
        share_row([v.background == s.graph.background for v, s in pairs], **_named("judge", "background right", None)),
        share_row([v.style == s.graph.style for v, s in pairs], **_named("judge", "style right", None)),
    ]


def inpainting(bench: Bench, sheets: Path | None) -> list[Row]:
    """In an object's box: another kind and colour, then nothing, by prompt; the judge sees the whole picture."""
    rng = np.random.default_rng(1)
    jobs = [(scene, thing) for scene in bench.scenes for thing in scene.objects[-1:]]
    wanted = [(other(KINDS, thing.kind, rng), other(tuple(COLOURS), thing.colour, rng)) for _, thing in jobs]
    boxes = [_square(thing, 128) for _, thing in jobs]
    filled = [
        inpaint(bench, s, box, f"a {colour} {kind}", i)
        for i, ((s, _), box, (kind, colour)) in enumerate(zip(jobs, boxes, wanted, strict=True))
    ]
    emptied = [
        inpaint(bench, s, box, f"empty {s.graph.background}", i)
        for i, ((s, _), box) in enumerate(zip(jobs, boxes, strict=True))
    ]
    seen, bare = bench.judge.detect([_picture(f) for f in filled]), bench.judge.detect([_picture(e) for e in emptied])
    found = [
        shows(verdict, box, kind, colour) for verdict, box, (kind, colour) in zip(seen, boxes, wanted, strict=True)
    ]
    empty = [not things_in(verdict, box) for verdict, box in zip(bare, boxes, strict=True)]
    kept = [_others_kept(verdict, scene, thing) for verdict, (scene, thing) in zip(seen, jobs, strict=True)]
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
        shown = [
            torch.stack([to_tensor(s.image) for s, _ in jobs[:10]]),
            torch.stack(filled[:10]),
            torch.stack(emptied[:10]),
        ]
        sheet(shown).save(sheets / "inpainting.png")
    return [
        share_row(found, **_named("inpainting", "prompted kind and colour seen", 0.85)),
        share_row(empty, **_named("inpainting", "emptied box seen empty", 0.9)),
        share_row(
            [k for keep in kept for k in keep] or [True], **_named("inpainting", "other objects still seen", None)
        ),
    ]


def inpaint(bench: Bench, scene: Scene, box: tuple[int, int, int, int], prompt: str, seed: int) -> Tensor:
    """The scene with the box filled by the prompt, [3, H, W] in [0, 1], by the engine's own crop and paste."""
    inpainter = bench.models.inpainter
    image, size = to_tensor(scene.image), inpainter.native_px
    config = ENGINE.resolved(
        steps=bench.steps or inpainter.recommended_steps, guidance_scale=inpainter.recommended_guidance
    )
    assert config.steps is not None and config.guidance_scale is not None
    window = context_window(box, (image.shape[1], image.shape[2]), context=ENGINE.context)
    source, mask = crop_window(image, window, size), window_mask(box, window, size)
    drawn = inpainter.inpaint(
        source[None],
        mask[None],
        inpainter.encode_prompt(prompt),
        seed=seed,
        steps=config.steps,
        guidance_scale=config.guidance_scale,
    )
    return paste_back(image, met(drawn[0] / 255, source, mask > 0), window, box, feather=ENGINE.feather)


def things_in(verdict: Verdict, box: Sequence[float]) -> list[Detection]:
    """The detections whose centre lies in the box."""
    centres = [((d.box_xyxy[0] + d.box_xyxy[2]) / 2, (d.box_xyxy[1] + d.box_xyxy[3]) / 2) for d in verdict.things]
    return [
        d for d, (x, y) in zip(verdict.things, centres, strict=True) if box[0] <= x < box[2] and box[1] <= y < box[3]
    ]


def shows(verdict: Verdict, box: Sequence[float], kind: str, colour: str) -> bool:
    """Whether the judge sees that kind in that colour in the box."""
    return any((d.kind, d.colour) == (kind, colour) for d in things_in(verdict, box))


def _others_kept(verdict: Verdict, scene: Scene, edited: VisibleObject) -> list[bool]:
    """For each object but the edited one that the box leaves whole, whether the judge still sees it."""
    box = _square(edited, 128)
    kept = []
    for thing in scene.objects:
        x0, y0, x1, y1 = box
        if thing.index == edited.index or thing.mask[y0:y1, x0:x1].any():
            continue
        kept.append(match_objects(verdict.things, [thing]).right == 1)
    return kept


def _square(thing: VisibleObject, side: int, room: float = 0.1) -> tuple[int, int, int, int]:
    """The method's square region for an object: its box with room around, shifted into the picture."""
    x0, y0, x1, y1 = thing.box_xyxy
    width = min(side, round(max(x1 - x0, y1 - y0) * (1 + 2 * room)))
    left, top = (min(max(0, round((low + high - width) / 2)), side - width) for low, high in ((x0, x1), (y0, y1)))
    return left, top, left + width, top + width


def _at_clip_size(image: Image.Image) -> Tensor:
    return to_tensor(image.resize((128, 128), Image.Resampling.BILINEAR))


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


GATES: tuple[Callable[[Bench, Path | None], list[Row]], ...] = (autoencoder, clip, dino, judge, inpainting)
