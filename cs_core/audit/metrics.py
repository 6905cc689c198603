"""What the relay counts and measures."""

from __future__ import annotations

from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge

from cs_core.clock import Clock


class RelayMetrics:
    """The relay's series. Only the process that holds the relay's lease has a lag to tell."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._oldest: datetime | None = None
        self._relayed = Counter(
            "cs_audit_relayed_total", "Mutations that this process relayed to the ledger.", registry=registry
        )
        self._failures = Counter(
            "cs_audit_ledger_failures_total",
            "Times that the ledger took nothing, by kind.",
            ["kind"],
            registry=registry,
        )
        self._leader = Gauge("cs_audit_relay_leader", "Whether this process relays: 1, or 0.", registry=registry)
        lag = Gauge(
            "cs_audit_relay_lag_seconds", "Age of the oldest mutation that is not in the ledger yet.", registry=registry
        )
        lag.set_function(self._lag)
        for kind in ("unavailable", "damaged"):
            self._failures.labels(kind)

    def relayed(self, count: int) -> None:
        """Count mutations that the ledger has."""
        self._relayed.inc(count)

    def failed(self, kind: str) -> None:
        """Count a failure of the ledger: `unavailable` or `damaged`."""
        self._failures.labels(kind).inc()

    def leads(self, leads: bool) -> None:
        """Tell whether this process relays."""
        self._leader.set(leads)
        if not leads:
            self._oldest = None

    def waits(self, oldest: datetime | None) -> None:
        """Tell when the oldest mutation that waits was made; None: none waits."""
        self._oldest = oldest

    def _lag(self) -> float:
        if self._oldest is None:
            return 0.0
        return max(0.0, (self._clock.now() - self._oldest).total_seconds())
