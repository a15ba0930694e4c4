"""Other ways to make the same edit, with the same models, options and noise: the methods that the search has to beat.

A method is one function from a `Case` to an `Outcome`. To add one, write it and name it in `METHODS`. None of them has
a search loop of its own: regions are inpainted by the engine's evaluator and picked by its ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import corners, propose_regions
from maskless.data.errors import MasklessError
from maskless.data.paste import resize
from maskless.data.result import EditedImage
from maskless.data.types import Anchors, Regions, Scores
from maskless.engine.fill_run import FillRun
from maskless.engine.painters import FillPlan
from maskless.engine.region_edits import RegionEdits
from maskless.engine.run import Run
from maskless.engine.stopwatch import Stopwatch
from maskless.engine.tasks import start_run, whole
from maskless.evaluation.methods.cases import (
    Box,
    Case,
    Method,
    Outcome,
    centre_region,
    random_anchors,
    random_sizes,
)
from maskless.evaluation.methods.release import release
from maskless.locating.location import locate, location_scores, propose
from maskless.method.anchors import find_anchors
from maskless.method.ranking import location_score, rank
from maskless.models.inpainters.denoising import PromptEmbedding, Sampling
from maskless.models.inpainters.protocol import InpaintingModel

SDEDIT_STRENGTHS = (0.35, 0.5, 0.65, 0.8)
DIFFERENCE_NOISES = 8
DIFFERENCE_STRENGTH = 0.5
DIFFERENCE_THRESHOLD = 0.5
"""DiffEdit adds noise up to half of the schedule, averages ten noises and cuts its map at a half."""


def maskless(case: Case) -> Outcome:
    """This package with its defaults."""
    return _finished(start_run(case.request, case.models, case.config))


def learned(case: Case) -> Outcome:
    """The learned search: AnchorNet learns the size of each anchor's region from the edits of about forty regions."""
    return _finished(start_run(case.request, case.models, replace(case.config, search="learned")))


def first_region(case: Case) -> Outcome:
    """The proposal that fits the caption best, with fitted edges, inpainted once: this package without any search."""
    return _finished(start_run(case.request, case.models, replace(case.config, search="placed", budget=1)))


def release_fixed(case: Case) -> Outcome:
    """The paper without the mistakes of its release: anchors by attention, sizes learned from the paper's losses, and
    the paper's ranking.

    Its budget is that of the release, nine anchors times ten iterations and nine at the end; since no region is
    inpainted twice, it needs at most 54 inpaintings, one for each proposal.
    """
    return _finished(start_run(case.request, case.models, replace(case.config, search="paper")))


def random_anchor_random_size(case: Case) -> Outcome:
    """The paper's first ablation: K random anchors with a random size and one inpainting each."""
    return _best_of(case, _one_size_each(case, random_anchors(case, case.config.anchors)))


def dino_anchor_random_size(case: Case) -> Outcome:
    """The paper's second ablation: K anchors by attention with a random size and one inpainting each."""
    anchors = find_anchors(case.view.features.attention, None, count=case.config.anchors, source="attention")
    return _best_of(case, _one_size_each(case, anchors))


def random_at_budget(case: Case) -> Outcome:
    """Random anchors with a random size each, as many as `learned` inpaints: random search at equal cost."""
    return _best_of(case, _one_size_each(case, random_anchors(case, budget(case))))


def random_9(case: Case) -> Outcome:
    """Nine random ones of the proposals that `learned` searches: its anchors and ranking without the search."""
    regions = own_regions(case)
    order = torch.randperm(len(regions), generator=torch.Generator().manual_seed(case.seed))
    return _best_of(case, regions[order[: min(9, len(regions))]])


def centre(case: Case) -> Outcome:
    """One box in the middle, half as wide as the shorter side."""
    return _best_of(case, centre_region(case.request.size_yx))


