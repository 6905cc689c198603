"""The scheduler put together over a store and a queue."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

from cs_core.clock import Clock
from cs_core.codeq import Queue
from cs_core.config import Settings
from cs_core.errors import UnavailableError
from cs_core.schedules.placing import Placing
from cs_core.schedules.runs import Runs
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.leases import LeaseStore
from cs_core.store.members import MemberStore
from cs_core.store.resolve import Resolver
from cs_core.store.schedules import ScheduleStore
from cs_core.store.shards import ShardStore
from cs_core.submission import Submitter
from cs_core.telemetry.spans import trace_starter
from cs_scheduler.gaps import AtGap, pass_gap
from cs_scheduler.leading import Leading
from cs_scheduler.metrics import Metrics
from cs_scheduler.ticking import Ticking
from cs_scheduler.ticks import Ticks

GROUP = "cs-scheduler"


class Scheduler:
    """Leads shards and ticks, until it is told to stop."""

    def __init__(self, leading: Leading, ticking: Ticking) -> None:
        self.leading = leading
        self.ticking = ticking

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` is set, then hand every shard back."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self.ticking.run(), name="ticking")
            others = [
                group.create_task(self.leading.run(), name="leading"),
                group.create_task(self.ticking.sweep(), name="sweeping"),
            ]
            await stopping.wait()
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # Waits for what is under way in each shard. With the store away the leases end by themselves.
            with suppress(UnavailableError):
                await self.leading.leave()
            looking.cancel()


def assemble(
    settings: Settings,
    client: KvClient,
    queue: Queue,
    metrics: Metrics,
    clock: Clock,
    instance: str,
    *,
    at_gap: AtGap = pass_gap,
) -> Scheduler:
    """Put the parts together."""
    own = settings.scheduler
    shards = ShardStore(client, own.shards, own.history)
    activations = ActivationStore(
        client, settings.store.partitions, clock, timedelta(seconds=settings.limits.activation_ttl)
    )
    runs = Runs(
        Resolver(client),
        activations,
        Submitter(activations, queue),
        settings.limits,
        clock,
        trace_starter(settings.telemetry),
    )
    leading = Leading(
        MemberStore(client, GROUP),
        LeaseStore(client),
        own.shards,
        instance,
        timedelta(seconds=own.lease),
        clock,
        metrics,
    )
    ticking = Ticking(
        shards,
        leading,
        Ticks(shards, runs, leading, metrics, clock, at_gap=at_gap),
        Placing(ScheduleStore(client), shards, clock),
        metrics,
        clock,
        poll=own.poll_interval,
        concurrency=own.concurrency,
    )
    return Scheduler(leading, ticking)
