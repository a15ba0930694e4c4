"""Pictures per minute of four ways to make the same edits: `maskless edit` in a loop, and the engines of a batch.

    python benchmarks/batch.py                              # 24 pictures with a small search
    python benchmarks/batch.py --pictures 6 --options "--steps 4"
    python benchmarks/batch.py --validate                   # seconds and memory to check 100,000 rows
    python benchmarks/batch.py --cost                       # one million pictures, on paper

Each way starts processes of its own, so everything counts: Python, the libraries, the models, and Ray's start. The
trees of the batches are compared. Progress goes to stderr, the table to stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

OPTIONS = "--anchors 1 --iterations 1 --views 1 --steps 2"
"""A search with one inpainting: loading weighs as it does once an edit needs few of them."""
RAY = ("--engine", "ray", "--workers")
BATCHES = {"batch, local": (), "batch, Ray, 1 worker": (*RAY, "1"), "batch, Ray, 2 workers": (*RAY, "2")}


@dataclass(frozen=True, kw_only=True)
class PaperModel:
    """A model on paper. passes: of the denoiser for one inpainting (steps, twice with guidance). tera_flops: of a pass;
    for a transformer twice the parameters times the tokens, for a UNet about the published count."""

    name: str
    passes: int
    tera_flops: float


PAPER_MODELS = (
    PaperModel(name="Stable Diffusion 1.5, 512 px, 50 steps", passes=100, tera_flops=0.8),
    PaperModel(name="Stable Diffusion XL, 1024 px, 30 steps", passes=60, tera_flops=6.0),
    PaperModel(name="FLUX.1 Fill, 12 B, 1024 px, 28 steps", passes=28, tera_flops=2 * 12e9 * 4608 / 1e12),
)
USEFUL_TERA_FLOPS = 400.0
"""Of one H100: about 40 % of its 989 dense tera-FLOPS in bfloat16."""
REST_SECONDS, GPU_HOUR = 1.0, 2.5
"""Assumed for each picture besides inpainting (features, losses, writing), and the price of a GPU hour in dollars."""


def write_rows(folder: Path, count: int) -> list[dict[str, str]]:
    """Drawn scenes as files, and a manifest of them."""
    from maskless.storybook.world.scenes import render, split_seed

    rows = []
    for number in range(count):
        scene = render(split_seed("validation", number))
        scene.image.save(folder / f"{number}.png")
        shown = scene.objects[-1]  # the one in front
        rows.append({"image": f"{number}.png", "caption": f"a {shown.colour} {shown.kind}", "prompt": "a blue house"})
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return rows


def seconds_of(arguments: list[str], folder: Path) -> float:
    """How long a command takes in a process of its own. Its messages are shown only if it fails."""
    began = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "maskless", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.monotonic() - began


def tree(folder: Path) -> dict[str, str]:
    """The hash of every file but those in batch/, which have the timings."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    return {name: value for name, value in hashes.items() if not name.startswith("batch/")}


def measure(count: int, options: list[str]) -> None:
    """Make the edits in each way, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, trees, lines = write_rows(folder, count), [], []
        loop = 0.0
        for number, row in enumerate(rows, start=1):
            texts = ["--caption", row["caption"], "--prompt", row["prompt"], "--output-dir", "loop"]
            loop += seconds_of(["edit", row["image"], *texts, *options, "--quiet", "--image-id", str(number)], folder)
            print(f"edit in a loop: {number}/{count}, {loop:.0f} s", file=sys.stderr)
        lines.append(("edit in a loop", loop, ""))
        for way, more in BATCHES.items():
            output = way.replace(", ", "-").replace(" ", "-")
            seconds = seconds_of(["batch", "rows.jsonl", *more, *options, "--quiet", "--output-dir", output], folder)
            print(f"{way}: {seconds:.0f} s", file=sys.stderr)
            made = [json.loads(line) for line in (folder / output / "batch/manifest.jsonl").read_text().splitlines()]
            lines.append((way, seconds, f"{max(line['cost']['peak_memory_mb'] for line in made):.0f}"))
            trees.append(tree(folder / output))
    print(f"{count} pictures, options {shlex.join(options)}\n")
    print("| way | seconds | pictures per minute | against the loop | against local | MB per worker |")
    print("|---|---:|---:|---:|---:|---:|")
    for way, seconds, memory in lines:
        against = f"{loop / seconds:.2f} | {lines[1][1] / seconds:.2f}"
        print(f"| {way} | {seconds:.0f} | {60 * count / seconds:.1f} | {against} | {memory} |")
    print(f"\nThe trees of the batches are {'the same' if trees[0] == trees[1] == trees[2] else 'NOT the same'}.")


def validate() -> None:
    """Print how long the check of 100,000 rows takes, each with a picture, texts and a seed of its own."""
    import resource

    from maskless.batch.manifest import read_manifest

    count = 100_000
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        os.mkdir("pictures")
        with open("rows.jsonl", "w") as file:
            for number in range(count):
                Path(f"pictures/{number}.png").touch()
                row = {
                    "image": f"pictures/{number}.png",
                    "caption": f"car {number}",
                    "prompt": "a tent",
                    "seed": number,
                }
                file.write(json.dumps(row) + "\n")
        began, used = time.monotonic(), time.process_time()
        rows = len(read_manifest("rows.jsonl").rows)
        wall, processor = time.monotonic() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{rows:,} rows checked in {wall:.1f} s ({processor:.1f} s of the processor), at most {peak} MB of memory")


def cost() -> None:
    """Print what one million pictures cost, from the assumptions above."""
    print("| model | inpaintings | seconds per picture | GPU hours | days on 16 GPUs | dollars |")
    print("|---|---:|---:|---:|---:|---:|")
    for model in PAPER_MODELS:
        for inpaintings in (3, 40):
            seconds = inpaintings * model.passes * model.tera_flops / USEFUL_TERA_FLOPS + REST_SECONDS
            hours = seconds * 1e6 / 3600
            figures = f"{seconds:.1f} | {hours:,.0f} | {hours / 16 / 24:,.1f} | {hours * GPU_HOUR:,.0f}"
            print(f"| {model.name} | {inpaintings} | {figures} |")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--options", default=OPTIONS, help="options of every edit")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--cost", action="store_true")
    chosen = parser.parse_args()
    if chosen.validate:
        validate()
    elif chosen.cost:
        cost()
    else:
        measure(chosen.pictures, shlex.split(chosen.options))


if __name__ == "__main__":
    main()