def full_frame_sdedit(case: Case) -> Outcome:
    """SDEdit (arXiv 2108.01073): noise is added to the whole frame, which is then denoised with the prompt; the best of
    several strengths."""
    plan = FillPlan(strengths=SDEDIT_STRENGTHS)
    return _finished(FillRun(whole(case.request), case.models, case.resolved, plan))


def difference_map_box(case: Case) -> Outcome:
    """DiffEdit's idea (arXiv 2210.11427): the square that best holds the cells where prompt and caption differ."""
    inpainter, size_yx = case.models.inpainter, case.request.size_yx
    found = prompt_difference(
        inpainter,
        resize(case.request.image, (inpainter.native_px, inpainter.native_px)),
        inpainter.encode_prompt(case.request.prompt),
        inpainter.encode_prompt(case.request.caption),
        seeds=[case.seed + number for number in range(DIFFERENCE_NOISES)],
    )
    span = (found.max() - found.min()).clamp(min=1e-12)
    return _best_of(case, _one(best_square((found - found.min()) / span, case.config.sizes, size_yx)))


def caption_relevance_box(case: Case) -> Outcome:
    """CLIP alone: of the proposals around cells that are relevant to the caption, the one that is most the captioned
    object by the ranking `located`; it is inpainted once."""
    return _best_of(case, _one(_box_by_clip(case)))


def best_of_n_seeds(case: Case) -> Outcome:
    """The box of `caption_relevance_box`, inpainted from as many noises as `learned` inpaints regions."""
    return _best_of(case, _one(_box_by_clip(case)), seeds=range(case.seed, case.seed + budget(case)))


def oracle_box(case: Case) -> Outcome:
    """The true box, inpainted once: what a perfect search for the location would give."""
    return _best_of(case, _one(case.truth_xyxy))


def exhaustive(case: Case) -> Outcome:
    """All K x M proposals are inpainted, and the ranking picks among them."""
    return _best_of(case, own_regions(case))


METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (
        maskless,
        learned,
        first_region,
        release,
        release_fixed,
        random_anchor_random_size,
        dino_anchor_random_size,
        random_9,
        random_at_budget,
        centre,
        full_frame_sdedit,
        difference_map_box,
        caption_relevance_box,
        best_of_n_seeds,
        oracle_box,
        exhaustive,
    )
}


def own_regions(case: Case) -> Regions:
    """The K x M proposals that this package searches, anchor-major."""
    view, caption, config = case.view, case.request.caption, case.resolved
    return propose(view, caption, locate(view, caption, config), config).regions


def budget(case: Case) -> int:
    """How many inpaintings `learned` makes at most: one for each anchor in each iteration and at the end, and never
    more than there are different boxes."""
    different = len(own_regions(case).boxes_xyxy.unique(dim=0))
    return min(different, case.config.anchors * (case.config.total_iterations + 1))


def prompt_difference(
    inpainter: InpaintingModel,
    image: Float[Tensor, "3 S S"],
    prompt: PromptEmbedding,
    caption: PromptEmbedding,
    *,
    seeds: Sequence[int],
) -> Float[Tensor, "h w"]:
    """Where two texts lead to different pictures: DiffEdit's map (arXiv 2210.11427, section 3.2), in cells of the
    latents.

    Half of the noise is added to the picture, once with each seed's noise, and the denoiser predicts the final latents
    with each text, the whole frame masked. The map is the absolute difference of its two predictions, at least 0, as a
    mean over channels and noises.

    image: RGB in [0, 1], S = native_px.

    Raises:
        MasklessError: the model's runs cannot be stopped in the middle.
    """
    denoiser = inpainter.denoiser
    if denoiser is None:
        raise MasklessError(
            "the difference of two prompts needs a UNet on latents, whose runs can be stopped in the middle"
        )
    frame, everywhere = image[None], torch.ones(1, 1, *image.shape[1:])
    differences = []
    for seed in seeds:
        predictions = []
        for text in (prompt, caption):
            sampling = Sampling(seed=seed, steps=100, guidance_scale=1.0, strength=DIFFERENCE_STRENGTH)
            run = denoiser.begin(frame, everywhere, text, sampling)
            predictions.append(denoiser.advance(run, 1).clean_latents)
        differences.append((predictions[0] - predictions[1]).abs().mean(dim=(0, 1)))
    return torch.stack(differences).mean(dim=0).cpu()


