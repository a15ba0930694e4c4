"""What an edit costs beside a plain inpainting of the same model, size, solver and steps by diffusers, in one run.

    python benchmarks/speed.py [--repeats 5] [--parts edit memory process sizes] [--sizes 256 1024 4096 8000] [--json]
    python benchmarks/speed.py --parts large [--processor-time]

Every figure is a ratio, with the median and the range of its repeats; the two sides of a ratio are measured in turns.
The part "large" measures Stable Diffusion 2 inpainting, DINO ViT-B/8 and CLIP ViT-B/16 with random weights (12 GB of
memory, ten minutes and more). Threads are those of OMP_NUM_THREADS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskless import Editor

ASSETS = Path(str(resources.files("maskless"))) / "assets"
SAMPLE = ASSETS / "samples" / "desert.png"
CAPTION, PROMPT, SECOND_PROMPT = "a red car", "a blue house", "a green tree"
PARTS = ("edit", "memory", "process", "sizes", "large")
BOX = (92, 176, 197, 256)
"""Where the car of the sample is, for the plain inpainting."""


def seconds(work: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call: wall time, or that of another clock."""
    began = clock()
    work()
    return clock() - began


def in_turns(repeats: int, *works: Callable[[], Any]) -> list[list[float]]:
    """The seconds of each of several calls, made in turns; the first turn is not counted."""
    found: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for times, work in zip(found, works, strict=True):
            took = seconds(work)
            if turn:
                times.append(took)
    return found


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], target: str) -> dict[str, Any]:
    """A row: the median of ours over the median of theirs, and the range of the ratios of each turn."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "figure": name, "value": round(median(ours) / median(theirs), 2), "low": round(min(each), 2),
        "high": round(max(each), 2), "target": target, "ours": round(median(ours), 3),
        "theirs": round(median(theirs), 3),
    }  # fmt: skip


def plain_pipeline(editor: Editor) -> Any:
    """diffusers' own pipeline with the networks of the editor's inpainter."""
    from diffusers import StableDiffusionInpaintPipeline

    pipeline = editor.models.inpainter.pipeline  # type: ignore[attr-defined]
    plain = StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False)
    plain.set_progress_bar_config(disable=True)
    return plain


def plain_inpainting(plain: Any, side: int, steps: int, guidance: float) -> Callable[[], Any]:
    """A plain inpainting of the sample's car: a window of the model's size, and the mask of the box."""
    window = Image.open(SAMPLE).convert("RGB").crop((60, 60, 256, 256)).resize((side, side))
    mask = Image.new("L", (side, side))
    scale = side / 196
    x0, y0, x1, y1 = (round((v - 60) * scale) for v in BOX)
    mask.paste(255, (x0, y0, x1, y1))

    def work() -> None:
        with torch.no_grad():
            plain(
                PROMPT, window, mask, height=side, width=side, num_inference_steps=steps, guidance_scale=guidance,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip

    return work


def bundled_rows(repeats: int) -> list[dict[str, Any]]:
    """An edit by the bundled models, with and without the refinement, and a second edit of the same picture."""
    from dataclasses import replace

    # In bfloat16, which is the default on CPUs with AMX, the plain pipeline cannot mix the formats of the networks.
    editor = Editor.from_pretrained("storybook", dtype="float32")
    inpainter = editor.models.inpainter
    steps, guidance = inpainter.recommended_steps or 50, inpainter.recommended_guidance or 7.5
    plain = plain_inpainting(plain_pipeline(editor), inpainter.native_px, steps, guidance)
    unrefined = Editor(replace(editor.models, refinement=None))
    forwards = editor.edit(SAMPLE, caption=CAPTION, prompt=PROMPT).cost.unet_forwards
    seen = editor.look(SAMPLE)
    editor.edit(seen, caption=CAPTION, prompt=PROMPT)
    first, without, again, theirs = in_turns(
        repeats,
        lambda: editor.edit(editor.look(SAMPLE), caption=CAPTION, prompt=PROMPT),
        lambda: unrefined.edit(unrefined.look(SAMPLE), caption=CAPTION, prompt=PROMPT),
        lambda: editor.edit(seen, caption=CAPTION, prompt=SECOND_PROMPT),
        plain,
    )
    count = 2 * steps if guidance > 1 else steps
    return [
        ratio("UNet forwards of the sample's edit / of a plain inpainting", [float(forwards)], [float(count)], "≤ 3"),
        ratio("seconds of an edit / of a plain inpainting", first, theirs, "≤ 3"),
        ratio("the same without the refinement", without, theirs, ""),
        ratio("a second edit of the same picture / the first", again, first, "≤ 0.6"),
    ]


def large_rows(clock: Callable[[], float]) -> list[dict[str, Any]]:
    """Stable Diffusion 2 with random weights: a picture of 512 pixels, once in two steps and once in four, from which
    the time of twenty steps is extrapolated on both sides, because each step takes the same time.

    clock: time.process_time on a machine that does other work as well.

    One region is inpainted, as where it is clearly the right one: random weights say nothing about that, and a search
    that finds nothing that looks like the caption would compare nine regions.
    """
    from unittest.mock import patch

    from full_size import build_models

    from maskless.data.config import EditConfig
    from maskless.models.devices import resolve_dtype

    device = torch.device("cpu")
    models = build_models(device, resolve_dtype("auto", device), "full")
    picture = Image.open(SAMPLE).convert("RGB").resize((512, 512))
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for steps in (2, 4):
        editor = Editor(models, EditConfig(steps=steps, guidance_scale=7.5, budget=1))
        plain = plain_inpainting(plain_pipeline(editor), 512, steps, 7.5)
        with patch("maskless.engine.search_run.looks_like", return_value=True):
            times["ours"].append(seconds(partial(_one_region, editor, picture), clock))
        times["theirs"].append(seconds(plain, clock))
    at_20 = {name: two + (four - two) / 2 * 18 for name, (two, four) in times.items()}
    return [ratio("SD2 with random weights: seconds of an edit of one region / of a plain inpainting, 20 steps",
                  [at_20["ours"]], [at_20["theirs"]], "≤ 1.3")]  # fmt: skip


def _one_region(editor: Editor, picture: Image.Image) -> None:
    inpaintings = editor.edit(picture, caption=CAPTION, prompt=PROMPT).cost.inpaintings
    assert inpaintings == 1, f"{inpaintings} regions were inpainted"


def memory_rows(repeats: int) -> list[dict[str, Any]]:
    """Peak memory of processes that make an edit, and of ones that make a plain inpainting with diffusers alone."""
    name = "peak memory of a process / with the plain pipeline alone"
    edits, plain = zip(*((peak_of("edit"), peak_of("plain")) for _ in range(repeats)), strict=True)
    return [ratio(name, edits, plain, "≤ 1.25")]


def peak_of(kind: str) -> float:
    """Peak memory in MB of a new process that makes one edit ("edit") or one plain inpainting ("plain")."""
    done = subprocess.run([sys.executable, __file__, "--peak", kind], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_peak(kind: str) -> None:
    """Make one edit or one plain inpainting, and print the peak memory of this process in MB."""
    if kind == "edit":
        Editor.from_pretrained("storybook").edit(SAMPLE, caption=CAPTION, prompt=PROMPT)
    else:
        from diffusers import StableDiffusionInpaintPipeline

        pipe = StableDiffusionInpaintPipeline.from_pretrained(
            ASSETS / "storybook" / "inpainting", safety_checker=None, requires_safety_checker=False
        )
        pipe.set_progress_bar_config(disable=True)
        plain_inpainting(pipe, pipe.unet.config.sample_size * 4, 5, 3.0)()
    status = Path("/proc/self/status").read_text("ascii")  # getrusage would include the memory of the parent
    print(float(status.split("VmHWM:")[1].split()[0]) / 1024)


def process_rows(repeats: int) -> list[dict[str, Any]]:
    """Seconds of whole processes, from their start to their end."""
    with tempfile.TemporaryDirectory() as folder:
        edit = [sys.executable, "-m", "maskless", "edit", str(SAMPLE), "-c", CAPTION, "-p", PROMPT, "--quiet"]
        times = [
            [seconds(partial(subprocess.run, command, cwd=folder, check=True, capture_output=True))
             for _ in range(repeats)]
            for command in (edit, [sys.executable, "-m", "maskless", "--help"])
        ]  # fmt: skip
    names, targets = ("maskless edit, whole process, s", "maskless --help, s"), ("≤ 5", "≤ 0.4")
    return [
        {"figure": name, "value": round(median(each), 2), "low": round(min(each), 2), "high": round(max(each), 2),
         "target": target}
        for name, each, target in zip(names, times, targets, strict=True)
    ]  # fmt: skip


def size_rows(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Seconds of an edit of square pictures, to the best candidate's pixels, less those of the smallest."""
    editor = Editor.from_pretrained("storybook")
    sample = Image.open(SAMPLE).convert("RGB")
    found: list[float] = []
    for side in sizes:
        pixels = np.asarray(sample.resize((side, side)))
        work = partial(_edited, editor, pixels)
        work()
        found.append(min(seconds(work) for _ in range(2)))
    return [
        {"figure": f"seconds more at {side} px than at {sizes[0]} px", "value": round(each - found[0], 2),
         "target": "≤ 3" if side == 8000 else ""}
        for side, each in zip(sizes[1:], found[1:], strict=True)
    ]  # fmt: skip


def _edited(editor: Editor, pixels: np.ndarray) -> np.ndarray:
    return editor.edit(pixels, caption=CAPTION, prompt=PROMPT).best.pixels()


def main() -> None:
    """Print the table, or with --json a list of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:-1]), help="what to measure")
    parser.add_argument("--processor-time", action="store_true", help="of large: processor time in place of wall time")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 1024, 4096, 8000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peak", choices=("edit", "plain"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print_peak(arguments.peak)
        return
    measures: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "edit": lambda: bundled_rows(arguments.repeats),
        "memory": lambda: memory_rows(arguments.repeats),
        "process": lambda: process_rows(arguments.repeats),
        "sizes": lambda: size_rows(arguments.sizes),
        "large": lambda: large_rows(time.process_time if arguments.processor_time else time.perf_counter),
    }
    rows = [row for part in PARTS if part in arguments.parts for row in measures[part]()]
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        spread = f" ({row['low']} to {row['high']})" if "low" in row else ""
        print(f"{row['value']:>8}{spread:<20} {row['target']:<7} {row['figure']}")


if __name__ == "__main__":
    main()
