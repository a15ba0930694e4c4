"""Shards: which rows and which GPU belong to this process, without a coordinator.

Every process reads the same manifest and takes each n-th row. torchrun sets RANK and WORLD_SIZE, Slurm and Kubernetes
are given --shard; no process waits for another, and no process group is formed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from maskless.data.errors import MasklessError

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A share of the rows. index: from 0. count: number of shards."""

    index: int = 0
    count: int = 1

    @property
    def name(self) -> str:
        """The name of the shard's files."""
        return f"{self.index}-of-{self.count}"

    def of(self, rows: Sequence[Item]) -> list[Item]:
        """The rows of this shard: every `count`-th one, as neighbours in a manifest often take equally long."""
        return list(rows[self.index :: self.count])


def chosen_shard(text: str | None, environment: Mapping[str, str]) -> Shard:
    """The shard of this process.

    Args:
        text: "i/n" with i from 0 to n - 1; None takes that of torchrun, or the whole manifest without torchrun.
        environment: the environment variables; torchrun sets RANK and WORLD_SIZE.
    Raises:
        MasklessError: the text is no such pair.
    """
    if text is not None:
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if not found or not int(found[1]) < int(found[2]):
            raise MasklessError(f"shard must be i/n with i from 0 to n - 1, such as 0/4, got {text!r}")
        return Shard(index=int(found[1]), count=int(found[2]))
    if under_torchrun(environment):
        return chosen_shard(f"{environment['RANK']}/{environment['WORLD_SIZE']}", {})
    return Shard()


def under_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether torchrun (or another launcher that sets its variables) has started this process."""
    return all(environment.get(name, "").isdigit() for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))


def choose_gpu(environment: MutableMapping[str, str]) -> None:
    """Under torchrun, let this process see one GPU only: that of its local rank. Call it before torch is imported.

    With more processes than GPUs in CUDA_VISIBLE_DEVICES they share them in turn. If that variable is not set, the
    local rank is taken as the number of the GPU.
    """
    if not under_torchrun(environment):
        return
    rank = int(environment["LOCAL_RANK"])
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if visible:
        environment["CUDA_VISIBLE_DEVICES"] = visible[rank % len(visible)].strip()
    elif "CUDA_VISIBLE_DEVICES" not in environment:
        environment["CUDA_VISIBLE_DEVICES"] = str(rank)
