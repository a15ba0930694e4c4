"""One method on one request of the drawn world: its edit, and every figure of it that the truth allows."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from maskless.engine.editor import Editor
from maskless.evaluation.measures.figures import background_figures, clip_figures, structure_figure
from maskless.evaluation.measures.ledger import Figures, encoded
from maskless.evaluation.measures.metrics import exact_outside, mask_iou, mask_of_box
from maskless.evaluation.methods.baselines import METHODS
from maskless.evaluation.methods.cases import Box, Case, attempt
from maskless.evaluation.requests.jobs import Job, judged
from maskless.storybook.judge import Judge


def case_of(editor: Editor, job: Job) -> Case:
    """A job as every method gets it; the noise is the scene's own, the same for all of them."""
    seed = job.scene.graph.detail_seed
    request = editor.request(job.image, caption=job.caption, prompt=job.prompt, task=job.task, seed=seed, **job.options)
    return Case(models=editor.models, request=request, config=editor.config, truth_xyxy=truth_of(job))


def truth_of(job: Job) -> Box:
    """Where the thing that the caption names is, half-open, in pixels."""
    kept = {thing.index for thing in job.kept}
    return next(thing.box_xyxy for thing in job.scene.objects if thing.index not in kept)


def measure(name: str, case: Case, job: Job, judge: Judge, *, pictured: bool) -> Figures:
    """One method on one request. pictured: keep the picture as well."""
    tried = attempt(METHODS[name], case)
    cost = {
        "seconds": tried.cost.seconds["total"],
        "UNet forwards": tried.cost.unet_forwards,
        "inpaintings": tried.cost.inpaintings,
        "peak memory MB": tried.cost.peak_memory_mb,
    }
    if tried.outcome is None:
        return {"success": False, "parts": {}, "refused": True, **cost}
    made = tried.outcome
    picture = Image.fromarray(made.pixels)
    was, seen = judge.detect([job.image, picture])
    parts = judged(job, seen, was)
    before = case.request.image
    after = torch.from_numpy(made.pixels.astype(np.float32) / 255).movedim(-1, 0)
    truth = mask_of_box(case.truth_xyxy, case.request.size_yx)
    x0, y0, x1, y1 = made.box_xyxy
    left, top, right, bottom = case.truth_xyxy
    found: Figures = {
        "success": all(parts.values()),
        "parts": parts,
        "hit": left <= (x0 + x1) / 2 < right and top <= (y0 + y1) / 2 < bottom,
        "region IoU": mask_iou(made.region, truth),
        "region size": float(made.region.float().mean()),
        "identical outside": exact_outside(before, after, made.region),
        **background_figures(before, after, truth),
        **clip_figures(case.models, before, after, truth, caption=job.caption, prompt=job.prompt),
        "structure distance": structure_figure(case.models, before, after),
        **cost,
        "box": list(made.box_xyxy),
    }
    if pictured:
        found["picture"] = encoded(picture)
    return found
