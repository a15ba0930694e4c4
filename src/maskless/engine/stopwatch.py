"""Seconds by stage, and peak memory: the measured half of an edit's cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch


class Stopwatch:
    """Adds up the seconds spent in named stages; stages are not nested."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside under this name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def peak_memory_mb(device: torch.device) -> float:
    """Most memory in use so far, or since `reset_peak_memory`: of the accelerator where one is used, else of this
    process; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # not on Windows
        return 0.0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_mb` begin anew, where the system can; elsewhere it goes on telling the most there ever was."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the high-water mark of resident memory (proc(5))
