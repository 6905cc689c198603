"""What the scheduler counts and measures."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENESS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


class Metrics:
    """The scheduler's series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lateness = Histogram(
            "cs_scheduler_lateness_seconds",
            "From when a tick was due to its publication; ticks that waited for the one before are left out.",
            buckets=_LATENESS,
            registry=registry,
        )
        self._ticks = Counter(
            "cs_scheduler_ticks_total", "Ticks by what became of them.", ["outcome"], registry=registry
        )
        self._refused = Counter(
            "cs_scheduler_refused_ticks_total", "Ticks that were refused, by reason.", ["reason"], registry=registry
        )
        self._faults = Counter(
            "cs_scheduler_faults_total", "Looks at a schedule that failed for a reason of ours.", registry=registry
        )
        self._shards = Gauge("cs_scheduler_shards_held", "Shards that this process leads.", registry=registry)
        self._all_shards = Gauge(
            "cs_scheduler_shards", "Shards of the installation, whoever leads them.", registry=registry
        )
        self._repairs = Counter(
            "cs_scheduler_repairs_total", "Changes whose maker did not bring them to their shard.", registry=registry
        )

    def count_ticks(self, outcome: str, by: int = 1, reason: str = "") -> None:
        """Count ticks of one outcome: published, skipped, dropped, refused."""
        self._ticks.labels(outcome).inc(by)
        if reason:
            self._refused.labels(reason).inc(by)

    def observe_lateness(self, seconds: float) -> None:
        """Measure how late a tick was published."""
        self._lateness.observe(max(seconds, 0.0))

    def count_fault(self) -> None:
        """Count a look at a schedule that failed for a reason of ours."""
        self._faults.inc()

    def count_repairs(self, by: int) -> None:
        """Count changes that were made up for."""
        self._repairs.inc(by)

    def watch_shards(self, count: Callable[[], int], shards: int) -> None:
        """Ask how many of all shards are led when somebody wants to know."""
        self._all_shards.set(shards)
        self._shards.set_function(count)
