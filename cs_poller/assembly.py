"""The poller put together over a store, a queue and a connection to Cadence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from codesous.control.v1.worker_binding_pb2 import WorkerBinding
from codesous.storage.v1.worker_binding_pb2 import CadenceTaskRecord
from prometheus_client import CollectorRegistry

from cs_core.cancellation import Cancellation
from cs_core.clock import Clock
from cs_core.codeq import Queue
from cs_core.codeq.kv import KvResultChannel
from cs_core.config import Settings
from cs_core.rpc.cadence import CadenceConnection
from cs_core.store.activations import ActivationStore
from cs_core.store.cadence_tasks import CadenceTaskStore
from cs_core.store.client import KvClient
from cs_core.store.members import MemberStore
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.resolve import Resolver
from cs_core.store.worker_bindings import WorkerBindingStore
from cs_core.store.worker_index import WorkerIndex
from cs_core.store.worker_reports import WorkerReportStore
from cs_core.submission import Submitter
from cs_core.telemetry.spans import trace_starter
from cs_core.waiters import Waiters

from .frontend import Frontend
from .group import Group
from .heartbeats import Heartbeats
from .intake import Intake
from .membership import Membership
from .metrics import Metrics
from .reconciler import Reconciler
from .reports import Reports
from .responder import Responder
from .takeover import Takeover
from .tasks import Tasks

MEMBERS = "cs-cadence-poller"


class Poller:
    """The parts of one poller that run side by side."""

    def __init__(
        self,
        membership: Membership,
        reconciler: Reconciler,
        takeover: Takeover,
        reports: Reports,
        waiters: Waiters,
        tasks: Tasks,
        grace: float,
    ) -> None:
        self.reconciler = reconciler
        self._membership = membership
        self._working = (reconciler.run, takeover.run, reports.run)
        self._waiters = waiters
        self._tasks = tasks
        self._grace = grace

    @property
    def inflight(self) -> int:
        """Tasks that this process is to answer."""
        return self._tasks.count

    async def drain(self, draining: bool) -> None:
        """Receive no more tasks until told to go on; those in flight are answered."""
        self.reconciler.drain(draining)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Poll for the length of the block; at its end, tasks have the grace to end, and others adopt what is left."""
        async with self._waiters.running(), asyncio.TaskGroup() as outer:
            living = outer.create_task(self._membership.run())
            try:
                async with asyncio.TaskGroup() as group:
                    working = [group.create_task(each()) for each in self._working]
                    try:
                        yield
                    finally:
                        for each in working:
                            each.cancel()
            finally:
                await self._tasks.drain(self._grace)
                living.cancel()
                await self._membership.leave()


def assemble(
    settings: Settings,
    client: KvClient,
    queue: Queue,
    connection: CadenceConnection | None,
    clock: Clock,
    instance: str,
    registry: CollectorRegistry,
) -> Poller:
    """Put a poller together; nothing runs yet. Without a connection every poll fails and says why."""
    partitions, limits, cadence = settings.store.partitions, settings.limits, settings.cadence
    metrics = Metrics(registry)
    heartbeats = Heartbeats()
    channel = KvResultChannel(client)
    activations = ActivationStore(client, partitions, clock, timedelta(seconds=limits.activation_ttl))
    waiters = Waiters(activations, channel, instance, on_other=heartbeats.take)
    frontend = Frontend(connection, cadence)
    store = CadenceTaskStore(client, partitions, instance)
    tasks = Tasks(
        Intake(Resolver(client), limits, clock, instance, trace_starter(settings.telemetry)),
        store,
        activations,
        Submitter(activations, queue),
        waiters,
        Cancellation(activations, channel, clock),
        Responder(frontend.respond, store, clock, timedelta(seconds=cadence.late_answers), metrics),
        frontend,
        heartbeats,
        clock,
        metrics,
        cadence.heartbeat_interval,
    )
    membership = Membership(
        MemberStore(client, MEMBERS),
        instance,
        lambda: reconciler.look_at_all(),  # noqa: PLW0108 - made below
        timedelta(seconds=cadence.member_life),
    )

    def make_group(binding: WorkerBinding, share: int) -> Group:
        return Group(
            binding,
            share,
            frontend=frontend,
            accept=tasks.receive,
            gate=membership.wait_living,
            on_turn=lambda: reports.turn(),  # noqa: PLW0108 - made below
            metrics=metrics,
            polls=cadence.polls,
        )

    index = WorkerIndex(client, partitions)
    reconciler = Reconciler(MutationBell(client.url), index, WorkerBindingStore(client, index), membership, make_group)
    metrics.watch_permits(lambda: sum(group.permits.total for group in reconciler.groups()))
    reports = Reports(WorkerReportStore(client, clock), reconciler.groups, instance, clock, metrics)

    def adopt(record: CadenceTaskRecord, settle: Callable[[], None]) -> None:
        group = reconciler.find(record.tenant, record.binding_uid)
        if group is not None:
            group.permits.occupy()

        def release() -> None:
            settle()
            if group is not None:
                group.permits.release()

        tasks.adopt(record, release)

    takeover = Takeover(store, membership, channel, adopt, waiters.take)
    return Poller(membership, reconciler, takeover, reports, waiters, tasks, settings.rpc.drain_grace)
