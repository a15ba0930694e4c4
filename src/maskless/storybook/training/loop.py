"""The training loop of all parts: limited by wall time, resumable after a kill, with a log and sheets of samples.

It trains an exponential moving average (EMA) of the weights beside the weights themselves, validates it and exports it.
What is trained is a `Task`: a module of this folder, such as autoencoder.py, with the names that are listed there.

Step n always sees the same examples and random numbers, so that a resumed run needs no generator state but its step.
Several processes under torchrun each take their share of the examples and average their gradients, so that their
weights stay equal.
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
from typing import Protocol, TypeAlias, runtime_checkable

import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from maskless.data.errors import MasklessError
from maskless.storybook.training.muon import MuonAndAdamW

Optimizer: TypeAlias = torch.optim.Optimizer | MuonAndAdamW


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how long one part is trained. `models` holds the exported models of all runs."""

    name: str
    output: Path
    minutes: float
    device: torch.device
    workers: int
    validate_every: float = 4.0  # minutes
    save_every: float = 2.0  # minutes
    compile: bool = False
    batch_scale: int = 1  # times the task's BATCH; the learning rate grows with the square root of the whole batch
    rank: int = 0  # number of this process
    ranks: int = 1  # how many processes train together, each on a batch of its own

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @property
    def models(self) -> Path:
        return self.output / "models"


@runtime_checkable
class Task(Protocol):
    """What a module of this folder has to define in order to be trained.

    It may define four more names: FIRST_SEED, the seed of the first example (0); EMA_DECAY (0.999); OUTER_LAYERS, the
    names of the first and last layers, if Muon is to train the matrices of all others; and `after_step(model, step)`.
    """

    BATCH: int
    LEARNING_RATE: float
    EXPORT: str  # the folder of the exported model, under Run.models

    def build(self, run: Run) -> nn.ModuleDict:
        """The networks to train, with new weights."""

    def example(self, seed: int) -> dict[str, torch.Tensor]:
        """One training example, determined by its seed alone."""

    def loss(self, model: nn.ModuleDict, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        """The mean loss of a batch."""

    def validate(self, model: nn.ModuleDict) -> tuple[dict[str, float], Image.Image]:
        """Figures by name, and a sheet of samples."""

    def export(self, model: nn.ModuleDict, models: Path) -> None:
        """Write the model in Hugging Face format into its folder under `models`."""

    def restore(self, model: nn.ModuleDict, models: Path) -> None:
        """Load the exported weights into the networks."""


@dataclass(kw_only=True)
class TrainingState:
    """What a run has reached: the trained weights, their moving average, the optimiser, steps and seconds.

    `elapsed` counts the seconds of the current budget.
    """

    model: nn.ModuleDict
    average: nn.ModuleDict
    optimizer: Optimizer
    step: int = 0
    elapsed: float = 0.0


class _Examples(Dataset):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, seed: int) -> dict[str, torch.Tensor]:
        return self.task.example(seed)


def _batches(task: Task, first_step: int, run: Run) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of consecutive seeds, beginning with those of step `first_step`."""
    start = getattr(task, "FIRST_SEED", 0) + first_step * task.BATCH * run.batch_scale * run.ranks
    loader = DataLoader(
        _Examples(task),
        batch_size=task.BATCH * run.batch_scale,
        sampler=range(start + run.rank, start + 10**8, run.ranks),
        num_workers=run.workers,
        pin_memory=run.device.type == "cuda",
        prefetch_factor=4 if run.workers else None,
        worker_init_fn=_use_one_thread,
    )
    for batch in loader:
        yield {key: value.to(run.device, non_blocking=True) for key, value in batch.items()}


def _use_one_thread(_: int) -> None:
    torch.set_num_threads(1)


def learning_rate(peak: float, progress: float) -> float:
    """Linear warm-up over the first 2 % of the budget, then a linear fall to 1 % of the peak; `progress` in [0, 1]."""
    return peak * min(progress / 0.02 + 0.02, max(1.0 - progress, 0.01), 1.0)


def train(task: Task, run: Run, resume: bool = False) -> Iterator[dict[str, float]]:
    """Train until the minutes are used up; yields a record (step, loss, lr, elapsed seconds, …) every few seconds.

    With `resume` it continues from the state of the last run or, where there is none, from the exported model.

    Raises:
        MasklessError: the state to resume from is damaged or of another architecture.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    peak = task.LEARNING_RATE * (run.batch_scale * run.ranks) ** 0.5
    state_file = run.folder / "state.pt"
    state = _begin(task, run, peak, state_file if resume else None)
    begin = time.monotonic() - state.elapsed
    last_save = last_validation = last_record = state.elapsed
    for batch in _batches(task, state.step, run):
        state.elapsed = _shared_clock(time.monotonic() - begin, run)
        progress = state.elapsed / (run.minutes * 60)
        rate = learning_rate(peak, progress)
        value = _update(task, run, state, batch, rate)
        state.step += 1
        done = progress >= 1.0
        if run.rank:  # the first process logs, saves and validates for all
            if done:
                return
            continue
        if state.elapsed - last_record > 5 or done:
            last_record = state.elapsed
            record = {
                "step": state.step,
                "loss": value.item(),
                "lr": rate,
                "elapsed": state.elapsed,
                "progress": progress,
            }
            _log(run, record)
            yield record
        if state.elapsed - last_save > run.save_every * 60 or done:
            last_save = state.elapsed
            save_state(state_file, state)
        if state.elapsed - last_validation > run.validate_every * 60 or done:
            last_validation = state.elapsed
            yield _validate(task, run, state)
        if done:
            return


