"""The suite `ablations`: the method's choices, changed one at a time, on the same requests.

Of each request one table of regions is filled, as far as any variant looks, and every variant learns and ranks from it.
That is exact, because a region's edit depends on neither, and the losses' parts are kept unreduced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.regions import propose_regions, scale_to_grid
from maskless.data.types import Anchors, EditedImage, Regions
from maskless.engine.editor import Editor
from maskless.engine.evaluator import RegionEvaluator
from maskless.engine.stopwatch import Stopwatch
from maskless.engine.tasks import start_run
from maskless.evaluation import storybook
from maskless.evaluation.cases import Box, Case, random_anchors, random_sizes
from maskless.evaluation.ledger import Figures, Ledger, fingerprint
from maskless.evaluation.metrics import mask_iou, mask_of_box
from maskless.evaluation.models import bundled_folder
from maskless.evaluation.rows import Row, mean_row, share_row
from maskless.evaluation.storybook import Progress, case_of
from maskless.evaluation.tasks import Job, draw_jobs, judged
from maskless.method.anchor_net import frozen_projection, region_features, standardised
from maskless.method.anchors import find_anchors
from maskless.method.ranking import rank
from maskless.method.search import final_sizes, look_at, regions_seen, search, start_search
from maskless.storybook.judge import Judge, Verdict

SLOW_SHARE = 10
"""One in so many requests for what learns twenty times as slowly."""
SHARES = ("success", "region hit")
MEANS = ("region IoU", "region size", "CLIP loss", "directional loss", "structure loss", "inpaintings")
COMPARED = ("success", "region IoU")
"""Figures that are also given less the default's, request by request."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change.

    options: fields of EditConfig that differ. anchors_at_random, sizes_at_random: drawn, where the method finds anchors
    and learns sizes. slow: it is measured on a few requests only.
    """

    group: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    anchors_at_random: bool = False
    sizes_at_random: bool = False
    slow: bool = False

    @property
    def name(self) -> str:
        """What it is measured under: the same for variants that are the same by another label."""
        drawn = {"anchors": self.anchors_at_random, "sizes": self.sizes_at_random}
        at_random = [what for what, is_so in drawn.items() if is_so]
        return json.dumps({**self.options, "at random": at_random}, sort_keys=True)


def variants(config: EditConfig) -> list[Variant]:
    """Every change, by group; the default is the first of its group."""
    paper = {"anchor_source": "attention", "ranking": "paper"}
    sizes: dict[int, dict[str, Any]] = {
        1: {"min_window_size": 8, "max_window_size": 8},
        3: {"window_step": 4},
        6: {},
        12: {"window_step": 1},
    }
    made = [
        Variant(group="regions", label="learned"),
        Variant(group="regions", label="random sizes", sizes_at_random=True),
        Variant(group="regions", label="random anchors", anchors_at_random=True),
        Variant(group="regions", label="random both", anchors_at_random=True, sizes_at_random=True),
        Variant(group="regions as in the paper", label="learned", options=paper),
        Variant(group="regions as in the paper", label="random sizes", options=paper, sizes_at_random=True),
        Variant(
            group="regions as in the paper",
            label="random both",
            options=paper,
            anchors_at_random=True,
            sizes_at_random=True,
        ),
        Variant(group="losses", label="all"),
        Variant(group="losses", label="without L_clip", options={"alpha": 0.0}),
        Variant(group="losses", label="without L_dir", options={"beta": 0.0}),
        Variant(group="losses", label="without L_str", options={"gamma": 0.0}),
    ]
    made += [
        Variant(group="anchors from", label=source, options={"anchor_source": source})
        for source in ("both", "attention", "text")
    ]
    made += [Variant(group="anchors K", label=str(k), options={"anchors": k}) for k in (9, 1, 3, 16)]
    made += [Variant(group="sizes M", label=str(m), options=sizes[m]) for m in (6, 1, 3, 12)]
    made += [Variant(group="iterations", label=str(n), options={"iterations": n}) for n in (10, 1, 2, 3, 5, 20)]
    made.append(Variant(group="ranking", label="located"))
    for alpha, beta in ((2.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (0.0, 1.0)):
        options = {"ranking": "paper", "ranking_alpha": alpha, "ranking_beta": beta}
        made.append(Variant(group="ranking", label=f"paper, {alpha:g} text + {beta:g} image", options=options))
    made.append(Variant(group="estimator", label="table", slow=True))
    made.append(
        Variant(group="estimator", label="straight-through", options={"estimator": "straight-through"}, slow=True)
    )
    # What only says the default again is the default, so that it is measured once.
    return [replace(v, options={k: x for k, x in v.options.items() if x != getattr(config, k)}) for v in made]


def run(
    split: str = "held-out",
    limit: int | None = None,
    seed_offset: int = 0,
    models: str = "storybook",
    methods: Sequence[str] | None = None,
    steps: int | None = None,
    ledger: Path | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Every variant on `limit` requests (50), the slow ones on a tenth of them.

    Args:
        methods: groups to look at, such as losses; all by default. steps: denoising steps; the model's own where None.
        ledger: a file of what was measured, to go on from and to add to.
    Raises:
        MasklessError: an unknown group, an option out of range, a file that cannot be written.
    """
    config = EditConfig(steps=steps)
    editor = Editor.from_pretrained(models, config=config)
    folder = bundled_folder(models) / "judge"
    judge = Judge.from_pretrained(folder)
    code = [__file__, *storybook.code()]
    book = Ledger(ledger, suite="ablations", fingerprint=fingerprint(editor.models, config, code, judge=folder))
    jobs = draw_jobs("replace", split, 50 if limit is None else limit, seed_offset)
    chosen = _chosen(variants(config), methods)
    few = max(1, len(jobs) // SLOW_SHARE)
    planned = [(job, v) for n, job in enumerate(jobs) for v in chosen if n < few or not v.slow]
    tables: dict[int, RegionTable] = {}
    found: dict[tuple[str, str], list[Figures]] = {}
    for done, (job, variant) in enumerate(planned, start=1):
        seed = job.scene.graph.detail_seed
        if seed not in tables:
            tables = {seed: RegionTable(case_of(editor, job), job, judge, chosen)}
        figures = book.measured(variant.name, seed, partial(tables[seed].replay, variant))
        found.setdefault((variant.group, variant.label), []).append(figures)
        if progress is not None:
            progress(done, len(planned))
    return rows_of(found)


def _chosen(every: Sequence[Variant], groups: Sequence[str] | None) -> list[Variant]:
    known = list(dict.fromkeys(v.group for v in every))
    for group in groups or ():
        if group not in known:
            raise MasklessError(f"the groups of ablations are {', '.join(known)}, got {group}")
    return [v for v in every if groups is None or v.group in groups]


class RegionTable:
    """All regions of one request that any variant may look at, each inpainted once and only when one does."""

    def __init__(self, case: Case, job: Job, judge: Judge, among: Sequence[Variant]) -> None:
        self.case, self.job, self.judge, self.among = case, job, judge, among
        self._learned: dict[str, tuple[list[int], int]] = {}
        self._verdicts: dict[int, Verdict] = {}

    def replay(self, variant: Variant) -> Figures:
        """What a variant picks, and what it is worth."""
        config = replace(self.case.config, **variant.options)
        if config.estimator == "table":
            cells, inpaintings = self._candidates(variant, config)
            scores = self._evaluate.scores(cells, self._relevance)
            ranked = rank(scores, config.ranking, alpha=config.ranking_alpha, beta=config.ranking_beta)
            return self._worth(cells[ranked.order[0]], inpaintings)
        run = start_run(self.case.request, self.case.models, config)
        for _record in run:
            pass
        result = run.result()
        return self._worth(self._place[result.best.box_xyxy], result.cost.inpaintings)

    def _candidates(self, variant: Variant, config: EditConfig) -> tuple[list[int], int]:
        """One region an anchor, by its place in the table, and how many were looked at to choose them."""
        key = variant.name if variant.sizes_at_random else json.dumps([_learning(config), variant.anchors_at_random])
        if key not in self._learned:
            anchors = self._anchors(variant, config)
            regions = propose_regions(anchors, config.sizes, self.case.request.size_yx)
            places = [self._place[_corners(box)] for box in regions.boxes_xyxy]
            if variant.sizes_at_random:
                chosen = random_sizes(self.case, len(anchors))
                seen = len(anchors)
            else:
                chosen, seen = self._learn(regions, len(anchors), places, config)
            cells = [places[anchor * len(config.sizes) + size] for anchor, size in enumerate(chosen.tolist())]
            self._evaluate(cells)
            self._learned[key] = cells, seen
        return self._learned[key]

    def _learn(
        self, regions: Regions, anchors: int, places: Sequence[int], config: EditConfig
    ) -> tuple[Int[Tensor, " K"], int]:
        """Method steps 4 to 9 on the table. Returns the size of each anchor, and how many regions were looked at."""
        features = self._features
        boxes = scale_to_grid(regions.boxes_xyxy, self.case.request.size_yx, features.grid_yx)
        projection = frozen_projection(features.features.shape[0])
        seen_by_net = standardised(region_features(features.features, boxes, projection, anchors))
        state = start_search(seen_by_net, regions.boxes_xyxy, config, seed=self.case.seed)

        def losses(cells: list[int]) -> Tensor:
            at = [places[cell] for cell in cells]
            self._evaluate(at)
            parts = self._evaluate.losses(at)
            return config.alpha * parts.clip + config.beta * parts.directional + config.gamma * parts.structure

        for _record in search(state, seen_by_net, losses, config):
            pass
        chosen = final_sizes(state, seen_by_net)
        look_at(state, chosen, losses)
        return chosen, regions_seen(state)

    def _worth(self, cell: int, inpaintings: int) -> Figures:
        """The figures of a pick."""
        truth, box = self.case.truth_xyxy, _corners(self._regions.boxes_xyxy[cell])
        size_yx = self.case.request.size_yx
        region = mask_of_box(box, size_yx)
        self._evaluate([cell])
        losses = self._evaluate.losses([cell])
        if cell not in self._verdicts:
            edited = EditedImage(
                request=self.case.request,
                box_xyxy=box,
                window_xyxy=_corners(self._evaluate.windows_xyxy[cell]),
                crop=self._evaluate.candidates([cell]).crops[0],
                feather=self.case.config.feather,
            )
            self._verdicts[cell] = self.judge.detect([edited.pil()])[0]
        parts = judged(self.job, self._verdicts[cell], self._before)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return {
            "success": all(parts.values()),
            "parts": parts,
            "region hit": truth[0] <= x < truth[2] and truth[1] <= y < truth[3],
            "region IoU": mask_iou(region, mask_of_box(truth, size_yx)),
            "region size": float(region.float().mean()),
            "CLIP loss": float(losses.clip),
            "directional loss": float(losses.directional),
            "structure loss": float(losses.structure),
            "inpaintings": inpaintings,
        }

    def _anchors(self, variant: Variant, config: EditConfig) -> Anchors:
        if variant.anchors_at_random:
            return random_anchors(self.case, config.anchors)
        relevance = None if config.anchor_source == "attention" else self._relevance
        return find_anchors(self._features.attention, relevance, count=config.anchors, source=config.anchor_source)

    @cached_property
    def _features(self) -> Any:
        return self.case.models.dino.features(self.case.request.image)

    @cached_property
    def _relevance(self) -> Tensor:
        return self.case.models.clip.relevance(self.case.request.image, self.case.request.caption)

    @cached_property
    def _before(self) -> Verdict:
        return self.judge.detect([self.job.image])[0]

    @cached_property
    def _regions(self) -> Regions:
        """Every different box of every variant."""
        boxes: list[Tensor] = []
        for variant in self.among:
            config = replace(self.case.config, **variant.options)
            anchors = self._anchors(variant, config)
            boxes.append(propose_regions(anchors, config.sizes, self.case.request.size_yx).boxes_xyxy)
        different = torch.cat(boxes).unique(dim=0)
        nothing = torch.zeros(len(different), dtype=torch.long)
        return Regions(boxes_xyxy=different, anchor_index=nothing, size_index=nothing)

    @cached_property
    def _place(self) -> dict[Box, int]:
        """Where in the table a box is."""
        return {_corners(box): place for place, box in enumerate(self._regions.boxes_xyxy)}

    @cached_property
    def _evaluate(self) -> RegionEvaluator:
        models, case = self.case.models, self.case
        config = case.config.resolved(
            steps=models.inpainter.recommended_steps, guidance_scale=models.inpainter.recommended_guidance
        )
        return RegionEvaluator(case.request, self._regions, models, config, seed=case.seed, stopwatch=Stopwatch())


def rows_of(found: Mapping[tuple[str, str], Sequence[Figures]]) -> list[Row]:
    """Shares and means of each variant, and how much they are above the first of its group, request by request."""
    first: dict[str, tuple[str, Sequence[Figures]]] = {}
    rows: list[Row] = []
    for (group, label), each in found.items():
        base, by_default = first.setdefault(group, (label, each))
        names = {"suite": "ablations", "method": label, "task": group}
        rows += [share_row([one[metric] for one in each], **names, metric=metric) for metric in SHARES]
        rows += [mean_row([float(one[metric]) for one in each], **names, metric=metric) for metric in MEANS]
        if label != base:
            for metric in COMPARED:
                pairs = zip(each, by_default, strict=True)
                less = [float(one[metric]) - float(other[metric]) for one, other in pairs]
                rows.append(mean_row(less, **names, metric=f"{metric} less that of {base}"))
    return rows


def _learning(config: EditConfig) -> dict[str, Any]:
    """The options that what is learned depends on: all but the ranking's."""
    return {name: value for name, value in config.to_dict().items() if not name.startswith("ranking")}


def _corners(box: Tensor) -> Box:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1
