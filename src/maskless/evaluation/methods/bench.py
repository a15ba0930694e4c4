"""One box of a drawn scene inpainted by a prompt, and what the judge sees in it: what suites of models measure with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from maskless.data.boxes import context_window
from maskless.data.config import EditConfig
from maskless.data.masks import box_mask, crop_mask, window_mask
from maskless.data.paste import crop_window, match_surroundings, paste_back
from maskless.engine.batching import Batches
from maskless.engine.refine import refine
from maskless.evaluation.measures.metrics import centre_in
from maskless.evaluation.methods.cases import Box
from maskless.locating.neighbours import neighbours
from maskless.locating.view import PictureView
from maskless.models.inpainters.denoising import Sampling
from maskless.models.pretrained import EditModels
from maskless.storybook.critic import Critic
from maskless.storybook.judge import Detection, Judge, Verdict
from maskless.storybook.world.scenes import Scene
from maskless.storybook.world.sheets import to_tensor

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
    """The scene with the box inpainted by the prompt, [3, H, W] in [0, 1], with the engine's own crop and paste.

    is_object: whether the prompt names an object. Then other objects that reach into the box are kept, and the new one
    is refined if the models have a refinement. replaces: whether it replaces an object, which is not kept.
    """
    inpainter = bench.models.inpainter
    image, size = to_tensor(scene.image), inpainter.native_px
    kept = neighbours(PictureView(image, bench.models), box, replaces=replaces) if is_object else None
    mask = box_mask(box, image.shape[1:]) & ~kept if kept is not None else None
    steps, guidance = inpainter.recommended_steps, inpainter.recommended_guidance
    config = replace(ENGINE, steps=bench.steps).resolved(steps=steps, guidance_scale=guidance, batch_size=1, seed=seed)
    window = context_window(box, (image.shape[1], image.shape[2]), context=ENGINE.context)

    def cropped(side: int) -> tuple[Tensor, Tensor]:
        region = window_mask(box, window, side)
        return crop_window(image, window, side), region if kept is None else region * ~crop_mask(kept, window, side)

    source, region = cropped(size)
    drawn = inpainter.inpaint(
        source[None],
        region[None],
        inpainter.encode_prompt(prompt),
        Sampling(seed=seed, steps=config.steps, guidance_scale=config.guidance_scale),
    )
    if is_object and bench.models.refinement is not None and bench.models.redrawer is not None:
        source, region = cropped(bench.models.redrawer.native_px)
        drawn = refine(bench.models, source[None], region[None], drawn, prompt, seed=seed, batches=Batches(1))
    # As in engine/region_edits.py, colours are compared around the box and not along the outlines of what is kept.
    matched = match_surroundings(drawn[0] / 255, source, window_mask(box, window, source.shape[-1]) > 0)
    return paste_back(image, matched, window, box, feather=ENGINE.feather, mask=mask)


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
