"""Train the models that come with the package on drawn scenes, one after another or all.

    python -m maskless.storybook.train all --minutes 200
    python -m maskless.storybook.train inpainting --minutes 60 --resume
    torchrun --nproc-per-node 2 -m maskless.storybook.train inpainting --minutes 60 --resume --threads 1

The first argument is one of:

    autoencoder   pictures to latents and back; the inpainter and the redrawer need it
    clip          pictures and texts to a common embedding; the inpainter starts from its text encoder
    dino          a vision transformer whose attention finds the objects of a picture
    judge         a detector that tells evaluation what an edited picture shows
    inpainting    a diffusion model that fills holes; needs autoencoder and clip
    redraw        a diffusion model that changes style and texture; needs inpainting
    refine        further training of the redrawer, to refine what the inpainter draws; not part of all
    decoder       further training of the autoencoder's decoder alone; not part of all
    critic        a classifier that tells evaluation whether an object is drawn right; needs autoencoder and judge;
                  not part of all
    all           the first six in this order
    bundle        no training: copy the exported models from OUTPUT/models into the package

Each model is trained for a given time and can be stopped and resumed at any moment.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from maskless.data.errors import MasklessError
from maskless.storybook.training.loop import Run, Task, train

# Each part with its share of the time, after the parts that it needs.
SHARE_OF_ALL = {"autoencoder": 0.18, "clip": 0.1, "dino": 0.08, "judge": 0.1, "inpainting": 0.36, "redraw": 0.18}
ASSETS = Path(__file__).parent.parent / "assets" / "storybook"
LARGEST_FILE = 15 * 2**20  # bytes; the repository takes no larger ones


def bundle(models: Path, assets: Path = ASSETS) -> None:
    """Copy exported models into the package, where they replace those of the same name.

    Raises:
        MasklessError: a file is too large; then nothing is copied.
    """
    for source in sorted(p for p in models.rglob("*") if p.is_file()):
        if source.stat().st_size > LARGEST_FILE:
            raise MasklessError(f"{source}: {source.stat().st_size / 2**20:.1f} MiB, at most 15 MiB a file")
    for part in sorted(p for p in models.iterdir() if p.is_dir()):
        shutil.rmtree(assets / part.name, ignore_errors=True)
        shutil.copytree(part, assets / part.name)


def run_one(name: str, minutes: float, arguments: argparse.Namespace) -> None:
    """Train one part with a progress bar, as the arguments of the command line say."""
    task = cast("Task", importlib.import_module(f"maskless.storybook.training.{name}"))
    device = _device(arguments.device)
    run = Run(
        name=name,
        output=arguments.output,
        minutes=minutes,
        device=device,
        workers=_workers(device) if arguments.workers is None else arguments.workers,
        compile=arguments.compile,
        validate_every=arguments.validate_every,
        save_every=arguments.save_every,
        batch_scale=arguments.batch_scale or (8 if device.type == "cuda" else 1),
        rank=dist.get_rank() if dist.is_initialized() else 0,
        ranks=dist.get_world_size() if dist.is_initialized() else 1,
    )
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        disable=run.rank > 0,
    )
    with bar:
        line = bar.add_task(name, total=1.0, note="")
        for record in train(task, run, resume=arguments.resume):
            if "progress" in record:
                bar.update(line, completed=record["progress"], note=f"step {record['step']}  loss {record['loss']:.4f}")
            else:
                figures = {k: round(v, 4) for k, v in record.items() if k not in ("step", "elapsed")}
                bar.console.print(f"{name} step {record['step']}: {figures}")


def _device(name: str) -> torch.device:
    """The device of a name that the user gave; auto is the GPU of this process, or the CPU."""
    if name == "auto":
        return torch.device("cuda", _local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise MasklessError(f"--device must be auto, cpu or cuda and be there, got {name!r}") from error


def _local_rank() -> int:
    """The number of this process among those that torchrun started on this machine, else 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


def _workers(device: torch.device) -> int:
    """How many processes draw scenes: beside a GPU one for each core but one, on a CPU a single one."""
    return max(1, (os.cpu_count() or 2) - 1) if device.type == "cuda" else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskless.storybook.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        choices=[*SHARE_OF_ALL, "refine", "decoder", "critic", "all", "bundle"],
        metavar="WHAT",
        help="see above",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=9.0,
        help="how long to train; with all, the six models together (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, … (default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("training"),
        help="folder of states, logs, sheets of samples and exported models (default: %(default)s)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the last state in the output folder or, where there is none, from the exported model",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=None,
        help="processes that draw scenes (default: on CUDA one for each core but one, else 1)",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the training itself; 0 means all")
    parser.add_argument(
        "--validate-every",
        type=float,
        default=4.0,
        help="minutes between validations, each of which exports the model (default: %(default)s)",
    )
    parser.add_argument(
        "--save-every", type=float, default=2.0, help="minutes between saved states (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-scale",
        type=int,
        default=0,
        help="how many times larger than usual a batch is; 0 means 8 on CUDA and 1 elsewhere",
    )
    parser.add_argument(
        "--compile", action="store_true", help="use torch.compile, which takes minutes before the first step"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 2 after an error of the user's, 130 after an interruption."""
    arguments = parse(argv)
    torch.set_flush_denormal(True)  # before threads start; CPUs are slow with denormal numbers
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        if arguments.minutes <= 0:
            raise MasklessError(f"--minutes must be more than 0, got {arguments.minutes}")
        if dist.is_torchelastic_launched():
            dist.init_process_group()
        if arguments.what == "bundle":
            bundle(arguments.output / "models")
        elif arguments.what == "all":
            for name, share in SHARE_OF_ALL.items():
                run_one(name, arguments.minutes * share, arguments)
        else:
            run_one(arguments.what, arguments.minutes, arguments)
    except MasklessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; continue with --resume", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
