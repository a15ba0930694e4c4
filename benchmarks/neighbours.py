"""How much of the neighbours that reach into an object's region is kept, and whether anything of the object itself is.

    python benchmarks/neighbours.py [--scenes 60]

Flat validation scenes of 256 pixels, whose frontmost object is to be replaced in a square around it that another object
reaches into. The truth is the renderer's. The command prints a table for docs/search.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import mean

import torch
from torch import Tensor

from maskless import Editor
from maskless.data.boxes import Box
from maskless.data.masks import box_mask
from maskless.locating.neighbours import neighbours
from maskless.storybook.world.scenes import Scene, render, split_seed

SIDE, FIRST, ROOM = 256, 60_000, 0.1
"""Side of the scenes in pixels, the first scene of the split, and the room around the object in shares of its box."""
MIN_PIXELS = 30
"""Least number of pixels of other objects in a region that counts."""


def cases() -> Iterator[tuple[Scene, Box, Tensor, Tensor]]:
    """Scenes with a region, the mask of its object, and that of the other objects in it."""
    index = FIRST
    while True:
        scene, index = render(split_seed("validation", index), SIDE), index + 1
        if scene.graph.style != "flat" or len(scene.objects) < 2:
            continue
        x0, y0, x1, y1 = scene.objects[-1].box_xyxy
        half = max(x1 - x0, y1 - y0) * (0.5 + ROOM)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        box = (max(0, round(x - half)), max(0, round(y - half)), min(SIDE, round(x + half)), min(SIDE, round(y + half)))
        masks = torch.stack([torch.from_numpy(item.mask) for item in scene.objects])
        others = masks[:-1].any(dim=0) & box_mask(box, (SIDE, SIDE))
        if int(others.sum()) >= MIN_PIXELS:
            yield scene, box, masks[-1], others


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=60)
    count = parser.parse_args().scenes
    editor = Editor.from_pretrained("storybook")
    kept, lost = [], []
    for _number, (scene, box, own, others) in zip(range(count), cases(), strict=False):
        found = neighbours(editor.look(scene.image), box, replaces=True)
        found = torch.zeros_like(own) if found is None else found
        kept.append(float(found[others].float().mean()))
        lost.append(float(found[own].float().mean()))
    print(f"| of {count} regions that other objects reach into | |\n|---|---|")
    print(f"| share of the others' pixels that is kept, mean | {100 * mean(kept):.0f} % |")
    print(f"| regions in which more than half of them is kept | {100 * mean(each > 0.5 for each in kept):.0f} % |")
    print(f"| share of the object's own pixels that is kept, mean and maximum | {100 * mean(lost):.1f} %, "
          f"{100 * max(lost):.1f} % |")  # fmt: skip


if __name__ == "__main__":
    main()
