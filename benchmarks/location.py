"""How well the object of a caption is found before anything is inpainted, and what that costs.

    python benchmarks/location.py [--scenes 40] [--seed-offset 310000] [--requests plain crowded paraphrased]

For requests of the split "validation": the intersection over union of the first region with the object's true box, the
share of at least 1/2, the share that is clean (it covers 9/10 of the object and under 1/10 of any other), the best of
the three regions that a placed search would edit, the share of requests in which one region is enough, the pictures
that CLIP encodes, and the seconds. Means, with 95 % intervals. To compare two versions of the code, run it in both.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import torch

from maskless import Editor
from maskless.data.boxes import corners
from maskless.evaluation.methods.trials import case_of
from maskless.evaluation.requests.jobs import REQUESTS, draw_jobs
from maskless.locating.location import is_clear, locate, propose
from maskless.method.placed import best_different
from maskless.models.clip import Clip
from maskless.storybook.judge import iou
from maskless.storybook.world.scenes import Scene

FIGURES = (
    "IoU of the first",
    "at least 1/2",
    "clean",
    "best IoU of three",
    "one is enough",
    "CLIP's pictures",
    "seconds",
)


class CountingClip(Clip):
    """Counts the pictures that it encodes."""

    pictures = 0

    def preprocess(self, images: torch.Tensor) -> torch.Tensor:
        """CLIP's input."""
        self.pictures += len(images)
        return super().preprocess(images)


def is_clean(box_xyxy: tuple[int, int, int, int], scene: Scene, truth_xyxy: tuple[int, int, int, int]) -> bool:
    """Whether a box covers 9/10 of the object with this true box, and under 1/10 of every other object."""
    x0, y0, x1, y1 = box_xyxy
    for item in scene.objects:
        covered = item.mask[y0:y1, x0:x1].sum() / item.mask.sum()
        if covered < 0.9 if tuple(item.box_xyxy) == tuple(truth_xyxy) else covered >= 0.1:
            return False
    return True


def measure(editor: Editor, requests: str, count: int, offset: int) -> list[list[float]]:
    """The FIGURES of each request."""
    clip = editor.models.clip
    assert isinstance(clip, CountingClip)
    rows = []
    for number, job in enumerate(draw_jobs("replace", "validation", count, offset, requests=requests), start=1):
        case = case_of(editor, job)
        began, before = time.perf_counter(), clip.pictures
        with torch.no_grad():
            location = locate(case.view, case.request.caption, case.resolved)
            proposals = propose(case.view, case.request.caption, location, case.resolved)
        seconds, pictures = time.perf_counter() - began, clip.pictures - before
        boxes = proposals.regions.boxes_xyxy
        overlaps = [iou(corners(boxes[cell]), case.truth_xyxy) for cell in best_different(proposals.score, boxes, 3)]
        clear = is_clear(case.view, location, proposals)
        clean = is_clean(corners(boxes[int(proposals.score.argmax())]), job.scene, case.truth_xyxy)
        rows.append([overlaps[0], overlaps[0] >= 0.5, clean, max(overlaps), clear, pictures, seconds])
        print(f"{requests} {number}/{count}", file=sys.stderr)
    return rows


def main() -> None:
    """Read the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--seed-offset", type=int, default=310_000)
    parser.add_argument("--requests", nargs="+", choices=REQUESTS, default=list(REQUESTS))
    chosen = parser.parse_args()
    editor = Editor.from_pretrained("storybook")
    editor.models.clip.__class__ = CountingClip
    print(f"| requests ({chosen.scenes} each) | {' | '.join(FIGURES)} |\n|---|{'---:|' * len(FIGURES)}")
    for requests in chosen.requests:
        values = torch.tensor(measure(editor, requests, chosen.scenes, chosen.seed_offset), dtype=torch.float64)
        means, half = values.mean(dim=0), 1.96 * values.std(dim=0) / math.sqrt(len(values))
        cells = [f"{mean:.2f} ± {error:.2f}" for mean, error in zip(means.tolist(), half.tolist(), strict=True)]
        print(f"| {requests} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
