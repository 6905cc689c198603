"""What the gateway counts and measures."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """The gateway's series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._waiting = Gauge("cs_gateway_waiting", "Activations that are waited for.", registry=registry)
        self._admitted = Counter(
            "cs_gateway_admitted_total", "Requests that the gate let through to a version.", registry=registry
        )
        self._refused = Counter(
            "cs_gateway_refused_total", "Requests that the gate refused, by reason.", ["reason"], registry=registry
        )

    def watch_waiting(self, count: Callable[[], int]) -> None:
        """Tell how many activations are waited for, whenever somebody asks."""
        self._waiting.set_function(count)

    def count_admitted(self) -> None:
        """Count a request that the gate let through."""
        self._admitted.inc()

    def count_refused(self, reason: str) -> None:
        """Count a request that the gate refused."""
        self._refused.labels(reason).inc()
