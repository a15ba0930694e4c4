"""The suite `models`: what the bundled networks can do, on scenes that none of them has seen.

Each gate is one function from the models and scenes under test to rows; to add one, write it and name it in `GATES`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskless.data.model_options import ModelOptions
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.rows import Row, RowNames, mean_row, share_row
from maskless.evaluation.methods.bench import Bench, inpaint, objects_in, shows
from maskless.evaluation.methods.cases import Box
from maskless.evaluation.suite import SuiteOptions, judge_folder
from maskless.method.anchors import find_anchors
from maskless.models.inpainters.latent_unet import StableDiffusionInpainter
from maskless.models.pretrained import load_models
from maskless.storybook.judge import Judge, Verdict, match_objects
from maskless.storybook.world.captions import describe_change
from maskless.storybook.world.edits import choose_other, random_edit, window_around
from maskless.storybook.world.graph import COLOURS, KINDS
from maskless.storybook.world.scenes import Scene, VisibleObject, draw, render, split_seed
from maskless.storybook.world.sheets import sheet, to_tensor

TAKES = ("split", "limit", "seed_offset", "models", "steps", "sheets")
SCENES = 200


def run(options: SuiteOptions) -> list[Row]:
    """Every gate on `limit` scenes (200). sheets: a folder for pictures of what was inpainted, for a person to
    judge."""
    seeds = [split_seed(options.split, options.seed_offset + i) for i in range(options.limit or SCENES)]
    bench = Bench(
        models=load_models(ModelOptions(models=options.models)),
        judge=Judge.from_pretrained(judge_folder(options.models)),
        scenes=[render(s) for s in seeds],
        seeds=seeds,
        steps=options.steps,
        sheets=options.sheets,
    )
    return [row for gate in GATES for row in gate(bench)]


def _names(task: str, gate: float | None = None) -> RowNames:
    return {"suite": "models", "method": "storybook", "task": task, "gate": gate}


@torch.no_grad()
def autoencoder(bench: Bench) -> list[Row]:
    """PSNR in dB of the whole picture through the autoencoder and back."""
    inpainter, values = bench.models.inpainter, []
    assert isinstance(inpainter, StableDiffusionInpainter)
    for scene in bench.scenes:
        image = to_tensor(scene.image)[None].to(inpainter.device)
        back = inpainter.vae.decode(inpainter.encode(image * 2 - 1)).sample.float().clamp(-1, 1) / 2 + 0.5
        values.append(float(-10 * torch.log10((back - image).square().mean())))
    return [mean_row(values, metric=figures.AUTOENCODER_PSNR, **_names("autoencoder", 30.0))]


@torch.no_grad()
def clip(bench: Bench) -> list[Row]:
    """Zero-shot classification of crops, retrieval among 100 distinct captions, and how often CLIP prefers the edited
    scene to its source."""
    model = bench.models.clip
    names = [(kind, colour) for kind in KINDS for colour in COLOURS]
    texts = torch.stack([model.encode_text(f"a {colour} {kind}") for kind, colour in names])
    rng = np.random.default_rng(0)
    pairs = [(scene, each) for scene in bench.scenes for each in scene.objects]
    crops = [_at_clip_size(scene.image.crop(window_around(each, 128, rng, tight=True))) for scene, each in pairs]
    guesses = (model.encode(torch.stack(crops)).embedding @ texts.T).argmax(dim=1).tolist()
    right = [names[i] == (each.kind, each.colour) for i, (_, each) in zip(guesses, pairs, strict=True)]
    preferred = []
    for scene, seed in zip(bench.scenes, bench.seeds, strict=True):
        graph = random_edit(scene.graph, np.random.default_rng(seed))
        _caption, prompt = describe_change(scene.graph, graph, seed)
        both = model.encode(torch.stack([to_tensor(draw(graph).image), to_tensor(scene.image)])).embedding
        after, before = (both @ model.encode_text(prompt)).tolist()
        preferred.append(after > before)
    return [
        share_row(right, metric=figures.CROP_CLASSIFIED, **_names("clip", 0.95)),
        share_row(_retrieved(bench), metric=figures.CAPTION_RETRIEVED, **_names("clip", 0.85)),
        share_row(preferred, metric=figures.EDIT_PREFERRED, **_names("clip", 0.97)),
    ]


def _retrieved(bench: Bench) -> list[bool]:
    """For each of up to 100 scenes with distinct captions, whether the best caption is the scene's own."""
    distinct = list({scene.caption: scene for scene in bench.scenes}.values())[:100]
    model = bench.models.clip
    images = model.encode(torch.stack([to_tensor(scene.image) for scene in distinct])).embedding
    texts = torch.stack([model.encode_text(scene.caption) for scene in distinct])
    return [best == i for i, best in enumerate((images @ texts.T).argmax(dim=1).tolist())]


