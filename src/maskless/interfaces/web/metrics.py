"""What Prometheus reads from /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from maskless.interfaces.jobs.worker import Jobs


class _JobMetrics:
    """Reads the counts of a queue whenever they are collected."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        edits = CounterMetricFamily("maskless_edits", "Edits that ended, by how.", labels=["state"])
        for state, count in self._jobs.totals.items():
            edits.add_metric([state], count)
        yield edits
        yield GaugeMetricFamily("maskless_waiting", "Edits that wait for their turn.", self._jobs.waiting)
        yield GaugeMetricFamily("maskless_running", "1 while an edit is being made.", int(self._jobs.is_running))
        yield CounterMetricFamily(
            "maskless_edit_seconds", "Seconds that finished edits took, in all.", self._jobs.total_seconds
        )
        yield CounterMetricFamily("maskless_inpaintings", "Inpaintings of finished edits.", self._jobs.inpaintings)


def metrics_text(jobs: Jobs) -> bytes:
    """All metrics in the text format of Prometheus."""
    from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

    registry = CollectorRegistry()
    registry.register(_JobMetrics(jobs))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
