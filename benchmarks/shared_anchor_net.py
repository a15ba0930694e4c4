"""What one AnchorNet for many pictures brings: searches that start from it, beside searches that start from nothing.

    python benchmarks/shared_anchor_net.py [--train 60] [--scenes 100] [--options "--search learned --iterations 5"]

It is trained on scenes of the split "train" and measured on scenes of "validation". Both searches of a scene have the
same options, and so the same budget of iterations. The table has the mean of each figure and of its paired difference,
with 95 % intervals. Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shlex
import sys
import tempfile
from pathlib import Path

import torch

from maskless.batch.anchor_training import train_shared
from maskless.batch.keys import Keys
from maskless.batch.manifest import read_manifest
from maskless.batch.rows import Row
from maskless.batch.worker import Worker, WorkerSettings
from maskless.data.config import EditConfig
from maskless.data.keep_options import KeepOptions
from maskless.data.model_options import ModelOptions
from maskless.data.options import OptionValue
from maskless.engine.search_run import SearchRun
from maskless.records.checkpoints import Checkpoint, load_checkpoint, start_from
from maskless.storybook.judge import iou
from maskless.storybook.world.scenes import VisibleObject, render, split_seed

OPTIONS = "--search learned --anchors 3 --iterations 3 --steps 4 --views 2"
FIGURES = ("cost of the best candidate", "overlap with the object (IoU)", "inpaintings")


def write_rows(folder: Path, split: str, count: int) -> dict[str, VisibleObject]:
    """Scenes of a split with an object, as files, and a manifest of them; gives the named object of each row."""
    folder.mkdir()
    rows, named = [], {}
    scenes = (render(split_seed(split, number)) for number in itertools.count())
    for number, scene in enumerate(itertools.islice((scene for scene in scenes if scene.objects), count)):
        scene.image.save(folder / f"{number}.png")
        named[str(number)] = scene.objects[-1]  # the one in front
        caption = f"a {scene.objects[-1].colour} {scene.objects[-1].kind}"
        rows.append({"image": f"{number}.png", "caption": caption, "prompt": "a blue house"})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return named


def figures(worker: Worker, row: Row, named: VisibleObject, shared: Checkpoint | None) -> list[float]:
    """The FIGURES of one edit."""
    prepared = worker.prepare(row)
    assert prepared.request is not None, prepared.error
    run = worker.start(prepared.request, row)
    assert isinstance(run, SearchRun)
    if shared is not None:
        start_from(run, shared)
    result = run.result()
    costs = run.objective.flatten()
    boxes = run.regions.boxes_xyxy
    best = torch.tensor(result.best.box_xyxy)
    cells = (boxes == best.to(boxes)).all(dim=1)
    cost = float(costs[cells].nan_to_num(torch.inf).min())
    return [cost, iou(result.best.box_xyxy, named.box_xyxy), float(result.cost.inpaintings)]


def interval(values: list[float]) -> str:
    """Mean and half of the 95 % interval."""
    numbers = torch.tensor(values, dtype=torch.float64)
    half = 1.96 * float(numbers.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{float(numbers.mean()):.3f} ± {half:.3f}"


def main() -> None:
    """Read the command line, train and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--options", default=OPTIONS, help="options of every edit, as --name value")
    chosen = parser.parse_args()
    words = shlex.split(chosen.options)
    options: dict[str, OptionValue] = {
        name.removeprefix("--").replace("-", "_"): json.loads(value) if value[0] in "-.0123456789" else value
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
    config = EditConfig(**options)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        settings = WorkerSettings(
            output="output", models=ModelOptions(), config=config, keep=KeepOptions(), keys=Keys(base="benchmark")
        )
        worker = Worker(settings)
        write_rows(Path("train"), "train", chosen.train)
        rows = read_manifest("train/rows.jsonl").rows
        trained = train_shared(
            rows, worker, Path("lessons"), progress=lambda done, total: print(f"train {done}/{total}", file=sys.stderr)
        )
        Path("shared.pth").write_bytes(trained.content)
        shared = load_checkpoint("shared.pth")
        named = write_rows(Path("validation"), "validation", chosen.scenes)
        pairs = []
        for row in read_manifest("validation/rows.jsonl").rows:
            pairs.append([figures(worker, row, named[row.id], start) for start in (None, shared)])
            print(f"validation {len(pairs)}/{chosen.scenes}", file=sys.stderr)
    print(f"{chosen.train} scenes to train, {len(pairs)} to measure, options {chosen.options}\n")
    print(f"Expected cost of the training scenes: {trained.before:.3f} before, {trained.after:.3f} after\n")
    print("| figure | from nothing | from the shared AnchorNet | difference |\n|---|---:|---:|---:|")
    for number, figure in enumerate(FIGURES):
        alone, together = ([pair[way][number] for pair in pairs] for way in (0, 1))
        difference = [second - first for first, second in zip(alone, together, strict=True)]
        print(f"| {figure} | {interval(alone)} | {interval(together)} | {interval(difference)} |")


if __name__ == "__main__":
    main()
