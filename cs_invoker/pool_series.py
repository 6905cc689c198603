"""The series of the pool of cells, read from it when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cs_sandbox.pool import PoolStats


class PoolSeries(Collector):
    """Shows what `stats` tells. Its reasons and states are words of the sandbox's code."""

    def __init__(self, registry: CollectorRegistry, stats: Callable[[], PoolStats]) -> None:
        self._stats = stats
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The series without their values."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """The series now."""
        cells, waiting, runs, kills, zygotes = _families()
        stats = self._stats()
        for state, count in stats.cells.items():
            cells.add_metric((state,), count)
        waiting.add_metric((), stats.waiting)
        runs.add_metric((), stats.runs)
        for reason, count in stats.kills.items():
            kills.add_metric((reason,), count)
        zygotes.add_metric((), stats.zygote_starts)
        yield from (cells, waiting, runs, kills, zygotes)


def _families() -> tuple[
    GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily, CounterMetricFamily, CounterMetricFamily
]:
    return (
        GaugeMetricFamily("cs_invoker_cells", "Cells that live now, by state.", labels=["state"]),
        GaugeMetricFamily("cs_invoker_runs_waiting", "Runs that wait for a cell now."),
        CounterMetricFamily("cs_invoker_runs", "Runs that were given a cell."),
        CounterMetricFamily("cs_invoker_cell_kills", "Cells that were ended, by reason.", labels=["reason"]),
        CounterMetricFamily("cs_invoker_zygote_starts", "Zygotes that were started; more than 1: one died."),
    )
