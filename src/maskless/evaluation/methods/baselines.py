"""Other ways to make the same edit, with the same models, options and noise: what the search has to be better than.

A method is one function from a `Case` to an `Outcome`. To add one, write it and name it in `METHODS`. None of them has
a loop of its own: regions are inpainted by the engine's evaluator and picked by its ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import propose_regions
from maskless.data.errors import MasklessError
from maskless.data.paste import resize
from maskless.data.result import EditedImage, EditResult
from maskless.data.types import Anchors, Regions, Scores
from maskless.engine.fill_run import FillRun
from maskless.engine.region_edits import RegionEvaluator
from maskless.engine.stopwatch import Stopwatch
from maskless.engine.tasks import Run, start_run, whole
from maskless.evaluation.methods.cases import Box, Case, Method, Outcome, random_anchors, random_sizes
from maskless.evaluation.methods.release import release
from maskless.locating.proposals import find_places, place_of, propose
from maskless.locating.view import place_signs
from maskless.method.anchors import find_anchors
from maskless.method.ranking import place_score, rank
from maskless.models.inpainters.latent_unet import PromptEmbedding, StableDiffusionInpainter
from maskless.models.inpainters.loading import InpaintingModel

AS_IN_THE_PAPER: dict[str, Any] = {
    "anchor_source": "attention",
    "fit_edges": False,
    "delta": 0.0,
    "place": 0.0,
    "ranking": "paper",
}
"""Options that leave out what this package adds to the paper."""
CENTRE_SIZE = 8
"""Half-size of the box in the middle, in 32nds: half the shorter side."""
SDEDIT_STRENGTHS = (0.35, 0.5, 0.65, 0.8)
DIFFERENCE_NOISES = 8
DIFFERENCE_STRENGTH = 0.5
DIFFERENCE_THRESHOLD = 0.5
"""DiffEdit noises to a half, averages ten noises and cuts its map at a half."""


def maskless(case: Case) -> Outcome:
    """This package by its defaults."""
    return _finished(start_run(case.request, case.models, case.config))


def release_fixed(case: Case) -> Outcome:
    """The paper as it was meant, mistakes corrected: anchors by attention, sizes learned from its losses, its ranking.

    Its budget is the release's, nine anchors times ten iterations and nine at the end; since no region is inpainted
    twice, it needs at most the 54 that there are.
    """
    config = replace(case.config, **AS_IN_THE_PAPER)
    return _finished(start_run(case.request, case.models, config))


def random_anchor_random_size(case: Case) -> Outcome:
    """The paper's first ablation: K anchors anywhere, a random size each, one inpainting each."""
    return _best_of(case, _one_size_each(case, random_anchors(case, case.config.anchors)))


def dino_anchor_random_size(case: Case) -> Outcome:
    """The paper's second ablation: K anchors by attention, a random size each, one inpainting each."""
    attention = case.models.dino.features(case.request.image).attention
    anchors = find_anchors(attention, None, count=case.config.anchors, source="attention")
    return _best_of(case, _one_size_each(case, anchors))


def random_at_budget(case: Case) -> Outcome:
    """Anchors anywhere, a random size each, as many as `maskless` inpaints: random search at equal cost."""
    return _best_of(case, _one_size_each(case, random_anchors(case, budget(case))))


def random_9(case: Case) -> Outcome:
    """Nine of the proposals that `maskless` searches, at random: its anchors and ranking without the search."""
    regions = own_regions(case)
    order = torch.randperm(len(regions), generator=torch.Generator().manual_seed(case.seed))
    return _best_of(case, regions[order[: min(9, len(regions))]])


def centre(case: Case) -> Outcome:
    """One box in the middle, half the shorter side wide."""
    middle = Anchors(points_yx=torch.zeros(1, 2, dtype=torch.long), weight=torch.ones(1), grid_yx=(1, 1))
    return _best_of(case, propose_regions(middle, [CENTRE_SIZE], case.request.size_yx))


def full_frame_sdedit(case: Case) -> Outcome:
    """SDEdit (arXiv 2108.01073): the whole frame noised in part and drawn over by the prompt, at several strengths."""
    return _finished(FillRun(whole(case.request), case.models, case.config, strengths=SDEDIT_STRENGTHS))


def difference_map_box(case: Case) -> Outcome:
    """DiffEdit's idea (arXiv 2210.11427): the square that best holds the places where prompt and caption differ."""
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
    """CLIP alone: of the proposals around places relevant to the caption, the one that is the captioned thing by the
    signs of the ranking `located`; it is inpainted once."""
    return _best_of(case, _one(_box_by_clip(case)))


def best_of_n_seeds(case: Case) -> Outcome:
    """The box of `caption_relevance_box`, inpainted from as many noises as `maskless` inpaints regions."""
    return _best_of(case, _one(_box_by_clip(case)), seeds=range(case.seed, case.seed + budget(case)))


def oracle_box(case: Case) -> Outcome:
    """The true box, inpainted once: what a perfect search for the place would give."""
    return _best_of(case, _one(case.truth_xyxy))


def exhaustive(case: Case) -> Outcome:
    """Every one of the K x M proposals inpainted, and the ranking picks among them all."""
    return _best_of(case, own_regions(case))


