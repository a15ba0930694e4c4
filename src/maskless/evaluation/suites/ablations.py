"""The suite `ablations`: the method's choices, changed one at a time, on the same requests.

Of each request one table of regions is filled, as far as any variant looks, and every variant is the engine's own run
on it. That is exact: a region's edit depends on nothing that is learned, and the losses' parts are kept unreduced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.data.config import EditConfig
from maskless.data.errors import MasklessError
from maskless.data.result import EditedImage
from maskless.engine.editor import Editor
from maskless.engine.search_run import EditRun
from maskless.evaluation.measures.ledger import Figures, Ledger, fingerprint
from maskless.evaluation.measures.metrics import mask_iou, mask_of_box
from maskless.evaluation.measures.rows import Row, mean_row, share_row
from maskless.evaluation.methods.baselines import AS_IN_THE_PAPER
from maskless.evaluation.methods.cases import Box, Case, Progress, random_anchors, random_sizes
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import Job, draw_jobs, judged
from maskless.evaluation.suites.models import bundled_folder
from maskless.method.ranking import rank
from maskless.storybook.judge import Judge, Verdict

SLOW_SHARE = 10
"""One in so many requests for what learns twenty times as slowly."""
SHARES = ("success", "region hit")
LOSSES = ("CLIP loss", "directional loss", "structure loss", "local loss")
MEANS = ("region IoU", "region size", *LOSSES, "inpaintings")
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
    for group, options in (("losses", {}), ("losses as in the paper", AS_IN_THE_PAPER)):
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
        Variant(group="place", label=f"{weight:g}", options={"place": weight}) for weight in (2.0, 0.0, 1.0, 4.0, 8.0)
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
    book = Ledger(ledger, suite="ablations", fingerprint=fingerprint(editor.models, config, [__file__], judge=folder))
    jobs = draw_jobs("replace", split, 50 if limit is None else limit, seed_offset)
    chosen = _chosen(variants(config), methods)
    few = max(1, len(jobs) // SLOW_SHARE)
    planned = [(job, v) for n, job in enumerate(jobs) for v in chosen if n < few or not v.slow]
    tables: dict[int, LentRegions] = {}
    found: dict[tuple[str, str], list[Figures]] = {}
    for done, (job, variant) in enumerate(planned, start=1):
        seed = job.scene.graph.detail_seed
        if seed not in tables:
            tables = {seed: LentRegions(case_of(editor, job), job, judge)}
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


class LentRegions:
    """All regions of one request that any variant looks at, each inpainted once: every variant's run is lent what those
    before it inpainted, with the losses weighed anew."""

    def __init__(self, case: Case, job: Job, judge: Judge) -> None:
        self.case, self.job, self.judge = case, job, judge
        self.known: dict[Box, tuple[Tensor, Tensor]] = {}
        self._verdicts: dict[Box, Verdict] = {}

    def replay(self, variant: Variant) -> Figures:
        """What a variant picks, and what it is worth."""
        config = replace(self.case.config, **variant.options)
        anchors = random_anchors(self.case, config.anchors) if variant.anchors_at_random else None
        run = EditRun(self.case.request, self.case.models, config, anchors=anchors)
        self._lend(run)
        if variant.sizes_at_random:
            edited, losses = self._drawn(run)
            inpaintings = len(run.anchors)
        else:
            for _record in run:
                pass
            result = run.result()
            edited, best = result.best, result.order[0]
            losses = result.losses.rows[best, :-1]
            inpaintings = _looked_at(run)
        self._take(run)
        return self._worth(edited, losses, inpaintings)

    def _lend(self, run: EditRun) -> None:
        """Give a run the regions that are known."""
        boxes = [_corners(box) for box in run.regions.boxes_xyxy]
        cells = [cell for cell, box in enumerate(boxes) if box in self.known]
        weights = torch.tensor([run.config.alpha, run.config.beta, run.config.gamma, run.config.delta])
        crops, parts = zip(*(self.known[boxes[cell]] for cell in cells), strict=True) if cells else ((), ())
        losses = [torch.cat([part, (weights * part).sum()[None]]) for part in parts]
        run.evaluator.restore(run.evaluator.to_dict() | {"cells": cells, "crops": crops, "losses": losses})

    def _take(self, run: EditRun) -> None:
        """Keep what a run inpainted."""
        kept = run.evaluator.to_dict()
        for cell, crop, losses in zip(kept["cells"], kept["crops"], kept["losses"], strict=True):
            self.known[_corners(run.regions.boxes_xyxy[cell])] = crop, losses[:-1]

    def _drawn(self, run: EditRun) -> tuple[EditedImage, Float[Tensor, " 4"]]:
        """A random size for each anchor, ranked as the options say: the edit, and the parts of its loss."""
        config, request = run.config, run.request
        sizes = random_sizes(replace(self.case, config=config), len(run.anchors)).tolist()
        cells = [anchor * len(config.sizes) + size for anchor, size in enumerate(sizes)]
        run.evaluator(cells)
        scores = run.evaluator.scores(cells, run.place)
        best = cells[rank(scores, config.ranking, alpha=config.ranking_alpha, beta=config.ranking_beta).order[0]]
        made, losses = run.evaluator.candidates([best]), run.evaluator.losses([best])
        edited = EditedImage(
            request=request,
            box_xyxy=_corners(made.regions.boxes_xyxy[0]),
            window_xyxy=_corners(made.windows_xyxy[0]),
            crop=made.crops[0],
            feather=config.feather,
        )
        return edited, losses.rows[0, :-1]

    def _worth(self, edited: EditedImage, losses: Float[Tensor, " 4"], inpaintings: int) -> Figures:
        """The figures of a pick."""
        truth, box = self.case.truth_xyxy, edited.box_xyxy
        region = edited.touched()
        if box not in self._verdicts:
            self._verdicts[box] = self.judge.detect([edited.pil()])[0]
        parts = judged(self.job, self._verdicts[box], self._before)
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return {
            "success": all(parts.values()),
            "parts": parts,
            "region hit": truth[0] <= x < truth[2] and truth[1] <= y < truth[3],
            "region IoU": mask_iou(region, mask_of_box(truth, self.case.request.size_yx)),
            "region size": float(region.float().mean()),
            **dict(zip(LOSSES, losses.tolist(), strict=True)),
            "inpaintings": inpaintings,
        }

    @cached_property
    def _before(self) -> Verdict:
        return self.judge.detect([self.job.image])[0]


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


def _looked_at(run: EditRun) -> int:
    """How many different regions the search looked at, lent or inpainted."""
    found = run.state()["search"]
    return len(found["same_as"][~found["table"].flatten().isnan()].unique())


def _corners(box: Tensor) -> Box:
    x0, y0, x1, y1 = box.tolist()
    return x0, y0, x1, y1
