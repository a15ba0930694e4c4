"""One training loop for all six models: budgeted by wall time, resumable after a kill, with EMA, log and sheets.

What is trained is a module (train_autoencoder.py, train_clip.py, …) with the same few names:

    BATCH, LEARNING_RATE                       constants
    build(run) -> nn.Module                    the trained networks, freshly made
    example(seed) -> dict[str, Tensor]         one training example, from its seed alone
    loss(model, batch, generator) -> Tensor    the mean loss of a batch
    validate(model) -> (dict of figures, PIL sheet)
    EXPORT                                     the folder of the exported model, under Run.models
    export(model, models)                      in Hugging Face format
    restore(model, models)                     the other way round: the exported weights into the networks
    OUTER_LAYERS                               if the matrices of all other layers are to be trained by Muon

Step n always sees the same examples and random numbers, so a resumed run needs no generator state but its step.
Several processes under torchrun each take their share of the examples, average their gradients and stay alike.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from maskless.data.errors import MasklessError
from maskless.storybook.training.muon import MuonAndAdamW

Optimizer: TypeAlias = torch.optim.Optimizer | MuonAndAdamW


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how long one model is trained. `models` holds the exported models of all runs."""

    name: str
    output: Path
    minutes: float
    device: torch.device
    workers: int
    validate_every: float = 4.0
    save_every: float = 2.0
    compile: bool = False
    batch_scale: int = 1  # times the task's BATCH; the learning rate grows with the whole batch's square root
    rank: int = 0  # this process among …
    ranks: int = 1  # … so many, each with a batch of its own

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @property
    def models(self) -> Path:
        return self.output / "models"


class _Examples(Dataset):
    def __init__(self, task: ModuleType) -> None:
        self.task = task

    def __getitem__(self, seed: int) -> dict[str, torch.Tensor]:
        return self.task.example(seed)


def _batches(task: ModuleType, first_step: int, run: Run) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of consecutive seeds, from the step on where the run stands."""
    start = getattr(task, "FIRST_SEED", 0) + first_step * task.BATCH * run.batch_scale * run.ranks
    loader = DataLoader(
        _Examples(task),
        batch_size=task.BATCH * run.batch_scale,
        sampler=range(start + run.rank, start + 10**8, run.ranks),
        num_workers=run.workers,
        pin_memory=run.device.type == "cuda",
        prefetch_factor=4 if run.workers else None,
        worker_init_fn=_one_thread,
    )
    for batch in loader:
        yield {key: value.to(run.device, non_blocking=True) for key, value in batch.items()}


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up over the first 2 % of the budget, then linear to nearly nothing; `progress` in [0, 1]."""
    return peak * min(progress / 0.02 + 0.02, max(1.0 - progress, 0.01), 1.0)


