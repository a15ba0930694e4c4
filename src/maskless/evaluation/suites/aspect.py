"""The suite `aspect`: how CLIP should see pictures that are not square: squeezed, padded or in tiles.

Each picture is two drawn scenes, joined to 2:1 or 1:2; a caption names an object that is in it once. Nothing
is inpainted: the figure says whether the picture drawn as the prompt asks is closer to the prompt than the picture with
yet another object in that place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from maskless.data.picture import load_image
from maskless.engine.editor import Editor
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.rows import Figures, Row, rows_of_figures
from maskless.evaluation.methods.cases import Box
from maskless.evaluation.suite import SuiteOptions
from maskless.models.clip import Clip, ImageEncoding
from maskless.storybook.world.graph import COLOURS, KINDS
from maskless.storybook.world.scenes import Scene, draw, render, split_seed

TAKES = ("split", "limit", "seed_offset", "models", "progress")
TASKS = 60
"""How many pictures of each shape there are."""
SHAPES = {"2:1": 1, "1:2": 0}
"""The axis along which the two scenes of a picture are joined."""


class PaddedClip(Clip):
    """Sees a picture in the middle of a square of its mean colour."""

    def preprocess(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 S S"]:
        """CLIP's input for images in [0, 1], with their aspect ratio kept."""
        height, width = images.shape[2:]
        side = max(height, width)
        square = images.mean(dim=(2, 3), keepdim=True).expand(-1, -1, side, side).clone()
        top, left = (side - height) // 2, (side - width) // 2
        square[:, :, top : top + height, left : left + width] = images
        return super().preprocess(square)


class TiledClip(Clip):
    """Sees a picture as overlapping squares along its longer side; its embedding is their mean."""

    def encode(self, images: Float[Tensor, "N 3 H W"]) -> ImageEncoding:
        """Embeddings of images in [0, 1], and the tokens of their first tile."""
        height, width = images.shape[2:]
        short, long = min(height, width), max(height, width)
        if short == long:
            return super().encode(images)
        count = 2 * round(long / short) - 1
        starts = [round((long - short) * number / max(1, count - 1)) for number in range(count)]
        tiles = [images.narrow(3 if width == long else 2, start, short) for start in starts]
        encoded = [super(TiledClip, self).encode(tile) for tile in tiles]
        mean = torch.stack([each.embedding for each in encoded]).mean(dim=0)
        return ImageEncoding(embedding=F.normalize(mean, dim=-1), tokens=encoded[0].tokens)


WAYS: dict[str, type[Clip]] = {"squeezed": Clip, "padded": PaddedClip, "tiled": TiledClip}


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A picture of two scenes. box_xyxy: of the object that the caption names. edited: the picture with the prompt's
    object in its place. wrong: the picture with yet another object there."""

    image: Image.Image
    caption: str
    prompt: str
    box_xyxy: Box
    edited: Image.Image
    wrong: Image.Image


def run(options: SuiteOptions) -> list[Row]:
    """`limit` pictures (60) of each shape, seen in each way."""
    editor = Editor.from_pretrained(options.models)
    rows: list[Row] = []
    count = options.limit or TASKS
    for place, (shape, axis) in enumerate(SHAPES.items()):
        found: dict[str, list[Figures]] = {way: [] for way in WAYS}
        for number, task in enumerate(draw_tasks(options.split, count, axis, options.seed_offset), start=1):
            for way, measured in measure(editor, task).items():
                found[way].append(measured)
            options.progress(place * count + number, len(SHAPES) * count)
        for way, each in found.items():
            rows += rows_of_figures(each, each[0], suite="aspect", method=way, task=shape)
    return rows


def draw_tasks(split: str, count: int, axis: int, offset: int = 0) -> list[Task]:
    """The first `count` tasks that pairs of scenes of a split give.

    axis: 1 joins them side by side, 0 one above the other.
    """
    tasks: list[Task] = []
    index = offset
    while len(tasks) < count:
        seed = split_seed(split, index)
        pair = render(seed), render(split_seed(split, index + 1))
        index += 2
        found = _task(pair, seed, axis)
        if found is not None:
            tasks.append(found)
    return tasks


def measure(editor: Editor, task: Task) -> dict[str, Figures]:
    """The figures of one picture as CLIP sees it in each way.

    Only whole pictures differ: the crops that show a region, and those of the relevance, are squares already.
    """
    clip = editor.models.clip
    mean, std = (tuple(values.flatten().tolist()) for values in (clip.mean, clip.std))
    prompt = clip.encode_text(task.prompt)
    found: dict[str, Figures] = {}
    for way, kind in WAYS.items():
        seen = kind(clip.model, clip.tokenizer, mean=mean, std=std)
        edited, wrong = (seen.encode(load_image(each).rgb[None]).embedding[0] for each in (task.edited, task.wrong))
        found[way] = {figures.TRUE_EDIT_CLOSER: bool(edited @ prompt > wrong @ prompt)}
    return found


def _task(pair: tuple[Scene, Scene], seed: int, axis: int) -> Task | None:
    """The task of two scenes; None if no object is in them once."""
    objects = [(side, each) for side, scene in enumerate(pair) for each in scene.objects]
    names = [(each.kind, each.colour) for _side, each in objects]
    once = [number for number, name in enumerate(names) if names.count(name) == 1]
    if not once:
        return None
    chosen = once[seed % len(once)]
    side, named = objects[chosen]
    kinds, colours = [kind for kind in KINDS if kind != named.kind], list(COLOURS)
    kind, other_kind = (kinds[(seed + number) % len(kinds)] for number in (0, 1))
    colour, other_colour = (colours[(seed + number) % len(colours)] for number in (0, 3))
    shift = side * pair[0].image.size[0]
    x0, y0, x1, y1 = named.box_xyxy
    box = (x0 + shift, y0, x1 + shift, y1) if axis == 1 else (x0, y0 + shift, x1, y1 + shift)
    return Task(
        image=_joined([scene.image for scene in pair], axis),
        caption=f"a {names[chosen][1]} {names[chosen][0]}",
        prompt=f"a {colour} {kind}",
        box_xyxy=box,
        edited=_changed(pair, side, named.index, kind, colour, axis),
        wrong=_changed(pair, side, named.index, other_kind, other_colour, axis),
    )


def _changed(pair: tuple[Scene, Scene], side: int, index: int, kind: str, colour: str, axis: int) -> Image.Image:
    """The picture with object `index` of one of its scenes replaced."""
    images = [scene.image for scene in pair]
    images[side] = draw(pair[side].graph.replace_object(index, kind=kind, colour=colour), images[side].size[0]).image
    return _joined(images, axis)


def _joined(images: Sequence[Image.Image], axis: int) -> Image.Image:
    return Image.fromarray(np.concatenate([np.asarray(image) for image in images], axis=axis))
