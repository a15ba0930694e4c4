"""The training loop: it learns, stops on time, resumes where it was killed, and names a state it cannot use."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from maskless.data.errors import MasklessError
from maskless.storybook.train import ASSETS
from maskless.storybook.training import dino, loop
from maskless.storybook.training.loop import Run, learning_rate, train


def _line_task(width: int = 1) -> ModuleType:
    """The smallest thing that can be trained: a line through y = 3 x."""

    def loss(model: nn.Module, batch: dict[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
        return (model["line"](batch["x"]).float() - 3 * batch["x"]).square().mean()

    def example(seed: int) -> dict[str, torch.Tensor]:
        return {"x": torch.rand(1, generator=torch.Generator().manual_seed(seed))}

    def export(model: nn.Module, models: Path) -> None:
        (models / "line").mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), models / "line" / "line.pt")

    def restore(model: nn.Module, models: Path) -> None:
        model.load_state_dict(torch.load(models / "line" / "line.pt", weights_only=True))

    task = ModuleType("train_line")
    task.__dict__.update(BATCH=8, LEARNING_RATE=0.05, EMA_DECAY=0.9, example=example, loss=loss, export=export)
    task.__dict__.update(EXPORT="line", restore=restore)
    task.__dict__["build"] = lambda run: nn.ModuleDict({"line": nn.Linear(1, width)})
    task.__dict__["validate"] = lambda model: ({"weight": model["line"].weight.mean().item()}, Image.new("RGB", (4, 4)))
    return task


def _run(folder: Path, seconds: float = 4.0) -> Run:
    return Run(
        name="line", output=folder, minutes=seconds / 60, device=torch.device("cpu"), workers=0, save_every=0.005
    )


def test_it_learns_and_leaves_state_log_sheet_and_export(tmp_path: Path) -> None:
    began = time.monotonic()
    records = list(train(_line_task(), _run(tmp_path)))
    assert 3.5 < time.monotonic() - began < 30
    assert records[-1]["weight"] == pytest.approx(3, abs=0.3)
    assert {path.name for path in (tmp_path / "line").iterdir()} >= {"state.pt", "log.jsonl", "samples.png"}
    assert (tmp_path / "models" / "line" / "line.pt").is_file()
    lines = [json.loads(line) for line in (tmp_path / "line" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["weight"] == records[-1]["weight"]


def test_the_learning_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(1.0, p / 100) for p in range(101)]
    assert rates[0] < 0.05 and max(rates) > 0.97 and rates[-1] == pytest.approx(0.01)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_resumed_run_goes_on_with_the_step_and_the_time(tmp_path: Path) -> None:
    stopped = train(_line_task(), _run(tmp_path, 60.0))
    record = next(stopped)
    stopped.close()
    state = torch.load(tmp_path / "line" / "state.pt", weights_only=True)
    assert 0 < state["step"] <= record["step"] and 0 < state["elapsed"] <= record["elapsed"]
    resumed = next(train(_line_task(), _run(tmp_path, 60.0), resume=True))
    assert resumed["step"] > state["step"] and resumed["elapsed"] > state["elapsed"]


def _one_of_two(rank: int, folder: Path) -> None:
    """One process of two: trains the line and writes down its weights and the examples that it saw."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    task, seen = _line_task(), []
    task_build, task_example = task.build, task.example
    built: list[nn.Module] = []
    task.__dict__["build"] = lambda run: built.append(task_build(run)) or built[0]
    task.__dict__["example"] = lambda seed: seen.append(seed) or task_example(seed)
    list(train(task, replace(_run(folder), rank=rank, ranks=2)))
    kernel = nn.Parameter(torch.zeros(2, 3, 2, 2).to(memory_format=torch.channels_last))
    kernel.grad = torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last) * (rank + 1)
    loop._average_gradients([kernel], replace(_run(folder), rank=rank, ranks=2))
    found = {"weight": built[0]["line"].weight.item(), "seen": seen, "gradient": kernel.grad.flatten().tolist()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def test_two_processes_train_one_model_on_different_examples(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, args=(tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weight"] == second["weight"] > 1.0  # on the way to 3; the first weights are below 1
    assert len(first["seen"]) > 16 and not set(first["seen"]) & set(second["seen"])
    assert first["gradient"] == second["gradient"] == [1.5 * v for v in range(24)], "the mean, in any memory format"
    state = torch.load(tmp_path / "line" / "state.pt", weights_only=True)
    assert state["model"]["line.weight"].item() == first["weight"]


def test_without_its_state_it_goes_on_from_the_export(tmp_path: Path) -> None:
    first = list(train(_line_task(), _run(tmp_path)))[-1]
    (tmp_path / "line" / "state.pt").unlink()
    again = list(train(_line_task(), _run(tmp_path, 0.01), resume=True))[-1]
    assert again["step"] < first["step"] / 10 and again["weight"] == pytest.approx(first["weight"], abs=0.5)


def test_an_export_of_another_architecture_is_named(tmp_path: Path) -> None:
    list(train(_line_task(), _run(tmp_path, 0.5)))
    (tmp_path / "line" / "state.pt").unlink()
    with pytest.raises(MasklessError, match="models/line: not an export of this architecture"):
        next(train(_line_task(width=2), _run(tmp_path, 0.5), resume=True))


@pytest.mark.parametrize("name", ["autoencoder", "clip", "dino", "judge", "inpainting", "redraw"])
def test_what_is_bundled_can_be_trained_on(tmp_path: Path, name: str) -> None:
    """Restored and exported again, every weight is what it was, and so is the number of every word."""
    task = importlib.import_module(f"maskless.storybook.training.{name}")
    run = _run(tmp_path)
    shutil.copytree(ASSETS, run.models)
    model = task.build(run)
    task.restore(model, run.models)
    with torch.no_grad():
        task.export(model, run.models)
    for file in sorted((ASSETS / task.EXPORT).glob("*.safetensors")):
        old, new = load_file(file), load_file(run.models / task.EXPORT / file.name)
        assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    for file in (ASSETS / task.EXPORT).glob("tokenizer.json"):
        old, new = (json.loads(each.read_text()) for each in (file, run.models / task.EXPORT / file.name))
        assert old["model"] == new["model"]
    for file in run.models.rglob("config.json"):
        assert str(tmp_path) not in file.read_text("utf-8"), "an export names no folder of the machine it was made on"


def test_a_step_is_the_same_whether_it_was_reached_in_one_go_or_not(tmp_path: Path) -> None:
    """Examples and noise depend on the step alone."""
    run = _run(tmp_path)
    straight = [batch["x"] for _, batch in zip(range(6), loop._batches(_line_task(), 0, run), strict=False)]
    later = next(loop._batches(_line_task(), 5, run))["x"]
    assert torch.equal(straight[5], later) and not torch.equal(straight[4], later)


@pytest.mark.parametrize("damage", ["truncated", "architecture", "rubbish"])
def test_a_state_that_cannot_be_used_is_named(tmp_path: Path, damage: str) -> None:
    list(train(_line_task(), _run(tmp_path, 1.0)))
    state = tmp_path / "line" / "state.pt"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:-200])
    elif damage == "rubbish":
        state.write_bytes(b"not a state")
    task = _line_task(width=2 if damage == "architecture" else 1)
    with pytest.raises(MasklessError, match="state.pt"):
        next(train(task, _run(tmp_path, 1.0), resume=True))


@pytest.mark.slow
def test_the_program_is_killed_and_resumed(tmp_path: Path) -> None:
    """The real autoencoder, killed without warning, goes on from its last state and exports a loadable model."""
    command = [
        sys.executable,
        "-m",
        "maskless.storybook.train",
        "autoencoder",
        "--output",
        str(tmp_path),
        "--threads",
        "1",
    ]
    command += ["--workers", "0", "--save-every", "0.03"]
    running = subprocess.Popen([*command, "--minutes", "30"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = tmp_path / "autoencoder" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    step = torch.load(state, weights_only=True)["step"]
    done = subprocess.run([*command, "--minutes", "0.15", "--resume"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert torch.load(state, weights_only=True)["step"] > step > 0
    from maskless.storybook.training.autoencoder import load

    assert load(tmp_path / "models").config.latent_channels == 4


def test_bad_input_is_one_line_and_exit_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maskless.storybook.train"]
    for arguments, said in (
        (["inpainting", "--output", str(tmp_path), "--minutes", "1"], "train the autoencoder and clip first"),
        (["clip", "--minutes", "-1"], "--minutes must be more than 0"),
        (["clip", "--device", "abacus"], "--device must be"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_dinos_targets_use_every_prototype_alike() -> None:
    """Also where the teacher's outputs are all but equal, as a new one's are."""
    outputs = 1e-3 * torch.randn(32, 16, generator=torch.Generator().manual_seed(0)) + 0.7
    shares = dino.assigned(outputs)
    assert torch.allclose(shares.sum(dim=1), torch.ones(32), atol=1e-4)
    plain = ((outputs - outputs.mean(dim=0)) / outputs.std() / dino.TEACHER_TEMPERATURE).softmax(dim=1)
    assert float(shares.sum(dim=0).std()) < 0.8 * float(plain.sum(dim=0).std())
    assert float(shares.max(dim=1).values.mean()) > 0.4, "they tell the pictures apart"
