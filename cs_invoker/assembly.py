"""Puts the parts of one invoker together, over a store, a queue and a pool of cells that are given."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from cs_core.clock import Clock
from cs_core.codeq import Queue, ResultChannel
from cs_core.codeq.contract import INVOKE
from cs_core.config import Settings
from cs_core.store.activations import ActivationStore
from cs_core.store.overdue import OverdueStore
from cs_core.store.slots import SlotStore
from cs_core.store.userkv import UserKvStore
from cs_core.telemetry.spans import Spans
from cs_sandbox.host.fetch import Fetcher

from .cancellations import Cancellations
from .conclusion import Conclusion
from .consumer import Consumer, Intake
from .execution import Execution, Parts, Policy
from .gaps import AtGap, pass_gap
from .host_calls import HostApi
from .host_publish import TopicLimit
from .host_secrets import Secrets
from .inflight import Inflight
from .lease import Leases, Lengths
from .metrics import Metrics
from .overdue import Overdue
from .permits import Permits
from .renewal import OpenLessors, RenewalThread
from .results import Sizes
from .runner import Cells, Code, Runner
from .slots import Slots
from .tracing import Tracing

BATCH = 16
RECEIVE_WAIT = timedelta(seconds=1)
RETRY_DELAY = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Backends:
    """What an invoker stands on. `open_lessors` is called in the loop of the thread that renews leases."""

    activations: ActivationStore
    overdue: OverdueStore
    slots: SlotStore
    queue: Queue
    channel: ResultChannel
    code: Code
    cells: Cells
    user_kv: UserKvStore
    fetcher: Fetcher
    secrets: Secrets
    metrics: Metrics
    clock: Clock
    spans: Spans
    open_lessors: OpenLessors


@dataclass(frozen=True, slots=True)
class Invoker:
    """One invoker: run it in a task, stop it once."""

    instance: str
    consumer: Consumer
    inflight: Inflight
    cancellations: Cancellations
    renewal: RenewalThread
    overdue: Overdue

    async def run(self) -> None:
        """Process messages until `stop`, then drain. Raises nothing that a store or a function causes."""
        async with self.renewal.running(), self.overdue.running(), self.cancellations.listen(self.instance):
            await self.consumer.run()

    def stop(self) -> None:
        """Take no more messages; `run` returns when what was taken is done or handed back."""
        self.consumer.stop()


def assemble(settings: Settings, backends: Backends, instance: str, *, at_gap: AtGap = pass_gap) -> Invoker:
    """Make the invoker `instance`."""
    lengths = Lengths(
        record=timedelta(seconds=settings.invoker.activation_lease), message=timedelta(seconds=settings.codeq.lease)
    )
    inflight = Inflight(backends.clock, backends.metrics.set_inflight)
    conclusion = Conclusion(backends.queue, backends.channel, backends.clock, patience=lengths.message)
    slots = Slots(backends.slots, lengths.record, random.Random())  # noqa: S311 - jitter, not a secret
    renewal = RenewalThread(backends.open_lessors, lengths)
    parts = Parts(
        activations=backends.activations,
        leases=Leases(backends.activations, renewal),
        slots=slots,
        conclusion=conclusion,
        runner=_runner(settings, backends),
        inflight=inflight,
        metrics=backends.metrics,
        clock=backends.clock,
        tracing=Tracing(backends.spans),
    )
    policy = Policy(lengths, settings.codeq.max_deliveries, RETRY_DELAY, settings.limits.log_bytes)
    execution = Execution(parts, policy, instance, at_gap=at_gap)
    intake = Intake(
        INVOKE,
        BATCH,
        RECEIVE_WAIT,
        settings.invoker.partition_share,
        grace=timedelta(seconds=settings.rpc.drain_grace),
        outage=lengths.record - lengths.renewal,
        settle=lengths.renewal,
    )
    permits = Permits(settings.invoker.concurrency)
    overdue = Overdue(
        backends.overdue,
        backends.activations,
        backends.metrics,
        backends.clock,
        settings.store.partitions,
        lengths.record,
        instance,
        random.Random(),  # noqa: S311 - jitter, not a secret
    )
    consumer = Consumer(backends.queue, permits, intake, execution.process, conclusion.hand_back)
    return Invoker(instance, consumer, inflight, Cancellations(backends.channel, inflight), renewal, overdue)


def _runner(settings: Settings, backends: Backends) -> Runner:
    limits = settings.limits
    api = HostApi(
        user_kv=backends.user_kv,
        queue=backends.queue,
        channel=backends.channel,
        fetcher=backends.fetcher,
        secrets=backends.secrets,
        topics=TopicLimit(backends.queue, limits.topic_messages, backends.clock),
        clock=backends.clock,
        limits=limits,
        partitions=settings.store.partitions,
        count_egress_report=backends.metrics.count_egress_report,
    )
    return Runner(
        code=backends.code,
        cells=backends.cells,
        open_host=api.open,
        clock=backends.clock,
        sizes=Sizes(limits.result_bytes, limits.error_bytes, limits.stack_bytes, limits.log_bytes),
        on_cold_start=backends.metrics.count_cold_start,
    )