def dino(bench: Bench) -> list[Row]:
    """The share of the nine anchors by attention alone that lie on an object, in scenes that have one."""
    on = []
    for scene in bench.scenes:
        if not scene.objects:
            continue
        anchors = find_anchors(
            bench.models.dino.features(to_tensor(scene.image)).attention, None, count=9, source="attention"
        )
        truth = np.any([each.mask for each in scene.objects], axis=0)
        cell = truth.shape[0] / anchors.grid_yx[0]
        on += [
            bool(truth[int((row + 0.5) * cell), int((column + 0.5) * cell)])
            for row, column in anchors.points_yx.tolist()
        ]
    return [share_row(on, metric=figures.ANCHORS_ON_OBJECTS, **_names("dino", 0.85))]


def judge(bench: Bench) -> list[Row]:
    """The judge on scenes as they were drawn: objects that it finds (kind, colour, IoU >= 0.5), objects that are not
    there, background and style."""
    verdicts = bench.judge.detect([scene.image for scene in bench.scenes])
    matches = [
        match_objects(verdict.objects, scene.objects) for verdict, scene in zip(verdicts, bench.scenes, strict=True)
    ]
    right = [
        i < match.right for match, scene in zip(matches, bench.scenes, strict=True) for i in range(len(scene.objects))
    ]
    pairs = list(zip(verdicts, bench.scenes, strict=True))
    return [
        share_row(right, metric=figures.OBJECTS_RIGHT, **_names("judge", 0.98)),
        mean_row([float(match.extra) for match in matches], metric=figures.OBJECTS_TOO_MANY, **_names("judge")),
        share_row(
            [v.background == s.graph.background for v, s in pairs], metric=figures.BACKGROUND_RIGHT, **_names("judge")
        ),
        share_row([v.style == s.graph.style for v, s in pairs], metric=figures.STYLE_RIGHT, **_names("judge")),
    ]


def inpainting(bench: Bench) -> list[Row]:
    """Inpaints an object's box by prompt, first with another kind and colour, then with nothing; the judge sees the
    whole picture."""
    rng = np.random.default_rng(1)
    jobs = [(scene, each) for scene in bench.scenes for each in scene.objects[-1:]]
    wanted = [(choose_other(KINDS, each.kind, rng), choose_other(tuple(COLOURS), each.colour, rng)) for _, each in jobs]
    boxes = [_square(each, 128) for _, each in jobs]
    filled = [
        inpaint(bench, s, box, f"a {colour} {kind}", i)
        for i, ((s, _), box, (kind, colour)) in enumerate(zip(jobs, boxes, wanted, strict=True))
    ]
    emptied = [
        inpaint(bench, s, box, f"empty {s.graph.background}", i, is_object=False)
        for i, ((s, _), box) in enumerate(zip(jobs, boxes, strict=True))
    ]
    seen, bare = bench.judge.detect([_picture(f) for f in filled]), bench.judge.detect([_picture(e) for e in emptied])
    found = [
        shows(verdict, box, kind, colour) for verdict, box, (kind, colour) in zip(seen, boxes, wanted, strict=True)
    ]
    empty = [not objects_in(verdict, box) for verdict, box in zip(bare, boxes, strict=True)]
    kept = [_others_kept(verdict, scene, each) for verdict, (scene, each) in zip(seen, jobs, strict=True)]
    if bench.sheets is not None:
        bench.sheets.mkdir(parents=True, exist_ok=True)
        shown = [
            torch.stack([to_tensor(s.image) for s, _ in jobs[:10]]),
            torch.stack(filled[:10]),
            torch.stack(emptied[:10]),
        ]
        sheet(shown).save(bench.sheets / "inpainting.png")
    return [
        share_row(found, metric=figures.PROMPT_SEEN, **_names("inpainting", 0.85)),
        share_row(empty, metric=figures.EMPTIED, **_names("inpainting", 0.9)),
        share_row([k for keep in kept for k in keep] or [True], metric=figures.OTHERS_SEEN, **_names("inpainting")),
    ]


def _others_kept(verdict: Verdict, scene: Scene, edited: VisibleObject) -> list[bool]:
    """Whether the judge still sees each object that the box leaves whole, the edited one apart."""
    box = _square(edited, 128)
    kept = []
    for each in scene.objects:
        x0, y0, x1, y1 = box
        if each.index == edited.index or each.mask[y0:y1, x0:x1].any():
            continue
        kept.append(match_objects(verdict.objects, [each]).right == 1)
    return kept


def _square(each: VisibleObject, side: int, room: float = 0.1) -> Box:
    """A square region for an object, as the method proposes them: its box with room around, shifted into the
    picture."""
    x0, y0, x1, y1 = each.box_xyxy
    width = min(side, round(max(x1 - x0, y1 - y0) * (1 + 2 * room)))
    left, top = (min(max(0, round((low + high - width) / 2)), side - width) for low, high in ((x0, x1), (y0, y1)))
    return left, top, left + width, top + width


def _at_clip_size(image: Image.Image) -> Tensor:
    return to_tensor(image.resize((128, 128), Image.Resampling.BILINEAR))


def _picture(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())


GATES: tuple[Callable[[Bench], list[Row]], ...] = (autoencoder, clip, dino, judge, inpainting)
