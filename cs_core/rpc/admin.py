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
from typing import Protocol

from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.admin_service_pb2_grpc import AdminServiceServicer
from codesous.admin.v1.dead_letter_pb2 import DeadLetterFilter, DeadLetterSummary, Redrive
from codesous.admin.v1.process_pb2 import Cell, LaneDepth, Lease, PartitionDepth, ProcessInfo, ReadinessCheck

from cs_core.clock import from_timestamp, to_timestamp
from cs_core.codeq import Queue
from cs_core.codeq.contract import DeadMessage
from cs_core.config import Settings
from cs_core.errors import UnimplementedError, ValidationError
from cs_core.rpc import paging
from cs_core.rpc.context import Context
from cs_core.rpc.readiness import Readiness

SERVICE = "codesous.admin.v1.AdminService"
REDRIVES_PER_SECOND, REDRIVES_PER_SECOND_MAX = 10, 1_000
IDS_MAX, ID_CHARS_MAX = 1_000, 128
DRAIN_SECONDS_MAX = 3_600
_DRAIN_POLL = 0.05


class DeadLetterDesk(Protocol):
    """Handles the requests that were given up. Raises NotFoundError, ConflictError and UnavailableError."""

    async def find(
        self, chosen: DeadLetterFilter, *, after: tuple[int, str] | None, limit: int
    ) -> tuple[list[DeadMessage], tuple[int, str] | None]:
        """Some of them, oldest first, and where to go on."""
        ...

    async def get(self, dead_letter_id: str) -> DeadMessage:
        """One of them."""
        ...

    async def redrive(
        self, dead_letter_ids: Sequence[str], chosen: DeadLetterFilter, *, version: int, rate: int, dry_run: bool
    ) -> list[Redrive]:
        """Run some again."""
        ...

    async def purge(self, dead_letter_ids: Sequence[str], chosen: DeadLetterFilter, *, dry_run: bool) -> int:
        """Remove some."""
        ...


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
    dead_letters: DeadLetterDesk | None = None


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
        desk, chosen = self._desk(), _checked(request.filter)
        scope = (chosen.SerializeToString(deterministic=True).hex(),)
        page = paging.Page("dead_letters", scope, request.page_size, request.page_token)
        after = page.after_pair()
        found, last = await desk.find(chosen, after=after, limit=page.size)
        return pb.ListDeadLettersResponse(
            dead_letters=[_summary(letter) for letter in found], next_page_token=page.next_token(last)
        )

    async def GetDeadLetter(self, request: pb.GetDeadLetterRequest, context: Context) -> pb.GetDeadLetterResponse:
        """See the contract."""
        _check_ids([request.dead_letter_id])
        letter = await self._desk().get(request.dead_letter_id)
        return pb.GetDeadLetterResponse(dead_letter=_summary(letter), envelope=letter.envelope.SerializeToString())

    async def RedriveDeadLetters(
        self, request: pb.RedriveDeadLettersRequest, context: Context
    ) -> pb.RedriveDeadLettersResponse:
        """See the contract."""
        _check_ids(request.dead_letter_ids)
        rate = request.rate_per_second or REDRIVES_PER_SECOND
        if rate > REDRIVES_PER_SECOND_MAX:
            raise ValidationError.field("rate_per_second", f"must be at most {REDRIVES_PER_SECOND_MAX}")
        redrives = await self._desk().redrive(
            request.dead_letter_ids,
            _checked(request.filter),
            version=request.version,
            rate=rate,
            dry_run=request.dry_run,
        )
        return pb.RedriveDeadLettersResponse(redrives=redrives)

    async def PurgeDeadLetters(
        self, request: pb.PurgeDeadLettersRequest, context: Context
    ) -> pb.PurgeDeadLettersResponse:
        """See the contract."""
        _check_ids(request.dead_letter_ids)
        purged = await self._desk().purge(request.dead_letter_ids, _checked(request.filter), dry_run=request.dry_run)
        return pb.PurgeDeadLettersResponse(purged=purged)

    def _desk(self) -> DeadLetterDesk:
        if self._process.dead_letters is None:
            raise UnimplementedError("handling dead letters in this process")
        return self._process.dead_letters


def _check_ids(dead_letter_ids: Sequence[str]) -> None:
    if len(dead_letter_ids) > IDS_MAX:
        raise ValidationError.field("dead_letter_ids", f"must be at most {IDS_MAX}")
    for dead_letter_id in dead_letter_ids:
        if not 0 < len(dead_letter_id) <= ID_CHARS_MAX:
            raise ValidationError.field("dead_letter_id", f"must be 1 to {ID_CHARS_MAX} characters")


def _checked(chosen: DeadLetterFilter) -> DeadLetterFilter:
    for name in ("start_time", "end_time"):
        try:
            from_timestamp(getattr(chosen, name))
        except (ValueError, OverflowError) as error:
            raise ValidationError.field(f"filter.{name}", "must be a moment in time") from error
    return chosen


def _summary(letter: DeadMessage) -> DeadLetterSummary:
    request = letter.envelope.invocation_request
    return DeadLetterSummary(
        dead_letter_id=letter.id,
        cause=letter.envelope.dead_letter,
        function=request.function,
        activation_id=request.activation_id,
        redrive_activation_ids=letter.redrives,
    )
