"""One AnchorNet for many pictures, in place of one that every picture trains from the beginning.

Each picture is searched once, which gives a lesson: AnchorNet's input and the losses of the regions that were tried.
Then one AnchorNet minimises the expected loss over all lessons together. Its checkpoint is a start for other searches
(`--load-checkpoint`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from maskless.batch.keys import content_of
from maskless.batch.rows import Row
from maskless.batch.worker import Worker
from maskless.data.config import EditConfig
from maskless.data.errors import require
from maskless.data.files import write_bytes
from maskless.engine.run import gradients
from maskless.engine.search_run import SearchRun
from maskless.method.anchor_net import AnchorNet
from maskless.method.search import BETAS, WEIGHT_DECAY
from maskless.records.checkpoints import LOAD_ERRORS, anchor_net_content

MOST_LESSONS = 2000
"""Of a larger set every n-th picture is used: 1,678 parameters do not need more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What one picture teaches. features: AnchorNet's input, computed with the frozen projection. costs: what AnchorNet
    minimises; NaN where not tried."""

    features: Float[Tensor, "K C 8 8"]
    costs: Float[Tensor, "K M"]
    projection: Float[Tensor, "12 D 1 1"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A trained AnchorNet. lessons: how many pictures it learned from. before, after: the mean expected cost, in
    standard deviations of a picture's costs, of the untrained and of the trained network; 0 is the mean region."""

    content: bytes
    lessons: int
    before: float
    after: float


def train_shared(rows: Sequence[Row], worker: Worker, folder: Path, *, progress: Callable[[int, int], None]) -> Trained:
    """Search every row once, and train one AnchorNet on all of it.

    Lessons are kept in the folder, so training that was interrupted continues. Rows whose edit searches no region, or
    chooses among another number of sizes than the options of the batch give, are left out.

    progress: called as progress(done, total) before the first and after every picture.

    Raises:
        MasklessError: no row gives a lesson.
    """
    chosen = rows[:: -(-len(rows) // MOST_LESSONS)]
    config, lessons = worker.settings.config, []
    progress(0, len(chosen))
    for number, row in enumerate(chosen, start=1):
        lesson = _lesson(row, worker, folder)
        if lesson is not None and lesson.costs.shape[1] == len(config.sizes):
            lessons.append(lesson)
        progress(number, len(chosen))
    require(bool(lessons), "no row of the manifest searches for a region, so there is nothing to train")
    with gradients():
        net, before, after = fit(lessons, config)
    file = io.BytesIO()
    torch.save(anchor_net_content(net.state_dict(), lessons[0].projection, config, worker.models), file)
    return Trained(content=file.getvalue(), lessons=len(lessons), before=before, after=after)


def fit(lessons: Sequence[Lesson], config: EditConfig) -> tuple[AnchorNet, float, float]:
    """An AnchorNet that minimises the mean expected cost over all lessons.

    Every picture has the same weight: its costs are standardised. Returns the network, and the mean expected cost
    before and after.
    """
    generator = torch.Generator().manual_seed(config.seed)
    net = AnchorNet(lessons[0].costs.shape[1], generator)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr, betas=BETAS, weight_decay=WEIGHT_DECAY)
    features = torch.cat([lesson.features for lesson in lessons])
    costs = torch.cat([_standardised(lesson.costs) for lesson in lessons])
    known = costs.isfinite()
    used = known.any(dim=1)
    features, costs, known = features[used], costs[used].nan_to_num(0.0), known[used]

    def expected() -> Tensor:
        # Of the sizes that were tried; the others cost nothing that is known.
        chances = net(features).masked_fill(~known, float("-inf")).softmax(dim=1)
        return (chances * costs).sum(dim=1).mean()

    before = float(expected().detach())
    for _ in range(config.updates):
        optimizer.zero_grad()
        loss = expected()
        loss.backward()
        optimizer.step()
    return net, before, float(expected().detach())


def _lesson(row: Row, worker: Worker, folder: Path) -> Lesson | None:
    """The lesson of a row, from the folder or from a search; None if the row cannot be read or searches nothing."""
    path = folder / f"{worker.settings.keys.key(row, content_of(row))}.pt"
    saved = _read(path)
    if saved is not None:
        return saved
    prepared = worker.prepare(row)
    run = None if prepared.request is None else worker.start(prepared.request, row)
    if not isinstance(run, SearchRun):
        return None
    for _step in run:
        pass
    setup = run.setup
    parts = {"features": setup.features, "costs": run.objective, "projection": setup.projection}
    parts = {name: tensor.detach().clone() for name, tensor in parts.items()}
    file = io.BytesIO()
    torch.save(parts, file)
    write_bytes(path, file.getvalue())
    return Lesson(**parts)


def _read(path: Path) -> Lesson | None:
    """The lesson in a file; None if there is none, or if it is damaged."""
    try:
        return Lesson(**torch.load(path, map_location="cpu", weights_only=True)) if path.is_file() else None
    except (*LOAD_ERRORS, TypeError):
        return None


def _standardised(costs: Float[Tensor, "K M"]) -> Float[Tensor, "K M"]:
    """The costs of one picture with mean 0 and standard deviation 1; NaN stays."""
    known = costs[costs.isfinite()]
    return (costs - known.mean()) / known.std(correction=0).clamp(min=1e-6)
