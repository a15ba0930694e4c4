"""Train the bundled models: `python -m maskless.storybook.train {autoencoder,clip,dino,judge,inpainting,redraw,all}`.

Each model is trained for a budget of minutes, can be killed and resumed; `bundle` copies the exports into the package.
Under torchrun (`torchrun --nproc-per-node 2 -m maskless.storybook.train …`) several processes train one model together.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from maskless.data.errors import MasklessError
from maskless.storybook.training.loop import Run, train

# In the order of what needs what: the inpainter works on the autoencoder's latents and starts from CLIP's text encoder,
# the redrawer starts from the inpainter.
SHARE_OF_ALL = {"autoencoder": 0.18, "clip": 0.1, "dino": 0.08, "judge": 0.1, "inpainting": 0.36, "redraw": 0.18}
ASSETS = Path(__file__).parent.parent / "assets" / "storybook"
LARGEST_FILE = 15 * 2**20


def bundle(models: Path, assets: Path = ASSETS) -> None:
    """Copy exported models into the package, refusing a file that is too large for its repository."""
    for source in sorted(p for p in models.rglob("*") if p.is_file()):
        if source.stat().st_size > LARGEST_FILE:
            raise MasklessError(f"{source}: {source.stat().st_size / 2**20:.1f} MiB, at most 15 MiB a file")
    for part in sorted(p for p in models.iterdir() if p.is_dir()):
        shutil.rmtree(assets / part.name, ignore_errors=True)
        shutil.copytree(part, assets / part.name)


def run_one(name: str, minutes: float, arguments: argparse.Namespace) -> None:
    task = importlib.import_module(f"maskless.storybook.training.{name}")
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
    if name == "auto":
        return torch.device("cuda", _local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise MasklessError(f"--device must be auto, cpu or cuda and be there, got {name!r}") from error


def _local_rank() -> int:
    """Which process of this machine this is, where torchrun started several."""
    return int(os.environ.get("LOCAL_RANK", 0))


def _workers(device: torch.device) -> int:
    return max(1, (os.cpu_count() or 2) - 1) if device.type == "cuda" else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m maskless.storybook.train", description=__doc__)
    parser.add_argument("what", choices=[*SHARE_OF_ALL, "decoder", "all", "bundle"])
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="wall time to train; with `all`, for the six together"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …")
    parser.add_argument(
        "--output", type=Path, default=Path("training"), help="states, logs, sheets and exported models"
    )
    parser.add_argument("--resume", action="store_true", help="go on where the last run stopped")
    parser.add_argument("--workers", type=int, default=None, help="processes that draw scenes (1; on CUDA one a core)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of the training itself (0: all)")
    parser.add_argument("--validate-every", type=float, default=4.0, help="minutes between sheets")
    parser.add_argument("--save-every", type=float, default=2.0, help="minutes between saved states")
    parser.add_argument("--batch-scale", type=int, default=0, help="times the usual batch (0: 8 on CUDA, else 1)")
    parser.add_argument("--compile", action="store_true", help="torch.compile; takes minutes before the first step")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    torch.set_flush_denormal(True)  # before its threads start; CPUs crawl on denormal numbers
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
        print("interrupted; --resume goes on", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
