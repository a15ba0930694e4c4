"""What every suite prints: one row a figure, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
"""{suite, method, task, metric, value, low, high, n}, and the gate where one is asked for."""

Z = 1.959964  # the normal distribution's 97.5 % point


def share_row(hits: Sequence[bool], **names: Any) -> Row:
    """The share of hits, with Wilson's interval (it stays inside [0, 1], also for all or none).

    Raises ValueError where there is nothing to count.
    """
    n = len(hits)
    if n == 0:
        raise ValueError(f"nothing was measured for {names.get('metric', 'a metric')}")
    share = sum(hits) / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # For all or none the interval ends at the share itself, to the last bit.
    low, high = max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
    return {**names, "value": share, "low": low, "high": high, "n": n}


def mean_row(values: Sequence[float], **names: Any) -> Row:
    """The mean, with the normal interval of a mean."""
    n = len(values)
    if n == 0:
        raise ValueError(f"nothing was measured for {names.get('metric', 'a metric')}")
    mean = sum(values) / n
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / max(n - 1, 1))
    half = Z * spread / math.sqrt(n)
    return {**names, "value": mean, "low": mean - half, "high": mean + half, "n": n}
