"""Schedules over a real store: the control plane's part, a scheduler in this process, and a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.schedule_pb2 import Schedule, ScheduleTick, TickOutcome
from codesous.control.v1.schedule_service_pb2 import CreateScheduleRequest
from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.storage.v1.records_pb2 import AliasRecord, FunctionRecord, VersionRecord
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.principal_pb2 import Principal
from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry

from cs_control.mutations import Actor
from cs_control.schedule_preview import Previews
from cs_control.schedules import Schedules
from cs_core.clock import Clock, ManualClock, to_timestamp
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.kv import KvQueue
from cs_core.config import Settings
from cs_core.schedules.placing import Placing
from cs_core.schedules.runs import Runs
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.mutations import MutationLog
from cs_core.store.resolve import Resolver
from cs_core.store.schedules import ScheduleStore
from cs_core.store.shards import Placed, ShardStore
from cs_core.submission import Submitter
from cs_scheduler.assembly import Scheduler, assemble
from cs_scheduler.gaps import AtGap, pass_gap
from cs_scheduler.metrics import Metrics

TENANT, SPACE, FUNCTION = "t_alpha0", "default", "tickfn"
SHARDS, PARTITIONS = 4, 4
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ADA = Actor(Principal(subject="ada", tenant=TENANT, roles=["timer"]), "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")


def make_settings(url: str, **scheduler: Any) -> Settings:
    """Settings with few shards, and leases short enough for a test."""
    own = {"shards": SHARDS, "lease": 1.0, "poll_interval": 0.02, **scheduler}
    return Settings.model_validate({"store": {"url": url, "partitions": PARTITIONS}, "scheduler": own})


async def put_function(client: KvClient, name: str = FUNCTION, roles: tuple[str, ...] = ("timer",)) -> None:
    """Store a function, its version 1 and the alias `live`; `roles` may invoke it by schedule."""
    function = Function(tenant=TENANT, namespace=SPACE, function=name, latest_version=1)
    function.state = FunctionState.FUNCTION_STATE_ACTIVE
    version = Version(tenant=TENANT, namespace=SPACE, function=name, version=1)
    version.config.invoke_schedule_roles.extend(roles)
    version.config.worker_timeout.FromTimedelta(timedelta(seconds=30))
    alias = Alias(tenant=TENANT, namespace=SPACE, function=name, alias="live", version=1)
    place = (TENANT, SPACE, name)
    await client.call("SET", keys.function(*place), FunctionRecord(function=function).SerializeToString())
    await client.call("SET", keys.version(*place, 1), VersionRecord(version=version).SerializeToString())
    await client.call("HSET", keys.aliases(*place), "live", AliasRecord(alias=alias).SerializeToString())


class Bench:
    """A control plane and a scheduler over one store, on one clock."""

    def __init__(
        self, client: KvClient, *, clock: Clock | None = None, at_gap: AtGap = pass_gap, **scheduler: Any
    ) -> None:
        self.client = client
        self.manual = ManualClock(START)
        self.clock = clock or self.manual
        self.settings = make_settings(client.url, **scheduler)
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.queue = KvQueue(client, PARTITIONS, timedelta(seconds=2), timedelta(milliseconds=50))
        self.activations = ActivationStore(client, PARTITIONS, self.clock, timedelta(days=7))
        self.shards = ShardStore(client, self.settings.scheduler.shards, self.settings.scheduler.history)
        self.store = ScheduleStore(client)
        self.placing = Placing(self.store, self.shards, self.clock)
        resolver = Resolver(client)
        self.runs = Runs(
            resolver, self.activations, Submitter(self.activations, self.queue), self.settings.limits, self.clock
        )
        self.schedules = Schedules(self.store, self.shards, self.placing, resolver, self.runs, self.clock)
        self.previews = Previews(self.store, self.shards, self.runs, self.clock)
        self.log = MutationLog(client)
        self.scheduler = self.scheduler_named("scheduler-1", at_gap)

    def scheduler_named(self, instance: str, at_gap: AtGap = pass_gap) -> Scheduler:
        """A scheduler; nothing runs yet."""
        return assemble(self.settings, self.client, self.queue, self.metrics, self.clock, instance, at_gap=at_gap)

    async def create(self, name: str = "beat", every: int | None = None, **fields: Any) -> Schedule:
        """Make a schedule; `every` is its interval in seconds, and what is not named here is a field of the spec."""
        request = CreateScheduleRequest(tenant=TENANT, namespace=SPACE, schedule=name)
        request.action.function, request.action.ref = fields.pop("function", FUNCTION), fields.pop("ref", "live")
        request.action.payload_json = fields.pop("payload", b"")
        if (overlap := fields.pop("overlap", None)) is not None:
            request.policies.overlap = overlap
        if (catchup := fields.pop("catchup", None)) is not None:
            request.policies.max_catchup_ticks = catchup
        actor = fields.pop("actor", ADA)
        if every is not None:
            fields["interval"] = Duration(seconds=every)
        for field, value in fields.items():
            if isinstance(value, str):
                setattr(request.spec, field, value)
            elif isinstance(value, datetime):
                getattr(request.spec, field).CopyFrom(to_timestamp(value))
            elif isinstance(value, timedelta):
                getattr(request.spec, field).FromTimedelta(value)
            else:
                getattr(request.spec, field).CopyFrom(value)
        return (await self.schedules.create(request, actor))[0]

    async def get(self, name: str = "beat") -> Schedule:
        """Read a schedule."""
        return await self.schedules.get(TENANT, SPACE, name)

    async def placed(self, name: str = "beat") -> Placed:
        """The schedule as its shard has it."""
        found = await self.shards.get((await self.get(name)).uid)
        assert found is not None
        return found

    async def look(self, scheduler: Scheduler | None = None) -> None:
        """Let the scheduler do what is to be done at this time."""
        chosen = scheduler or self.scheduler
        await chosen.leading.balance()
        # A tick that waits is looked at again and again; the clock stands still.
        for _ in range(200):
            if not await chosen.ticking.look():
                return
        raise AssertionError("the scheduler does not come to an end")

    async def pass_time(self, length: timedelta, step: timedelta = SECOND) -> None:
        """Let time pass, the scheduler looking at every step."""
        while length > timedelta(0):
            self.manual.advance(min(step, length))
            length -= step
            await self.look()

    async def ticks(self, name: str = "beat") -> list[ScheduleTick]:
        """The history, oldest first."""
        found, _ = await self.schedules.history(TENANT, SPACE, name, below=None, limit=500, after_ms=None)
        return found[::-1]

    async def outcomes(self, name: str = "beat") -> list[tuple[int, str]]:
        """The history as numbers and words, oldest first."""
        return [(tick.tick, outcome_of(tick)) for tick in await self.ticks(name)]

    async def run(self, function: str = FUNCTION) -> list[Activation]:
        """The activations of a function, oldest first."""
        found, _ = await self.activations.list_by_function(TENANT, SPACE, function, before=None, limit=10_000)
        return sorted(found, key=lambda each: each.trigger.schedule.tick)

    async def end(self, activation_id: str) -> None:
        """Let an activation end well, without its having run."""
        result = InvocationResult(
            activation_id=activation_id,
            tenant=TENANT,
            status=ActivationStatus.ACTIVATION_STATUS_SUCCESS,
            end_time=to_timestamp(self.clock.now()),
        )
        assert (await self.activations.finish(result, "")).accepted

    async def end_all(self) -> None:
        """Let every activation end that has not."""
        for activation in await self.run():
            if await self.activations.is_open(TENANT, activation.activation_id):
                await self.end(activation.activation_id)

    async def messages(self) -> int:
        """Messages in the queue."""
        return (await self.queue.depth(INVOKE)).total

    def count(self, series: str, **labels: str) -> float:
        """The value of a series of the scheduler."""
        return self.registry.get_sample_value(series, labels) or 0.0


def outcome_of(tick: ScheduleTick) -> str:
    """The outcome as a word."""
    return TickOutcome.Name(tick.outcome).removeprefix("TICK_OUTCOME_").lower()
