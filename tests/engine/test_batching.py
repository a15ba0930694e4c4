"""Batches cover everything in order, and halve when memory runs out."""

import pytest
import torch

from maskless.data.errors import MasklessError
from maskless.engine.batching import Batches, batch_size_for


def test_everything_is_covered_in_order():
    assert Batches(4).run(10, lambda part: torch.arange(10)[part]).tolist() == list(range(10))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    tried: list[int] = []

    def work(part: slice) -> torch.Tensor:
        tried.append(part.stop - part.start)
        if part.stop - part.start > 3:
            raise error("CUDA out of memory: tried to allocate 9 GB")
        return torch.arange(10)[part]

    batches = Batches(8)
    assert batches.run(10, work).tolist() == list(range(10))
    assert tried == [8, 4, 2, 2, 2, 2, 2] and batches.size == 2


def test_one_picture_that_does_not_fit_is_one_line():
    def work(part: slice) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(MasklessError, match="out of memory even for one picture"):
        Batches(8).run(8, work)


def test_other_errors_pass_through():
    def work(part: slice) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        Batches(2).run(2, work)


def test_the_cpu_takes_moderate_batches():
    cpu = torch.device("cpu")
    assert batch_size_for(cpu, 128) == batch_size_for(cpu, 64) > 1
    assert batch_size_for(cpu, 64, "low") == batch_size_for(cpu, 64, "minimal") == 1


@pytest.mark.parametrize(("gigabytes", "expected"), [(1, 1), (8, 2), (16, 5), (512, 16)])
def test_on_the_cpu_large_pictures_come_in_batches_that_the_machine_holds(monkeypatch, gigabytes, expected):
    monkeypatch.setattr("maskless.engine.batching.machine_memory", lambda: gigabytes * 2**30)
    assert batch_size_for(torch.device("cpu"), 512) == expected
