"""One method on one request of the drawn world: its edit, and all figures of it.

CLIP and DINO are the models of the edit itself, so figures with other models cannot be compared with these. Names and
conventions of the background's figures are PIE-Bench's (measures/metrics.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from maskless.engine.editor import Editor
from maskless.evaluation.measures import figures, metrics
from maskless.evaluation.measures.ledger import encoded
from maskless.evaluation.measures.rows import Figures
from maskless.evaluation.methods.baselines import METHODS
from maskless.evaluation.methods.cases import Box, Case, attempt
from maskless.evaluation.requests.jobs import Job, judged
from maskless.models.pretrained import EditModels
from maskless.storybook.judge import Judge


def case_of(editor: Editor, job: Job) -> Case:
    """A job as every method gets it; the noise is seeded by the scene and the same for all methods."""
    seed = job.scene.graph.detail_seed
    request = editor.request(job.image, caption=job.caption, prompt=job.prompt, task=job.task, seed=seed, **job.options)
    return Case(models=editor.models, request=request, config=editor.config, truth_xyxy=truth_of(job))


def truth_of(job: Job) -> Box:
    """Where the object that the caption names is, half-open, in pixels."""
    kept = {each.index for each in job.kept}
    return next(each.box_xyxy for each in job.scene.objects if each.index not in kept)


def measure(name: str, case: Case, job: Job, judge: Judge, *, pictured: bool) -> Figures:
    """The figures of one method on one request. pictured: keep the edited picture among them.

    A method that found nothing to edit has no success, and no figures but those of its cost.
    """
    tried = attempt(METHODS[name], case)
    cost = {
        figures.SECONDS: tried.cost.seconds["total"],
        figures.UNET_FORWARDS: tried.cost.unet_forwards,
        figures.INPAINTINGS: tried.cost.inpaintings,
        figures.PEAK_MEMORY: tried.cost.peak_memory_mb,
    }
    if tried.outcome is None:
        return {figures.SUCCESS: False, "parts": {}, **cost}
    made = tried.outcome
    picture = Image.fromarray(made.pixels)
    seen_before, seen_after = judge.detect([job.image, picture])
    parts = judged(job, seen_after, seen_before)
    before, after = case.request.image, metrics.unit(made.pixels)
    truth = metrics.mask_of_box(case.truth_xyxy, case.request.size_yx)
    found: Figures = {
        figures.SUCCESS: all(parts.values()),
        "parts": parts,
        figures.REGION_HIT: metrics.centre_in(made.box_xyxy, case.truth_xyxy),
        figures.REGION_IOU: metrics.mask_iou(made.region, truth),
        figures.REGION_SIZE: float(made.region.float().mean()),
        figures.IDENTICAL_OUTSIDE: metrics.exact_outside(before, after, made.region),
        **background_figures(before, after, truth),
        **clip_figures(case.models, before, after, truth, caption=job.caption, prompt=job.prompt),
        figures.STRUCTURE_DISTANCE: structure_figure(case.models, before, after),
        **cost,
        "box": list(made.box_xyxy),
    }
    if pictured:
        found["picture"] = encoded(picture)
    return found


@torch.no_grad()
def clip_figures(
    models: EditModels,
    before: Float[Tensor, "3 H W"],
    after: Float[Tensor, "3 H W"],
    edited: Bool[Tensor, "H W"],
    *,
    caption: str,
    prompt: str,
) -> dict[str, float]:
    """Cosines of the edited picture and the prompt (whole), of the picture with all but the edited part black and the
    prompt (edited), and of the changes of picture and text (directional; 0 where either does not change)."""
    clip = models.clip
    source, whole, part = clip.encode(torch.stack([before, after, after * edited])).embedding
    wanted, described = clip.encode_text(prompt), clip.encode_text(caption)
    return {
        figures.CLIP_WHOLE: float(whole @ wanted),
        figures.CLIP_EDITED: float(part @ wanted),
        figures.CLIP_DIRECTIONAL: float(F.cosine_similarity(whole - source, wanted - described, dim=0)),
    }


def background_figures(
    before: Float[Tensor, "3 H W"], after: Float[Tensor, "3 H W"], edited: Bool[Tensor, "H W"]
) -> dict[str, float]:
    """PSNR in dB (at most PERFECT_DB), SSIM and MSE by PIE-Bench's protocol; NaN where all is edited."""
    return {
        figures.BACKGROUND_PSNR: metrics.capped_psnr(metrics.background_psnr(before, after, edited)),
        figures.BACKGROUND_SSIM: metrics.background_ssim(before, after, edited),
        figures.BACKGROUND_MSE: metrics.background_mse(before, after, edited),
    }


def structure_figure(models: EditModels, before: Float[Tensor, "3 H W"], after: Float[Tensor, "3 H W"]) -> float:
    """Structure distance by DINO's keys: 0 where the layout of the picture has not changed."""
    return metrics.structure_distance(models.dino.keys(before), models.dino.keys(after))