def _begin(task: Task, run: Run, peak: float, state_file: Path | None) -> TrainingState:
    """New networks, or those to continue with: from the state or, where it is missing, from the exported model."""
    torch.manual_seed(0)  # the only global randomness: the initial weights
    model = task.build(run).to(run.device)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    state = TrainingState(model=model, average=average, optimizer=_optimizer(task, model, peak))
    if state_file is not None and state_file.exists():
        load_state(state_file, state)
        if state.elapsed >= run.minutes * 60:  # that run was complete, so a new budget begins
            state.elapsed = 0.0
    elif state_file is not None and (run.models / task.EXPORT).is_dir():
        _restore(task, run, model)
        average.load_state_dict(model.state_dict())
    if run.compile:
        for part in model.children():
            part.compile()
    return state


def _optimizer(task: Task, model: nn.ModuleDict, peak: float) -> Optimizer:
    if hasattr(task, "OUTER_LAYERS"):
        return MuonAndAdamW(model, peak, task.OUTER_LAYERS)
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=peak, betas=(0.9, 0.99), weight_decay=0.01)


def _restore(task: Task, run: Run, model: nn.ModuleDict) -> None:
    try:
        task.restore(model, run.models)
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise MasklessError(f"{run.models / task.EXPORT}: not an export of this architecture ({reason})") from error


def _update(task: Task, run: Run, state: TrainingState, batch: dict[str, torch.Tensor], rate: float) -> torch.Tensor:
    """One step of the optimiser and of the moving average; the loss. Gradients that are not finite are left out."""
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    generator = torch.Generator(run.device).manual_seed(state.step * run.ranks + run.rank)
    state.model.train()
    with _half_precision(run.device), _attention(run.device):
        value = task.loss(state.model, batch, generator)
    value.backward()
    trained = [p for p in state.model.parameters() if p.grad is not None]
    _average_gradients(trained, run)
    if torch.isfinite(nn.utils.clip_grad_norm_(trained, 1.0)):
        state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    decay = min(getattr(task, "EMA_DECAY", 0.999), (state.step + 1) / (state.step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.average.parameters()), list(state.model.parameters()), 1 - decay)
        for kept, new in zip(state.average.buffers(), state.model.buffers(), strict=True):
            kept.copy_(new)
    if hasattr(task, "after_step"):
        task.after_step(state.model, state.step)
    return value.detach()


def _half_precision(device: torch.device) -> AbstractContextManager[None]:
    """bfloat16 where it is faster than float32: on a GPU, and on a CPU with AMX (docs/performance.md)."""
    if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _attention(device: torch.device) -> AbstractContextManager[None]:
    """Plain matrix products for attention on a CPU, where flash attention is slower (docs/training-log.md)."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def _shared_clock(seconds: float, run: Run) -> float:
    """The seconds of the first process in all processes, so that all stop at the same step."""
    if run.ranks == 1:
        return seconds
    clock = torch.tensor([seconds], dtype=torch.float64, device=run.device)
    dist.broadcast(clock, src=0)
    return float(clock)


def _average_gradients(trained: list[nn.Parameter], run: Run) -> None:
    """Replace the gradients by their mean over all processes."""
    if run.ranks == 1:
        return
    gradients = [p.grad for p in trained if p.grad is not None]
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(together)
    parts = (together / run.ranks).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def _validate(task: Task, run: Run, state: TrainingState) -> dict[str, float]:
    """Measure and export the moving average; the figures, which are logged too."""
    with torch.no_grad(), _half_precision(run.device):
        figures, sheet = task.validate(state.average)
    sheet.save(run.folder / f"samples-{state.step:07d}.png")
    sheet.save(run.folder / "samples.png")
    task.export(state.average, run.models)
    record = {"step": state.step, "elapsed": state.elapsed, **figures}
    _log(run, record)
    return record


def _log(run: Run, record: dict[str, float]) -> None:
    with (run.folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"time": round(time.time()), **record}) + "\n")


def save_state(path: Path, state: TrainingState) -> None:
    """Write everything that a run needs to be resumed; a kill while it is written leaves the former state."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "model": state.model.state_dict(),
            "average": state.average.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "step": state.step,
            "elapsed": state.elapsed,
        },
        partial,
    )
    os.replace(partial, path)


def load_state(path: Path, state: TrainingState) -> None:
    """Load what `save_state` wrote.

    Raises:
        MasklessError: the file is damaged or holds another architecture.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        state.model.load_state_dict(saved["model"])
        state.average.load_state_dict(saved["average"])
        state.optimizer.load_state_dict(saved["optimizer"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise MasklessError(f"{path}: not a state of this model's architecture, or damaged ({reason})") from error
    except Exception as error:
        raise MasklessError(f"{path}: cannot be read as a training state ({type(error).__name__})") from error
    state.step, state.elapsed = int(saved["step"]), float(saved["elapsed"])


def set_float32_dtype(folder: Path) -> None:
    """Note in an exported transformers model, stored in fp16, that it is to be opened in float32, as CPUs need it."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", "utf-8")


def remove_origin(folder: Path) -> None:
    """Remove from an exported diffusers model the folder of this machine from which its parts were opened."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
