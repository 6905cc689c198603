"""AdminService: what an operator asks of this process.

What a process does not own, and what this release does not have, answers CS_UNIMPLEMENTED.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version

from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.admin_service_pb2_grpc import AdminServiceServicer
from codesous.admin.v1.process_pb2 import Cell, LaneDepth, Lease, PartitionDepth, ProcessInfo, ReadinessCheck

from cs_core.clock import to_timestamp
from cs_core.codeq import Queue
from cs_core.config import Settings
from cs_core.errors import UnimplementedError, ValidationError
from cs_core.rpc.context import Context
from cs_core.rpc.readiness import Readiness

SERVICE = "codesous.admin.v1.AdminService"
_DRAIN_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """What this process tells about itself; what it does not own is None."""

    service: str
    instance: str
    started: datetime
    settings: Settings
    queue: Queue | None = None
    cells: Callable[[], Sequence[Cell]] | None = None
    leases: Callable[[], Sequence[Lease]] | None = None
    inflight: Callable[[], int] | None = None
    on_drain: Callable[[bool], Awaitable[None]] | None = None


class AdminServicer(AdminServiceServicer):
    """The admin service of one process."""

    def __init__(self, process: Process, readiness: Readiness) -> None:
        self._process = process
        self._readiness = readiness

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
        checks = [
            ReadinessCheck(name=check.name, ready=check.ready, message=check.message)
            for check in self._readiness.checks
        ]
        return pb.GetReadinessResponse(ready=self._readiness.ready, checks=checks, draining=self._readiness.draining)

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        """See the contract."""
        await self._set_draining(True)
        grace = self._process.settings.rpc.drain_grace
        wait = request.timeout.ToTimedelta().total_seconds() if request.HasField("timeout") else grace
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
        if self._process.on_drain is not None:
            await self._process.on_drain(draining)

    def _inflight(self) -> int:
        return self._process.inflight() if self._process.inflight is not None else 0

    async def GetQueueDepth(self, request: pb.GetQueueDepthRequest, context: Context) -> pb.GetQueueDepthResponse:
        """See the contract."""
        if self._process.queue is None:
            raise UnimplementedError("GetQueueDepth of this process")
        if not request.topic:
            raise ValidationError.field("topic", "required")
        depth = await self._process.queue.depth(request.topic)
        return pb.GetQueueDepthResponse(
            partitions=[
                PartitionDepth(
                    partition=number,
                    lanes=[LaneDepth(lane=lane, ready=count) for lane, count in sorted(part.ready.items()) if count],
                    leased=part.leased,
                    delayed=part.delayed,
                )
                for number, part in sorted(depth.partitions.items())
            ]
        )

    async def ListCells(self, request: pb.ListCellsRequest, context: Context) -> pb.ListCellsResponse:
        """See the contract."""
        if self._process.cells is None:
            raise UnimplementedError("ListCells of this process")
        return pb.ListCellsResponse(cells=self._process.cells())

    async def ListLeases(self, request: pb.ListLeasesRequest, context: Context) -> pb.ListLeasesResponse:
        """See the contract."""
        if self._process.leases is None:
            raise UnimplementedError("ListLeases of this process")
        return pb.ListLeasesResponse(leases=self._process.leases())

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        """See the contract."""
        raise UnimplementedError("ListDeadLetters")

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Context) -> pb.GetDeadLetterResponse:
        """See the contract."""
        raise UnimplementedError("GetDeadLetter")

    async def RedriveDeadLetters(
        self, request: pb.RedriveDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        """See the contract."""
        raise UnimplementedError("RedriveDeadLetters")

    async def PurgeDeadLetters(
        self, request: pb.PurgeDeadLettersRequest, context: Context
    ) -> pb.PurgeDeadLettersResponse:
        """See the contract."""
        raise UnimplementedError("PurgeDeadLetters")