METHODS: dict[str, Method] = {
    method.__name__: method
    for method in (
        maskless,
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
    """The K x M proposals that `maskless` searches, anchor-major."""
    return propose(find_places(case.request, case.models, case.config), case.request, case.models, case.config).regions


def budget(case: Case) -> int:
    """How many inpaintings `maskless` makes at most: one an anchor and iteration, one an anchor at the end, and never
    more than there are different boxes."""
    different = len(own_regions(case).boxes_xyxy.unique(dim=0))
    return min(different, case.config.anchors * (case.config.total_iterations + 1))


def prompt_difference(
    inpainter: InpaintingModel,
    image: Float[Tensor, "3 S S"],
    asked: PromptEmbedding,
    there: PromptEmbedding,
    *,
    seeds: Sequence[int],
) -> Float[Tensor, "h w"]:
    """Where two texts ask for different things: DiffEdit's map (arXiv 2210.11427, section 3.2), in latents' cells.

    The picture is noised to a half, once with each seed's noise, and the denoiser asked with each text how it will end,
    the whole frame masked. The absolute difference of its two answers, mean over channels and noises; not below 0.

    image: RGB in [0, 1], S = native_px.

    Raises:
        MasklessError: a model whose runs cannot be stopped in the middle.
    """
    if not isinstance(inpainter, StableDiffusionInpainter):
        raise MasklessError("the difference of two prompts needs a UNet on latents, which can be stopped on its way")
    frame, everywhere = image[None], torch.ones(1, 1, *image.shape[1:])
    differences = []
    for seed in seeds:
        guesses = []
        for text in (asked, there):
            run = inpainter.begin(
                frame, everywhere, text, seed=seed, steps=100, guidance_scale=1.0, strength=DIFFERENCE_STRENGTH
            )
            guesses.append(inpainter.advance(run, 1).foreseen)
        differences.append((guesses[0] - guesses[1]).abs().mean(dim=(0, 1)))
    return torch.stack(differences).mean(dim=0).cpu()


def best_square(found: Float[Tensor, "h w"], sizes: Sequence[int], size_yx: tuple[int, int]) -> Box:
    """The square, of these half-sizes in 32nds and around any cell of the map, that has the largest intersection over
    union with where the map, from 0 to 1, is above DIFFERENCE_THRESHOLD."""
    rows, columns = found.shape
    points = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    everywhere = Anchors(points_yx=points, weight=torch.ones(len(points)), grid_yx=(rows, columns))
    boxes = propose_regions(everywhere, sizes, size_yx).boxes_xyxy
    on = (found > DIFFERENCE_THRESHOLD).to(torch.float64)[None, None]
    summed = F.pad(F.interpolate(on, size_yx, mode="nearest")[0, 0].cumsum(0).cumsum(1), (1, 0, 1, 0))
    x0, y0, x1, y1 = boxes.unbind(1)
    inside = summed[y1, x1] - summed[y0, x1] - summed[y1, x0] + summed[y0, x0]
    union = (x1 - x0) * (y1 - y0) + summed[-1, -1] - inside
    return _corners(boxes[int((inside / union).argmax())])


def _best_of(case: Case, regions: Regions, *, seeds: Sequence[int] | None = None) -> Outcome:
    """Every region inpainted once from each seed's noise, the case's own by default; the options' ranking picks."""
    request, models, config = case.request, case.models, case.config
    resolved = config.resolved(
        steps=models.inpainter.recommended_steps, guidance_scale=models.inpainter.recommended_guidance
    )
    places = find_places(request, models, replace(config, anchor_source="text"))
    place = place_of(regions.boxes_xyxy, places, request, models)
    cells = list(range(len(regions)))
    evaluators = [
        RegionEvaluator(request, regions, models, resolved, seed=seed, stopwatch=Stopwatch())
        for seed in seeds or [case.seed]
    ]
    found = []
    for evaluate in evaluators:
        evaluate(cells)
        found.append(evaluate.scores(cells, place))
    scores = Scores(**{each.name: torch.cat([getattr(part, each.name) for part in found]) for each in fields(Scores)})
    best = rank(scores, config.ranking, alpha=config.ranking_alpha, beta=config.ranking_beta).order[0]
    which, cell = divmod(best, len(cells))
    edited = EditedImage(
        request=request,
        box_xyxy=_corners(regions.boxes_xyxy[cell]),
        window_xyxy=_corners(evaluators[which].windows_xyxy[cell]),
        crop=evaluators[which].candidates([cell]).crops[0],
        feather=config.feather,
    )
    made = sum(evaluate.inpaintings for evaluate in evaluators)
    return Outcome(pixels=np.asarray(edited.pil()), region=edited.touched(), inpaintings=made)


def _finished(run: Run) -> Outcome:
    for _record in run:
        pass
    result: EditResult = run.result()
    return Outcome(
        pixels=np.asarray(result.best.pil()), region=result.best.touched(), inpaintings=result.cost.inpaintings
    )


def _box_by_clip(case: Case) -> Box:
    """Of the proposals around the caption's anchors, the one that ranks first before anything is inpainted."""
    clip, image, caption = case.models.clip, case.request.image, case.request.caption
    relevance = clip.relevance(image, caption)
    attention = case.models.dino.features(image).attention
    anchors = find_anchors(attention, relevance, count=case.config.anchors, source="text")
    boxes = propose_regions(anchors, case.config.sizes, case.request.size_yx).boxes_xyxy
    signs = place_signs(image, boxes, caption, relevance, clip)
    return _corners(boxes[int(place_score(signs).argmax())])


def _one_size_each(case: Case, anchors: Anchors) -> Regions:
    cells = torch.arange(len(anchors)) * len(case.config.sizes) + random_sizes(case, len(anchors))
    return propose_regions(anchors, case.config.sizes, case.request.size_yx)[cells]


def _one(box_xyxy: Box) -> Regions:
    first = torch.zeros(1, dtype=torch.long)
    return Regions(boxes_xyxy=torch.tensor([box_xyxy]), anchor_index=first, size_index=first)


def _corners(box: Tensor) -> Box:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1