def best_square(found: Float[Tensor, "h w"], sizes: Sequence[int], size_yx: tuple[int, int]) -> Box:
    """The square with the largest intersection over union with the cells where a map is above DIFFERENCE_THRESHOLD.

    found: the map, in [0, 1]. sizes: half-sizes in 32nds that are tried around every cell of the map.
    """
    rows, columns = found.shape
    points = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    everywhere = Anchors(points_yx=points, weight=torch.ones(len(points)), grid_yx=(rows, columns))
    boxes = propose_regions(everywhere, sizes, size_yx).boxes_xyxy
    on = (found > DIFFERENCE_THRESHOLD).to(torch.float64)[None, None]
    summed = F.pad(F.interpolate(on, size_yx, mode="nearest")[0, 0].cumsum(0).cumsum(1), (1, 0, 1, 0))
    x0, y0, x1, y1 = boxes.unbind(1)
    inside = summed[y1, x1] - summed[y0, x1] - summed[y1, x0] + summed[y0, x0]
    union = (x1 - x0) * (y1 - y0) + summed[-1, -1] - inside
    return corners(boxes[int((inside / union).argmax())])


def _best_of(case: Case, regions: Regions, *, seeds: Sequence[int] | None = None) -> Outcome:
    """The best of these regions by the ranking `located`, each inpainted once from each seed's noise (by default only
    the case's own)."""
    request, config, view = case.request, case.resolved, case.view
    location = locate(view, request.caption, replace(config, anchor_source="text"))
    score = location_scores(view, request.caption, regions.boxes_xyxy, location)
    cells = list(range(len(regions)))
    evaluators = [
        RegionEdits(request, view, regions, case.models, replace(config, seed=seed), Stopwatch())
        for seed in seeds or [case.seed]
    ]
    found = []
    for evaluate in evaluators:
        evaluate(cells)
        found.append(evaluate.scores(cells, score))
    scores = Scores(**{each.name: torch.cat([getattr(part, each.name) for part in found]) for each in fields(Scores)})
    best = rank(scores, "located", alpha=config.ranking_alpha, beta=config.ranking_beta).order[0]
    which, cell = divmod(best, len(cells))
    edited = EditedImage.of(request, evaluators[which].candidates([cell]), 0)
    made = sum(evaluate.inpaintings for evaluate in evaluators)
    return Outcome(pixels=np.asarray(edited.pil()), region=edited.region(), inpaintings=made)


def _finished(run: Run) -> Outcome:
    result = run.result()
    return Outcome(
        pixels=np.asarray(result.best.pil()), region=result.best.region(), inpaintings=result.cost.inpaintings
    )


def _box_by_clip(case: Case) -> Box:
    """The proposal around the caption's anchors that ranks first before anything is inpainted."""
    view, caption = case.view, case.request.caption
    attention, relevance = view.features.attention, view.relevance(caption)
    anchors = find_anchors(attention, relevance, count=case.config.anchors, source="text")
    boxes = propose_regions(anchors, case.config.sizes, case.request.size_yx).boxes_xyxy
    signs = view.signs(view.scaled(boxes), caption)
    return corners(boxes[int(location_score(signs).argmax())])


def _one_size_each(case: Case, anchors: Anchors) -> Regions:
    cells = torch.arange(len(anchors)) * len(case.config.sizes) + random_sizes(case, len(anchors))
    return propose_regions(anchors, case.config.sizes, case.request.size_yx)[cells]


def _one(box_xyxy: Box) -> Regions:
    first = torch.zeros(1, dtype=torch.long)
    return Regions(boxes_xyxy=torch.tensor([box_xyxy]), anchor_index=first, size_index=first)
