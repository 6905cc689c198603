"""What waits in the queue, for how long, and whose it is: read every few seconds, and shown as series.

Tenants are labels only while they have a backlog, and only those that have waited longest; the others are one: `other`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog
from codesous.queue.v1.envelope_pb2 import Lane
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cs_core.clock import Clock
from cs_core.codeq.kv_view import TenantBacklog
from cs_core.errors import UnavailableError
from cs_core.operations.installation import QueueLook

_log = structlog.get_logger(__name__)
TENANTS_MAX: Final = 20
"""Tenants that have a series of their own at once."""
OTHER: Final = "other"
READ_EVERY: Final = 5.0
"""Seconds between two readings."""
LANES: Final[Mapping[str, Lane.ValueType]] = {
    "interactive": Lane.LANE_INTERACTIVE,
    "background": Lane.LANE_BACKGROUND,
}


@dataclass(frozen=True, slots=True)
class LaneBacklog:
    """What waits in one lane: ready messages, and the age of the oldest of them in seconds."""

    ready: int
    age: float


@dataclass(frozen=True, slots=True)
class BacklogView:
    """The queue at one moment."""

    lanes: Mapping[str, LaneBacklog]
    leased: int = 0
    delayed: int = 0
    consumers: int = 0
    dead_letters: int | None = None
    tenants: Mapping[str, TenantBacklog] = field(default_factory=dict)


def summarize(look: QueueLook) -> BacklogView:
    """Add up the partitions; at most `TENANTS_MAX` tenants keep their name, the longest waiting first."""
    ready: Counter[int] = Counter()
    ages: dict[int, timedelta] = {}
    tenants: dict[str, TenantBacklog] = {}
    for part in look.parts:
        ready.update(part.depth.ready)
        if part.backlog is None:
            continue
        for lane, age in part.backlog.oldest.items():
            ages[lane] = max(ages.get(lane, timedelta(0)), age)
        for tenant, backlog in part.backlog.tenants.items():
            _add(tenants, tenant, backlog)
    named: dict[str, TenantBacklog] = {}
    for place, (tenant, backlog) in enumerate(sorted(tenants.items(), key=lambda item: (-item[1].oldest, item[0]))):
        _add(named, tenant if place < TENANTS_MAX else OTHER, backlog)
    return BacklogView(
        {name: LaneBacklog(ready[lane], ages.get(lane, timedelta(0)).total_seconds()) for name, lane in LANES.items()},
        sum(part.depth.leased for part in look.parts),
        sum(part.depth.delayed for part in look.parts),
        len(look.consumers),
        look.dead_letters,
        named,
    )


def _add(tenants: dict[str, TenantBacklog], tenant: str, backlog: TenantBacklog) -> None:
    held = tenants.setdefault(tenant, TenantBacklog())
    held.ready += backlog.ready
    held.oldest = max(held.oldest, backlog.oldest)


class BacklogSeries(Collector):
    """The queue's series, as of the last reading. `read` looks at the topic of invocations."""

    def __init__(self, registry: CollectorRegistry, read: Callable[[], Awaitable[QueueLook]], clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._view: BacklogView | None = None
        self._at = 0.0
        self._readings: Counter[str] = Counter(read=0, failed=0)
        registry.register(self)

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY)

    async def read(self) -> None:
        """Read once. While the store is away, what was read last stays, and its age tells."""
        try:
            self._view = summarize(await self._read())
        except UnavailableError as error:
            self._readings["failed"] += 1
            _log.info("the queue could not be read", reason=error.reason)
        else:
            self._at = self._clock.now().timestamp()
            self._readings["read"] += 1

    def describe(self) -> Iterator[Metric]:
        """The series without their values."""
        yield from _Families().all()

    def collect(self) -> Iterator[Metric]:
        """The series as of the last reading; none of the queue's before the first."""
        families, view = _Families(), self._view
        for outcome, count in self._readings.items():
            families.readings.add_metric((outcome,), count)
        if view is not None:
            families.show(view, self._at)
        yield from families.all()


class _Families:
    def __init__(self) -> None:
        gauge = GaugeMetricFamily
        self.ready = gauge("cs_queue_ready_messages", "Invocations that wait to be taken.", labels=["lane"])
        self.age = gauge("cs_queue_oldest_age_seconds", "Age of the oldest that waits; 0: none.", labels=["lane"])
        self.leased = gauge("cs_queue_leased_messages", "Invocations that an invoker holds.")
        self.delayed = gauge("cs_queue_delayed_messages", "Invocations that wait for their time, such as retries.")
        self.dead = gauge("cs_queue_dead_letters", "Activations that were given up and wait for an operator.")
        self.consumers = gauge("cs_queue_consumers", "Invokers that report to the store.")
        self.tenant_ready = gauge(
            "cs_queue_tenant_ready_messages", "Invocations of a tenant that wait.", labels=["tenant"]
        )
        self.tenant_age = gauge(
            "cs_queue_tenant_oldest_age_seconds", "Age of a tenant's oldest that waits.", labels=["tenant"]
        )
        self.at = gauge("cs_queue_read_timestamp_seconds", "When the queue was read last, since 1970.")
        self.readings = CounterMetricFamily("cs_queue_readings", "Readings of the queue.", labels=["outcome"])

    def all(self) -> Iterator[Metric]:
        yield from vars(self).values()

    def show(self, view: BacklogView, at: float) -> None:
        for name, lane in view.lanes.items():
            self.ready.add_metric((name,), lane.ready)
            self.age.add_metric((name,), lane.age)
        self.leased.add_metric((), view.leased)
        self.delayed.add_metric((), view.delayed)
        self.consumers.add_metric((), view.consumers)
        if view.dead_letters is not None:
            self.dead.add_metric((), view.dead_letters)
        for tenant, backlog in view.tenants.items():
            self.tenant_ready.add_metric((tenant,), backlog.ready)
            self.tenant_age.add_metric((tenant,), backlog.oldest.total_seconds())
        self.at.add_metric((), at)
