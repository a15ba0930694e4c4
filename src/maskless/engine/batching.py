"""Any number of pictures through a model, in batches that fit its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from maskless.data.errors import MasklessError

CPU_BATCH = 16
ACCELERATOR_BATCH = 64
BYTES_PER_PIXEL = 6000
"""Of accelerator memory that inpainting one picture with guidance takes: about 1.5 GB at 512 x 512."""


class Batches:
    """Runs work in batches and remembers the size that fits: out of memory halves it and the work goes on."""

    def __init__(self, size: int) -> None:
        self.size = size

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
                raise MasklessError(f"out of memory even for one picture at a time: {failed[0]}")
            else:
                self.size = max(1, min(self.size, batch.stop - batch.start) // 2)
        return torch.cat(results)


def batch_size_for(device: torch.device, picture_px: int) -> int:
    """How many pictures of this side to inpaint at once: on the CPU more than this gains nothing, elsewhere what the
    free memory holds."""
    if device.type != "cuda":
        return CPU_BATCH
    free, _total = torch.cuda.mem_get_info(device)
    return max(1, min(ACCELERATOR_BATCH, int(0.8 * free / (BYTES_PER_PIXEL * picture_px**2))))


@contextmanager
def _out_of_memory_caught() -> Iterator[list[str]]:
    """Swallows running out of memory, and nothing else; the list then holds the reason."""
    reasons: list[str] = []
    try:
        yield reasons
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        message = str(error)
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and "out of memory" not in message and "can't allocate memory" not in message:
            raise
        reasons.append(message.splitlines()[0] if message else type(error).__name__)
    if reasons and torch.cuda.is_available():
        torch.cuda.empty_cache()
