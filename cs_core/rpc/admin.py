"""AdminService: what an operator asks of this process.

What belongs to another process answers CS_UNIMPLEMENTED, and names that process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version

from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.load_pb2 import FunctionLoad, Load, MethodLoad
from codesous.admin.v1.process_pb2 import Cell, Lease, ProcessInfo, ReadinessCheck

from cs_core.caches import CacheView
from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import Queue
from cs_core.config import Settings
from cs_core.errors import NotHereError, ValidationError
from cs_core.operations.installation import Installation
from cs_core.rpc import admin_messages as messages
from cs_core.rpc.context import Context
from cs_core.rpc.dead_letter_calls import DeadLetterCalls, DeadLetterDesk
from cs_core.rpc.interceptors.intake import Intake
from cs_core.rpc.readiness import Check, Readiness
from cs_core.telemetry.log_level import LogLevel

SERVICE = "codesous.admin.v1.AdminService"
DRAIN_SECONDS_MAX = 3_600
TOPIC_CHARS_MAX = 128
_DRAIN_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """What this process tells about itself; what it does not own is None."""

    service: str
    instance: str
    started: datetime
    settings: Settings
    queue: Queue | None = None
    installation: Installation | None = None
    log_level: LogLevel = field(default_factory=lambda: LogLevel("info"))
    caches: Sequence[CacheView] = ()
    cells: Callable[[], Sequence[Cell]] | None = None
    leases: Callable[[], Sequence[Lease]] | None = None
    functions: Callable[[], Sequence[FunctionLoad]] = tuple
    inflight: Callable[[], int] | None = None
    on_drain: Callable[[bool], Awaitable[None]] | None = None
    dead_letters: DeadLetterDesk | None = None


class AdminServicer(DeadLetterCalls):
    """The admin service of one process.

    Args:
        process: what it tells and owns.
        readiness: whether it is ready, and why not.
        intake: what a drain closes.
        loads: the calls that were served, by method.
        clock: for how long a log level holds.
    """

    def __init__(
        self,
        process: Process,
        readiness: Readiness,
        intake: Intake,
        loads: Callable[[], Sequence[MethodLoad]],
        clock: Clock,
    ) -> None:
        super().__init__(process.dead_letters)
        self._process = process
        self._readiness = readiness
        self._intake = intake
        self._loads = loads
        self._clock = clock

    async def GetInfo(self, request: pb.GetInfoRequest, context: Context) -> pb.GetInfoResponse:
        """See the contract."""
        process = self._process
        return pb.GetInfoResponse(
            info=ProcessInfo(
                service=process.service,
                instance=process.instance,
                release=version("code-sous"),
                start_time=to_timestamp(process.started),
                config_json=json.dumps(process.settings.redacted(), sort_keys=True),
            )
        )

    async def GetReadiness(self, request: pb.GetReadinessRequest, context: Context) -> pb.GetReadinessResponse:
        """See the contract."""
        readiness = self._readiness
        return pb.GetReadinessResponse(
            ready=readiness.ready,
            checks=[_check(check) for check in readiness.checks],
            draining=readiness.draining,
            since_time=to_timestamp(readiness.since) if readiness.since else None,
        )

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        """See the contract."""
        wait = self._process.settings.rpc.drain_grace
        if request.HasField("timeout"):
            wait = request.timeout.seconds + request.timeout.nanos / 1e9
        if not 0 <= wait <= DRAIN_SECONDS_MAX:
            raise ValidationError.field("timeout", f"must be 0 s to {DRAIN_SECONDS_MAX} s")
        await self._set_draining(True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while self._inflight() and loop.time() < deadline:  # noqa: ASYNC110 - asked of, not told by, what is in flight
            await asyncio.sleep(_DRAIN_POLL)
        return pb.DrainResponse(inflight=self._inflight())

    async def Undrain(self, request: pb.UndrainRequest, context: Context) -> pb.UndrainResponse:
        """See the contract."""
        await self._set_draining(False)
        return pb.UndrainResponse()

    async def _set_draining(self, draining: bool) -> None:
        self._readiness.draining = draining
        await self._readiness.tell()
        self._intake.closed = draining
        if self._process.on_drain is not None:
            await self._process.on_drain(draining)

    def _inflight(self) -> int:
        return self._process.inflight() if self._process.inflight is not None else 0

    async def GetLogLevel(self, request: pb.GetLogLevelRequest, context: Context) -> pb.GetLogLevelResponse:
        """See the contract."""
        return pb.GetLogLevelResponse(state=messages.level_state(self._process.log_level.state()))

    async def SetLogLevel(self, request: pb.SetLogLevelRequest, context: Context) -> pb.SetLogLevelResponse:
        """See the contract."""
        level, length = messages.level_wanted(request)
        self._process.log_level.set(level, self._clock, length)
        return pb.SetLogLevelResponse(state=messages.level_state(self._process.log_level.state()))

    async def GetQueueDepth(self, request: pb.GetQueueDepthRequest, context: Context) -> pb.GetQueueDepthResponse:
        """See the contract."""
        if not 0 < len(request.topic) <= TOPIC_CHARS_MAX:
            raise ValidationError.field("topic", f"must be 1 to {TOPIC_CHARS_MAX} characters")
        look = await self._installation().queue(request.topic)
        return pb.GetQueueDepthResponse(
            partitions=[messages.partition_depth(part) for part in look.parts],
            consumers=look.consumers,
            dead_letters=look.dead_letters,
        )

    async def ExplainActivation(
        self, request: pb.ExplainActivationRequest, context: Context
    ) -> pb.ExplainActivationResponse:
        """See the contract."""
        explanation = await self._installation().explainer.explain(request.tenant, request.activation_id)
        return pb.ExplainActivationResponse(explanation=explanation)

    async def ListShards(self, request: pb.ListShardsRequest, context: Context) -> pb.ListShardsResponse:
        """See the contract."""
        return pb.ListShardsResponse(shards=await self._installation().shards.list())

    async def ListCaches(self, request: pb.ListCachesRequest, context: Context) -> pb.ListCachesResponse:
        """See the contract."""
        caches = sorted(self._process.caches, key=lambda cache: cache.name)
        return pb.ListCachesResponse(caches=[messages.cache(cache) for cache in caches])

    async def FlushCache(self, request: pb.FlushCacheRequest, context: Context) -> pb.FlushCacheResponse:
        """See the contract."""
        for cache in self._process.caches:
            if cache.name == request.name:
                return pb.FlushCacheResponse(dropped=cache.flush())
        names = ", ".join(sorted(cache.name for cache in self._process.caches)) or "none"
        raise ValidationError.field("name", f"must be a cache of {self._process.service}; it has: {names}")

    async def GetLoad(self, request: pb.GetLoadRequest, context: Context) -> pb.GetLoadResponse:
        """See the contract."""
        return pb.GetLoadResponse(
            load=Load(methods=self._loads(), functions=self._process.functions(), inflight=self._inflight())
        )

    async def ListCells(self, request: pb.ListCellsRequest, context: Context) -> pb.ListCellsResponse:
        """See the contract."""
        if self._process.cells is None:
            raise NotHereError("cells are", "cs-invoker-pool")
        return pb.ListCellsResponse(cells=self._process.cells())

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        """See the contract."""
        if self._process.leases is None:
            raise NotHereError("leases are", "cs-invoker-pool or cs-scheduler")
        return pb.ListLeasesResponse(leases=self._process.leases())

    def _installation(self) -> Installation:
        if self._process.installation is None:
            raise NotHereError("the installation's store is", "a process that has one")
        return self._process.installation


def _check(check: Check) -> ReadinessCheck:
    return ReadinessCheck(
        name=check.name,
        ready=check.ready,
        message=check.message,
        since_time=to_timestamp(check.since) if check.since else None,
        last_error=check.last_error,
        last_error_time=to_timestamp(check.last_error_time) if check.last_error_time else None,
    )
