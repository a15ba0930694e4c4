"""Runs any number of pictures through a model, in batches that fit into memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from maskless.data.errors import MasklessError, first_line
from maskless.models.memory import is_out_of_memory, memory_advice

CPU_BATCH = 16
"""Maximum number of pictures per batch on a CPU, where larger batches are not faster."""
ACCELERATOR_BATCH = 64
"""Maximum number of pictures per batch on a GPU."""
BYTES_PER_PIXEL = 6000
"""Memory for inpainting one picture with guidance, per pixel: about 1.5 GB at 512 x 512."""
ONE_AT_A_TIME = ("low", "minimal")
"""The memory levels at which pictures are inpainted one at a time."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Batches:
    """Runs work in batches. When memory runs out, the batch size is halved for the rest of the work."""

    def __init__(self, size: int, memory: str = "full") -> None:
        """size: pictures per batch. memory: the memory level of the models; error messages suggest lower levels."""
        self.size, self._memory = size, memory

    def run(self, count: int, work: Callable[[slice], Tensor]) -> Tensor:
        """The concatenated results of work(slice), for slices that cover range(count) in order.

        Raises:
            MasklessError: a single item does not fit into memory.
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
                    f"out of memory even for one picture at a time; {memory_advice(self._memory)} ({failed[0]})"
                )
            else:
                self.size = max(1, min(self.size, batch.stop - batch.start) // 2)
        return torch.cat(results)


def batch_size_for(device: torch.device, picture_px: int, memory: str = "full") -> int:
    """How many square pictures of this side, in pixels, to inpaint at once.

    It is 1 at the memory levels low and minimal, and otherwise as many as fit, up to CPU_BATCH or ACCELERATOR_BATCH. On
    the CPU the total memory decides, not the free memory, so that a run does not depend on other programs.
    """
    if memory in ONE_AT_A_TIME:
        return 1
    picture_bytes = BYTES_PER_PIXEL * picture_px**2
    if device.type != "cuda":
        return max(1, min(CPU_BATCH, int(0.5 * machine_memory() / picture_bytes)))
    free, _total = torch.cuda.mem_get_info(device)
    return max(1, min(ACCELERATOR_BATCH, int(0.8 * free / picture_bytes)))


def machine_memory() -> int:
    """Bytes of main memory that this process may use: the machine's, or the limit of its control group if lower."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        whole = 8 * 2**30
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(whole, int(limit)) if limit.isdigit() else whole


@contextmanager
def _out_of_memory_caught() -> Iterator[list[str]]:
    """Catch out-of-memory errors only; the reason is then in the list that the block gets."""
    reasons: list[str] = []
    try:
        yield reasons
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reasons.append(first_line(error))
    if reasons and torch.cuda.is_available():
        torch.cuda.empty_cache()
