"""The series that every process has: whether it is ready, what is missing, and how its caches fare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cs_core.caches import CacheView


class ProcessSeries(Collector):
    """Read when somebody scrapes, so nothing is told twice.

    Args:
        registry: where the series are shown.
        ready: whether the process takes work.
        checks: the last outcome of each readiness probe, by name.
        caches: the caches of the process.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        ready: Callable[[], bool],
        checks: Callable[[], Mapping[str, bool]],
        caches: Sequence[CacheView],
    ) -> None:
        self._ready = ready
        self._checks = checks
        self._caches = caches
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """The series without their values."""
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """The series now."""
        ready, checks, lookups, entries = _families()
        ready.add_metric((), float(self._ready()))
        for name, there in self._checks().items():
            checks.add_metric((name,), float(there))
        for cache in self._caches:
            lookups.add_metric((cache.name, "hit"), cache.lookups.hits)
            lookups.add_metric((cache.name, "miss"), cache.lookups.misses)
            entries.add_metric((cache.name,), cache.entries())
        yield from (ready, checks, lookups, entries)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("cs_process_ready", "Whether the process takes work: 1, or 0."),
        GaugeMetricFamily(
            "cs_process_check_ready", "Whether what the process needs is there, by readiness probe.", labels=["check"]
        ),
        CounterMetricFamily("cs_cache_lookups", "Look-ups in a cache, by outcome.", labels=["cache", "outcome"]),
        GaugeMetricFamily("cs_cache_entries", "Entries that a cache holds now.", labels=["cache"]),
    )
