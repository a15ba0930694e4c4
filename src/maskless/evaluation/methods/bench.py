"""One box of a drawn scene inpainted by a prompt, and what the judge sees in it: what suites of models measure with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.picture import load_image
from maskless.data.result import EditedImage
from maskless.data.types import EditRequest, Regions
from maskless.engine.region_edits import RegionEdits
from maskless.engine.run import resolved
from maskless.engine.stopwatch import Stopwatch
from maskless.evaluation.measures.metrics import centre_in
from maskless.evaluation.methods.cases import Box
from maskless.locating.neighbours import neighbours, replaced_object
from maskless.locating.view import PictureView
from maskless.models.pretrained import EditModels
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Detection, Judge, Verdict
from maskless.storybook.world.scenes import Scene

ENGINE = EditConfig()  # the crop and the seam are the engine's own


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The networks under test and the scenes that they are tested on.

    steps: denoising steps, the model's own number where None. sheets: a folder for pictures of what was inpainted.
    """

    models: EditModels
    judge: Judge
    scenes: list[Scene]
    seeds: list[int]
    steps: int | None = None
    sheets: Path | None = None


def inpaint(
    bench: Bench, scene: Scene, box: Box, prompt: str, seed: int, *, is_object: bool = True, replaces: bool = True
) -> Tensor:
    """The scene with the box inpainted by the prompt, [3, H, W] in [0, 1], as the engine edits a region that it found.

    is_object: whether the prompt names an object. Then other objects that reach into the box are kept, and if the
    models have a refinement, the new one is refined and the unchanged background is kept as well, if they recommend
    that. replaces: whether it replaces an object, which is not kept.
    """
    models = bench.models if is_object else replace(bench.models, refinement=None)
    request = EditRequest(source=load_image(scene.image), caption="", prompt=prompt, seed=seed)
    config, view = resolved(replace(ENGINE, steps=bench.steps), request, models), PictureView(request.source, models)
    one = torch.zeros(1, dtype=torch.long)
    edits = RegionEdits(
        request,
        view,
        Regions(boxes_xyxy=torch.tensor([box]), anchor_index=one, size_index=one),
        models,
        config,
        Stopwatch(),
        partial(neighbours, view, replaces=replaces) if is_object else None,
        partial(replaced_object, view) if is_object and replaces else None,
    )
    edits([0])
    return EditedImage.of(request, edits.candidates([0]), 0).tensor()


def objects_in(verdict: Verdict, box: Sequence[float]) -> list[Detection]:
    """The detections whose centre lies in the box."""
    return [seen for seen in verdict.objects if centre_in(seen.box_xyxy, box)]


def shows(verdict: Verdict, box: Sequence[float], kind: str, colour: str) -> bool:
    """Whether the judge sees that kind in that colour in the box."""
    return any((seen.kind, seen.colour) == (kind, colour) for seen in objects_in(verdict, box))


def drawn_right(critic: Critic, picture: Image.Image, seen: Sequence[Detection], kind: str, colour: str) -> bool:
    """Whether an object that the judge sees in that kind and colour is also a right drawing of that kind.

    The judge names what a lump is meant to be; the critic tells lumps from right drawings. Both must agree.
    """
    boxes = [each.box_xyxy for each in seen if (each.kind, each.colour) == (kind, colour)]
    return any(opinion.kind == kind for opinion in critic.examine([picture] * len(boxes), boxes))