def train(task: ModuleType, run: Run, resume: bool = False) -> Iterator[dict[str, float]]:
    """Train until the minutes are used up; yields a record (step, loss, lr, elapsed seconds, …) every few seconds.

    With `resume` it goes on from the state of the last run or, where there is none, from the exported model.

    Raises:
        MasklessError: the state to resume from is damaged or of another architecture.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)  # the only global randomness: the initial weights
    model = task.build(run).to(run.device)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    peak = task.LEARNING_RATE * (run.batch_scale * run.ranks) ** 0.5
    optimizer = _optimizer(task, model, peak)
    step, elapsed = 0, 0.0
    state_file = run.folder / "state.pt"
    if resume and state_file.exists():
        step, elapsed = load_state(state_file, model, average, optimizer)
        if elapsed >= run.minutes * 60:  # a finished run is continued by another cycle
            elapsed = 0.0
    elif resume and (run.models / task.EXPORT).is_dir():  # the state is lost, its weights are not
        _restore(task, run, model)
        average.load_state_dict(model.state_dict())
    if run.compile:
        for part in model.children():
            part.compile()
    begin, last_save, last_validation, last_record = time.monotonic() - elapsed, elapsed, elapsed, elapsed
    for batch in _batches(task, step, run):
        elapsed = _agreed(time.monotonic() - begin, run)
        progress = elapsed / (run.minutes * 60)
        rate = learning_rate(peak, progress)
        value = _update(task, run, model, average, optimizer, batch, step, rate)
        step += 1
        done = progress >= 1.0
        if run.rank:  # the first process logs, saves and validates for all
            if done:
                return
            continue
        if elapsed - last_record > 5 or done:
            last_record = elapsed
            record = {"step": step, "loss": value.item(), "lr": rate, "elapsed": elapsed, "progress": progress}
            _log(run, record)
            yield record
        if elapsed - last_save > run.save_every * 60 or done:
            last_save = elapsed
            save_state(state_file, model, average, optimizer, step, elapsed)
        if elapsed - last_validation > run.validate_every * 60 or done:
            last_validation = elapsed
            yield _validate(task, run, average, step, elapsed)
        if done:
            return


def _optimizer(task: ModuleType, model: nn.Module, peak: float) -> Optimizer:
    if hasattr(task, "OUTER_LAYERS"):
        return MuonAndAdamW(model, peak, task.OUTER_LAYERS)
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=0.01)


def _restore(task: ModuleType, run: Run, model: nn.Module) -> None:
    try:
        task.restore(model, run.models)
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise MasklessError(f"{run.models / task.EXPORT}: not an export of this architecture ({reason})") from error


def _update(
    task: ModuleType,
    run: Run,
    model: nn.Module,
    average: nn.Module,
    optimizer: Optimizer,
    batch: dict[str, torch.Tensor],
    step: int,
    rate: float,
) -> torch.Tensor:
    for group in optimizer.param_groups:
        group["lr"] = rate
    generator = torch.Generator(run.device).manual_seed(step * run.ranks + run.rank)
    model.train()
    with torch.autocast(run.device.type, torch.bfloat16), _attention(run.device):
        value = task.loss(model, batch, generator)
    value.backward()
    trained = [p for p in model.parameters() if p.grad is not None]
    _average_gradients(trained, run)
    if torch.isfinite(nn.utils.clip_grad_norm_(trained, 1.0)):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    decay = min(getattr(task, "EMA_DECAY", 0.999), (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
        for kept, new in zip(average.buffers(), model.buffers(), strict=True):
            kept.copy_(new)
    if hasattr(task, "after_step"):
        task.after_step(model, step)
    return value.detach()


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the flash kernel's backward pass takes a third of CLIP's step; plain products are faster."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _agreed(seconds: float, run: Run) -> float:
    """The first process's clock, so that all stop at the same step."""
    if run.ranks == 1:
        return seconds
    clock = torch.tensor([seconds], dtype=torch.float64, device=run.device)
    dist.broadcast(clock, src=0)
    return float(clock)


def _average_gradients(trained: list[nn.Parameter], run: Run) -> None:
    if run.ranks == 1:
        return
    gradients = [p.grad for p in trained if p.grad is not None]
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(together)
    parts = (together / run.ranks).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def _validate(task: ModuleType, run: Run, average: nn.Module, step: int, elapsed: float) -> dict[str, float]:
    with torch.no_grad(), torch.autocast(run.device.type, torch.bfloat16):
        figures, sheet = task.validate(average)
    sheet.save(run.folder / f"samples-{step:07d}.png")
    sheet.save(run.folder / "samples.png")
    task.export(average, run.models)
    record = {"step": step, "elapsed": elapsed, **figures}
    _log(run, record)
    return record


def _log(run: Run, record: dict[str, float]) -> None:
    with (run.folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"time": round(time.time()), **record}) + "\n")


def save_state(
    path: Path, model: nn.Module, average: nn.Module, optimizer: Optimizer, step: int, elapsed: float
) -> None:
    """Everything a run needs to go on, written whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "elapsed": elapsed,
        },
        partial,
    )
    os.replace(partial, path)


def load_state(path: Path, model: nn.Module, average: nn.Module, optimizer: Optimizer) -> tuple[int, float]:
    """Fill model, average and optimiser; returns (step, elapsed seconds of the current budget)."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise MasklessError(f"{path}: not a state of this model's architecture, or damaged ({reason})") from error
    except Exception as error:
        raise MasklessError(f"{path}: cannot be read as a training state ({type(error).__name__})") from error
    return int(state["step"]), float(state["elapsed"])


def opened_in_float32(folder: Path) -> None:
    """Let an exported transformers model, fp16 on the disk, be opened in float32: every CPU can run that."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", "utf-8")


def without_its_origin(folder: Path) -> None:
    """Let an exported diffusers model not say which folder of this machine its parts were opened from."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
