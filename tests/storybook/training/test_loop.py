"""The training loop: it learns, stops on time, resumes after a kill, and reports a state that it cannot use."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from line_task import line_task
from maskless.data.errors import MasklessError
from maskless.storybook.training import loop
from maskless.storybook.training.loop import Run, learning_rate, train


def _run(folder: Path, seconds: float = 4.0) -> Run:
    return Run(
        name="line", output=folder, minutes=seconds / 60, device=torch.device("cpu"), workers=0, save_every=0.005
    )


def test_it_learns_and_leaves_state_log_sheet_and_export(tmp_path: Path) -> None:
    began = time.monotonic()
    records = list(train(line_task(), _run(tmp_path)))
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


def test_a_resumed_run_continues_with_the_step_and_the_time(tmp_path: Path) -> None:
    stopped = train(line_task(), _run(tmp_path, 60.0))
    record = next(stopped)
    stopped.close()
    state = torch.load(tmp_path / "line" / "state.pt", weights_only=True)
    assert 0 < state["step"] <= record["step"] and 0 < state["elapsed"] <= record["elapsed"]
    resumed = next(train(line_task(), _run(tmp_path, 60.0), resume=True))
    assert resumed["step"] > state["step"] and resumed["elapsed"] > state["elapsed"]


def _one_of_two(rank: int, folder: Path) -> None:
    """One process of two: trains the line and writes down its weights and the examples that it saw."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    task, seen = line_task(), []
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
    dist.barrier()
    os._exit(0)  # once, a process aborted while it and gloo's threads ended (compare PyTorch's pull request 179291)


def test_two_processes_train_one_model_on_different_examples(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, args=(tmp_path,), nprocs=2)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weight"] == second["weight"] > 1.0  # on the way to 3; the first weights are below 1
    assert len(first["seen"]) > 16 and not set(first["seen"]) & set(second["seen"])
    assert first["gradient"] == second["gradient"] == [1.5 * v for v in range(24)], "the mean, in any memory format"
    state = torch.load(tmp_path / "line" / "state.pt", weights_only=True)
    assert state["model"]["line.weight"].item() == first["weight"]


def test_without_its_state_it_continues_from_the_export(tmp_path: Path) -> None:
    first = list(train(line_task(), _run(tmp_path)))[-1]
    (tmp_path / "line" / "state.pt").unlink()
    again = list(train(line_task(), _run(tmp_path, 0.01), resume=True))[-1]
    assert again["step"] < first["step"] / 10 and again["weight"] == pytest.approx(first["weight"], abs=0.5)


def test_an_export_of_another_architecture_is_named(tmp_path: Path) -> None:
    list(train(line_task(), _run(tmp_path, 0.5)))
    (tmp_path / "line" / "state.pt").unlink()
    with pytest.raises(MasklessError, match="models/line: not an export of this architecture"):
        next(train(line_task(width=2), _run(tmp_path, 0.5), resume=True))


def test_a_step_is_the_same_whether_it_was_reached_in_one_go_or_not(tmp_path: Path) -> None:
    """Examples and noise depend on the step alone."""
    run = _run(tmp_path)
    straight = [batch["x"] for _, batch in zip(range(6), loop._batches(line_task(), 0, run), strict=False)]
    later = next(loop._batches(line_task(), 5, run))["x"]
    assert torch.equal(straight[5], later) and not torch.equal(straight[4], later)


@pytest.mark.parametrize("damage", ["truncated", "architecture", "rubbish"])
def test_a_state_that_cannot_be_used_is_named(tmp_path: Path, damage: str) -> None:
    list(train(line_task(), _run(tmp_path, 1.0)))
    state = tmp_path / "line" / "state.pt"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:-200])
    elif damage == "rubbish":
        state.write_bytes(b"not a state")
    task = line_task(width=2 if damage == "architecture" else 1)
    with pytest.raises(MasklessError, match="state.pt"):
        next(train(task, _run(tmp_path, 1.0), resume=True))
