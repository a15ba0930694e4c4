"""Any number of pictures through a model, in batches that fit its memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from maskless.data.errors import MasklessError
from maskless.models.memory import is_out_of_memory, less_memory

CPU_BATCH = 16
ACCELERATOR_BATCH = 64
BYTES_PER_PIXEL = 6000
"""Of memory that inpainting one picture with guidance takes: about 1.5 GB at 512 x 512."""
SLICED = ("low", "minimal")
"""Memory levels at which pictures come one by one."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Batches:
    """Runs work in batches and remembers the size that fits: out of memory halves it and the work goes on."""

    def __init__(self, size: int, memory: str = "full") -> None:
        """memory: the level that the models were loaded at, for what to say where nothing fits."""
        self.size, self._memory = size, memory

    def run(self, count: int, work: Callable[[slice], Tensor]) -> Tensor:
        """work(slice) for slices that cover range(count), its results joined in order.

        Raises:
            MasklessError: a single item does not fit.
        """
        results: list[Tensor] = []
        start = 0
        while start < count:
            batch = slice(start, min(start + self.size, count))
            done: Tensor | None = None
            with _out_of_memory_caught() as failed:
                done = work(batch)
            if done is not None:
                results.append(done)
                start = batch.stop
            elif self.size == 1:
                raise MasklessError(
                    f"out of memory even for one picture at a time; {less_memory(self._memory)} ({failed[0]})"
                )
            else:
                self.size = max(1, min(self.size, batch.stop - batch.start) // 2)
        return torch.cat(results)


def batch_size_for(device: torch.device, picture_px: int, memory: str = "full") -> int:
    """How many pictures of this side to inpaint at once: one at the memory levels low and minimal, else what the memory
    holds; on the CPU more than CPU_BATCH gains nothing.

    On the CPU the machine's whole memory decides, not what is free of it, so that a run does not depend on what else
    the machine does.
    """
    if memory in SLICED:
        return 1
    each = BYTES_PER_PIXEL * picture_px**2
    if device.type != "cuda":
        return max(1, min(CPU_BATCH, int(0.5 * machine_memory() / each)))
    free, _total = torch.cuda.mem_get_info(device)
    return max(1, min(ACCELERATOR_BATCH, int(0.8 * free / each)))


def machine_memory() -> int:
    """Bytes of main memory that this process may have, by the machine and by its control group."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        whole = 8 * 2**30
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(whole, int(limit)) if limit.isdigit() else whole


@contextmanager
def _out_of_memory_caught() -> Iterator[list[str]]:
    """Swallows running out of memory, and nothing else; the list then holds the reason."""
    reasons: list[str] = []
    try:
        yield reasons
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        message = str(error)
        if not is_out_of_memory(error):
            raise
        reasons.append(message.splitlines()[0] if message else type(error).__name__)
    if reasons and torch.cuda.is_available():
        torch.cuda.empty_cache()
