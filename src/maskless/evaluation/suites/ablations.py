"""The suite `ablations`: the method's choices, changed one at a time, on the same requests.

For each request the regions that any variant looks at are inpainted once, and every variant is a run of the engine on
them. That is exact: the edit of a region depends on nothing that is learned, and the parts of the losses are kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.boxes import corners
from maskless.data.config import AS_IN_THE_PAPER, ResolvedConfig
from maskless.data.result import EditedImage
from maskless.engine.run import resolved
from maskless.engine.search_run import SearchPlan, SearchRun
from maskless.evaluation.measures import figures
from maskless.evaluation.measures.metrics import centre_in, mask_iou, mask_of_box
from maskless.evaluation.measures.rows import Figures, Row, RowNames, difference_row, rows_of_figures
from maskless.evaluation.methods.cases import Box, Case, random_anchors, random_sizes
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import Job, draw_jobs, judged
from maskless.evaluation.suite import SuiteOptions, chosen, prepare
from maskless.method.losses import weights
from maskless.method.ranking import rank
from maskless.storybook.judge import Judge, Verdict

TAKES = ("split", "limit", "seed_offset", "models", "methods", "steps", "ledger", "progress")
REQUESTS = 50
SLOW_SHARE = 10
"""Slow variants are measured on one in so many requests."""
LOSSES = (figures.CLIP_LOSS, figures.DIRECTIONAL_LOSS, figures.STRUCTURE_LOSS, figures.LOCAL_LOSS)
"""The parts of the loss, in the order of the rows of `Losses`."""
COMPARED = (figures.SUCCESS, figures.REGION_IOU)
"""Figures whose difference from the default's is also a row."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One change of the method.

    options: fields of EditConfig that differ from the default. anchors_at_random: anchors are drawn at random instead
    of found. sizes_at_random: sizes are drawn at random instead of learned. slow: measured on a few requests only.
    """

    group: str
    label: str
    options: Mapping[str, Any] = field(default_factory=dict)
    anchors_at_random: bool = False
    sizes_at_random: bool = False
    slow: bool = False

    @property
    def name(self) -> str:
        """The name in the ledger; it is the same for variants that are the same change under another label."""
        random = {"anchors": self.anchors_at_random, "sizes": self.sizes_at_random}
        at_random = [what for what, is_random in random.items() if is_random]
        return json.dumps({**self.options, "at random": at_random}, sort_keys=True)


def variants(config: ResolvedConfig) -> list[Variant]:
    """Every change, by group; the default is the first one of its group."""
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
        Variant(group="regions as in the paper", label="learned", options=AS_IN_THE_PAPER),
        Variant(group="regions as in the paper", label="random sizes", options=AS_IN_THE_PAPER, sizes_at_random=True),
        Variant(
            group="regions as in the paper",
            label="random both",
            options=AS_IN_THE_PAPER,
            anchors_at_random=True,
            sizes_at_random=True,
        ),
    ]
    groups: tuple[tuple[str, dict[str, Any]], ...] = (("losses", {}), ("losses as in the paper", AS_IN_THE_PAPER))
    for group, options in groups:
        made.append(Variant(group=group, label="all", options=options))
        for weight, left_out in (("alpha", "L_clip"), ("beta", "L_dir"), ("gamma", "L_str"), ("delta", "L_local")):
            if weight not in options:  # the paper has no L_local
                made.append(Variant(group=group, label=f"without {left_out}", options={**options, weight: 0.0}))
    made += [
        Variant(group="anchors from", label=source, options={"anchor_source": source})
        for source in ("both", "attention", "text")
    ]
    made += [Variant(group="anchors K", label=str(k), options={"anchors": k}) for k in (9, 1, 3, 16)]
    made += [Variant(group="sizes M", label=str(m), options=sizes[m]) for m in (6, 1, 3, 12)]
    made += [Variant(group="iterations", label=str(n), options={"iterations": n}) for n in (10, 1, 2, 3, 5, 20)]
    made += [
        Variant(group="location", label=f"{weight:g}", options={"location_weight": weight})
        for weight in (2.0, 0.0, 1.0, 4.0, 8.0)
    ]
    made += [
        Variant(group="edges", label=label, options={"fit_edges": fitted})
        for label, fitted in (("fitted", True), ("square", False))
    ]
    made.append(Variant(group="ranking", label="located"))
    for alpha, beta in ((2.0, 1.0), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0), (0.0, 1.0)):
        options = {"ranking": "paper", "ranking_alpha": alpha, "ranking_beta": beta}
        made.append(Variant(group="ranking", label=f"paper, {alpha:g} text + {beta:g} image", options=options))
    made.append(Variant(group="estimator", label="table", slow=True))
    made.append(
        Variant(group="estimator", label="straight-through", options={"estimator": "straight-through"}, slow=True)
    )
    # An option that only repeats the default is left out, so that the default is measured once.
    return [replace(v, options={k: x for k, x in v.options.items() if x != getattr(config, k)}) for v in made]


def run(options: SuiteOptions) -> list[Row]:
    """Every variant on `limit` requests (50), the slow ones on a tenth of them.

    methods: groups of variants to measure, such as losses.

    Raises:
        MasklessError: an unknown group, an option out of range, a file that cannot be written.
    """
    config = replace(options.edit_config("steps"), search="learned")
    every = variants(config.resolved())
    groups = chosen(options.methods, dict.fromkeys(v.group for v in every), what="the groups of ablations")
    bench = prepare(options, "ablations", [__file__], config)
    jobs = draw_jobs("replace", options.split, options.limit or REQUESTS, options.seed_offset)
    few = max(1, len(jobs) // SLOW_SHARE)
    picked = [v for v in every if v.group in groups]
    planned = [(job, v) for n, job in enumerate(jobs) for v in picked if n < few or not v.slow]
    tables: dict[int, LentRegions] = {}
    found: dict[tuple[str, str], list[Figures]] = {}
    for done, (job, variant) in enumerate(planned, start=1):
        seed = job.scene.graph.detail_seed
        if seed not in tables:
            tables = {seed: LentRegions(case_of(bench.editor, job), job, bench.judge)}
        measured = bench.ledger.measured(variant.name, seed, partial(tables[seed].replay, variant))
        found.setdefault((variant.group, variant.label), []).append(measured)
        options.progress(done, len(planned))
    return rows_of(found)


class LentRegions:
    """The edits of one request that all variants share, so that each region is inpainted once.

    The run of a variant gets the edits of earlier runs, with the losses weighted by its own options.
    """

    def __init__(self, case: Case, job: Job, judge: Judge) -> None:
        self.case, self.job, self.judge = case, job, judge
        self.known: dict[Box, tuple[Tensor, Tensor]] = {}
        self._verdicts: dict[Box, Verdict] = {}

    def replay(self, variant: Variant) -> Figures:
        """The figures of the region that a variant picks."""
        config = replace(self.case.config, **variant.options)
        anchors = random_anchors(self.case, config.anchors) if variant.anchors_at_random else None
        case = self.case
        asked = resolved(config, case.request, case.models)
        plan = SearchPlan(anchors=anchors)
        run = SearchRun(case.request, case.models, asked, plan=plan, view=case.view)
        self._lend(run)
        if variant.sizes_at_random:
            edited, losses = self._random_sizes(run)
            inpaintings = len(run.anchors)
        else:
            result = run.result()
            edited, best = result.best, result.order[0]
            losses = result.losses.rows[best, :-1]
            inpaintings = _evaluated_region_count(run)
        self._take(run)
        return self._figures(edited, losses, inpaintings)

    def _lend(self, run: SearchRun) -> None:
        """Give a run the regions that were inpainted before."""
        boxes = [corners(box) for box in run.regions.boxes_xyxy]
        cells = [cell for cell, box in enumerate(boxes) if box in self.known]
        weight = torch.tensor(weights(run.used))
        crops, parts = zip(*(self.known[boxes[cell]] for cell in cells), strict=True) if cells else ((), ())
        losses = [torch.cat([part, (weight * part).sum()[None]]) for part in parts]
        run.edits.restore({**run.edits.to_dict(), "cells": cells, "crops": crops, "losses": losses})

    def _take(self, run: SearchRun) -> None:
        """Keep the regions that a run inpainted."""
        kept = run.edits.to_dict()
        for cell, crop, losses in zip(kept["cells"], kept["crops"], kept["losses"], strict=True):
            self.known[corners(run.regions.boxes_xyxy[cell])] = crop, losses[:-1]

    def _random_sizes(self, run: SearchRun) -> tuple[EditedImage, Float[Tensor, " 4"]]:
        """The best edit among one random size for each anchor, by the ranking of the options, and the parts of its
        loss."""
        config = run.used
        sizes = random_sizes(replace(self.case, config=config), len(run.anchors)).tolist()
        cells = [anchor * len(config.sizes) + size for anchor, size in enumerate(sizes)]
        run.edits(cells)
        scores = run.edits.scores(cells, run.setup.proposals.score)
        best = cells[rank(scores, config.ranking, alpha=config.ranking_alpha, beta=config.ranking_beta).order[0]]
        made, losses = run.edits.candidates([best]), run.edits.losses([best])
        return EditedImage.of(run.request, made, 0), losses.rows[0, :-1]

    def _figures(self, edited: EditedImage, losses: Float[Tensor, " 4"], inpaintings: int) -> Figures:
        """The figures of a picked region."""
        truth, box = self.case.truth_xyxy, edited.box_xyxy
        region = edited.region()
        if box not in self._verdicts:
            self._verdicts[box] = self.judge.detect([edited.pil()])[0]
        parts = judged(self.job, self._verdicts[box], self._before)
        return {
            figures.SUCCESS: all(parts.values()),
            "parts": parts,
            figures.REGION_HIT: centre_in(box, truth),
            figures.REGION_IOU: mask_iou(region, mask_of_box(truth, self.case.request.size_yx)),
            figures.REGION_SIZE: float(region.float().mean()),
            **dict(zip(LOSSES, losses.tolist(), strict=True)),
            figures.INPAINTINGS: inpaintings,
        }

    @cached_property
    def _before(self) -> Verdict:
        return self.judge.detect([self.job.image])[0]


def rows_of(found: Mapping[tuple[str, str], Sequence[Figures]]) -> list[Row]:
    """The figures of each variant, and their differences from the first variant of its group, request by request."""
    first: dict[str, tuple[str, Sequence[Figures]]] = {}
    rows: list[Row] = []
    for (group, label), each in found.items():
        base, by_default = first.setdefault(group, (label, each))
        names: RowNames = {"suite": "ablations", "method": label, "task": group}
        rows += rows_of_figures(each, figures.FIGURES, **names)
        if label != base:
            for metric in COMPARED:
                ours, others = ([one[metric] for one in variant] for variant in (each, by_default))
                rows.append(difference_row(ours, others, base, **names, metric=metric))
    return rows


def _evaluated_region_count(run: SearchRun) -> int:
    """The number of different regions that the search evaluated, including those inpainted by earlier runs."""
    search = run.setup.search
    return len(search.same_as[~search.table.flatten().isnan()].unique())
