"""What every suite reports: one row for each figure, with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict, Unpack, cast

Z = 1.959964  # the normal distribution's 97.5 % point
Figures = dict[str, Any]
"""The figures of one request by name, as plain values that JSON can hold; a suite may keep more there, such as a
box."""


class RowNames(TypedDict, total=False):
    """What a row is about, beside its metric. gate: the value to be reached, in rows of suites that have gates."""

    suite: str
    method: str
    task: str
    gate: float | None


class Row(RowNames):
    """One figure: its metric, its value, the ends of its 95 % interval, and the number of measurements."""

    metric: str
    value: float
    low: float
    high: float
    n: int


def share_row(hits: Sequence[bool], *, metric: str, **names: Unpack[RowNames]) -> Row:
    """The share of hits, with Wilson's interval (it stays inside [0, 1], also where all or none are hits).

    Raises:
        ValueError: there is nothing to count.
    """
    n = len(hits)
    if n == 0:
        raise ValueError(f"nothing was measured for {metric}")
    share = sum(hits) / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n)) / (1 + Z * Z / n)
    # Where all or none are hits, the interval ends at the share itself, to the last bit.
    low, high = max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
    return _row(names, metric, value=share, low=low, high=high, n=n)


def mean_row(values: Sequence[float], *, metric: str, **names: Unpack[RowNames]) -> Row:
    """The mean, with the normal interval of a mean.

    Raises:
        ValueError: there is nothing to average.
    """
    n = len(values)
    if n == 0:
        raise ValueError(f"nothing was measured for {metric}")
    mean = sum(values) / n
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / max(n - 1, 1))
    half = Z * deviation / math.sqrt(n)
    return _row(names, metric, value=mean, low=mean - half, high=mean + half, n=n)


def row_of(values: Sequence[bool | float], *, metric: str, **names: Unpack[RowNames]) -> Row:
    """The share of truth values, or the mean of numbers.

    Raises:
        ValueError: there are no values.
    """
    if all(isinstance(value, bool) for value in values):
        return share_row([bool(value) for value in values], metric=metric, **names)
    return mean_row([float(value) for value in values], metric=metric, **names)


def difference_row(
    values: Sequence[float], others: Sequence[float], other: str, *, metric: str, **names: Unpack[RowNames]
) -> Row:
    """The mean difference from another method, request by request.

    others: what that method has on the same requests, in the same order. other: its name.
    """
    differences = [float(a) - float(b) for a, b in zip(values, others, strict=True)]
    return mean_row(differences, metric=f"{metric} minus that of {other}", **names)


def rows_of_figures(found: Sequence[Figures], metrics: Iterable[str], **names: Unpack[RowNames]) -> list[Row]:
    """A row for each of these metrics that was measured, from the figures of every request.

    A request that lacks a metric, or has None or a number that is not finite there, does not count in its row.
    """
    rows = []
    for metric in metrics:
        known = [one[metric] for one in found if one.get(metric) is not None]
        values = [value for value in known if math.isfinite(value)]
        rows += [row_of(values, metric=metric, **names)] if values else []
    return rows


def _row(names: RowNames, metric: str, *, value: float, low: float, high: float, n: int) -> Row:
    """A row with its keys in the order of the columns."""
    row: dict[str, object] = {**names, "metric": metric, "value": value, "low": low, "high": high, "n": n}
    order = ("suite", "method", "task", "metric", "gate", "value", "low", "high", "n")
    return cast(Row, {key: row[key] for key in order if key in row})
