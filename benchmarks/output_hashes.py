"""Hashes of what every kind of edit makes, to show that a change of the code changes no output.

    git worktree add ../before 17fb70a
    PYTHONPATH=../before/src python benchmarks/output_hashes.py > before.json
    PYTHONPATH=src python benchmarks/output_hashes.py --compare before.json

Only the public API is used, so that the same file runs on both sides. Hashes are comparable on one machine: another
processor may compute in another number format, and so draw other pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskless import EditConfig, Editor, EditResult

PACKAGE = Path(str(resources.files("maskless")))
DESERT, MEADOW, ROOM = (PACKAGE / "assets" / "samples" / f"{name}.png" for name in ("desert", "meadow", "room"))
CENTRE = (85, 85, 171, 171)
LEARNED: dict[str, Any] = {"search": "learned"} if hasattr(EditConfig(), "search") else {}  # there was no other before
SHORT: dict[str, Any] = {"iterations": 2, "anchors": 3, **LEARNED}
WEIGHT = "location_weight" if hasattr(EditConfig, "location_weight") else "place"  # its name before the redesign
PAPER: dict[str, Any] = {
    WEIGHT: 0.0,
    "delta": 0.0,
    "fit_edges": False,
    "anchor_source": "attention",
    "ranking": "paper",
}


def damaged(path: Path) -> np.ndarray:
    """The picture with two white scratches, [H, W, 3] uint8."""
    from PIL import Image

    pixels = np.asarray(Image.open(path).convert("RGB")).copy()
    pixels[30:200, 100:102] = 255
    pixels[150:153, 20:230] = 255
    return pixels


def with_hole(path: Path) -> np.ndarray:
    """The picture with a transparent square, [H, W, 4] uint8."""
    from PIL import Image

    pixels = np.asarray(Image.open(path).convert("RGBA")).copy()
    pixels[100:150, 60:120, 3] = 0
    return pixels


def edits(editor: Editor, plain: Editor) -> dict[str, Callable[[], EditResult]]:
    """Every edit by name. plain: an editor without a model that takes the picture, which redraws by FlowEdit."""
    car: dict[str, Any] = {"caption": "a red car"}
    return {
        "replace": lambda: editor.edit(DESERT, **car, prompt="a blue house"),
        "replace, no caption": lambda: editor.edit(DESERT, prompt="a blue house", **SHORT),
        "replace, as the paper": lambda: editor.edit(DESERT, **car, prompt="a blue house", **SHORT, **PAPER),
        "replace, straight-through": lambda: editor.edit(
            DESERT, **car, prompt="a blue house", **SHORT, estimator="straight-through"
        ),
        "replace, two objects": lambda: editor.edit(MEADOW, caption="a red car and a tree", prompt="a cat", **SHORT),
        "replace, box": lambda: editor.edit(DESERT, prompt="a tent", box=(20, 40, 90, 110)),
        "add": lambda: editor.edit(MEADOW, task="add", prompt="a yellow star", **SHORT),
        "creative": lambda: editor.edit(MEADOW, task="creative", prompt="a yellow star and a blue house", **SHORT),
        "remove": lambda: editor.edit(ROOM, task="remove", caption="a blue cake"),
        "texture": lambda: editor.edit(DESERT, task="texture", **car, prompt="a striped red car"),
        "texture by FlowEdit": lambda: plain.edit(DESERT, task="texture", **car, prompt="a striped red car"),
        "background": lambda: editor.edit(MEADOW, task="background", **car, prompt="empty snow"),
        "background, no caption": lambda: editor.edit(MEADOW, task="background", prompt="empty snow"),
        "style": lambda: editor.edit(MEADOW, task="style", **car, prompt="a red car, pencil sketch"),
        "style by FlowEdit": lambda: plain.edit(MEADOW, task="style", **car, prompt="pencil sketch"),
        "complete": lambda: editor.edit(ROOM, task="complete", box=CENTRE),
        "complete, a hole": lambda: editor.edit(with_hole(ROOM), task="complete"),
        "repair": lambda: editor.edit(damaged(DESERT), task="repair"),
        "extend": lambda: editor.edit(MEADOW, task="extend", extend=0.25),
        "generate": lambda: editor.edit(MEADOW, task="generate", prompt="a red car in the snow"),
        "generate, box": lambda: editor.edit(MEADOW, task="generate", prompt="a cat", box=CENTRE),
    }


def digest(result: EditResult) -> str:
    """A hash of everything that an edit found: pixels of all candidates, boxes, scores, losses, order, history."""
    total = hashlib.sha256()
    for index in range(len(result.candidates)):
        total.update(np.ascontiguousarray(result.edited(index).pixels()).tobytes())
    for values in (result.candidates.regions.boxes_xyxy, result.scores, result.losses.rows):
        total.update(values.detach().contiguous().numpy().tobytes())
    losses, expected = [], []
    for step in (step for step in result.history if hasattr(step, "loss")):  # the first step only looks at the picture
        losses.append((step.loss, step.inpaintings))
        expected.append(getattr(step, "expected_loss", min(loss for loss, _inpaintings in losses)))
    curve = [losses, expected]
    total.update(json.dumps([list(result.order), curve, result.request.prompt]).encode())
    return total.hexdigest()[:16]


def without_redrawer(folder: Path) -> Editor:
    """An editor with the bundled models but for the one that takes the picture it edits."""
    for part in ("inpainting", "dino", "clip"):
        (folder / part).symlink_to(PACKAGE / "assets" / "storybook" / part)
    return Editor.from_pretrained(str(folder))


def main() -> int:
    """Print the hashes as JSON; with --compare, which of them differ, and exit with 1 if any does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", type=Path, help="hashes of an earlier run, to hold these against")
    parser.add_argument("--only", help="names that contain this text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        editor = Editor.from_pretrained("storybook", config=EditConfig(**LEARNED))
        planned = edits(editor, without_redrawer(Path(folder)))
        found = {}
        for name, edit in planned.items():
            if arguments.only is None or arguments.only in name:
                found[name] = digest(edit())
                print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    if arguments.compare is None:
        print(json.dumps(found, indent=2))
        return 0
    before = json.loads(arguments.compare.read_text("utf-8"))
    different = [name for name, value in found.items() if before.get(name) != value]
    print(f"{len(found) - len(different)} of {len(found)} the same" + "".join(f"\nother: {name}" for name in different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
