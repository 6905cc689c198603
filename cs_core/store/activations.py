"""Activations: submit, begin, renew, finish, cancel, each one compare-and-set on the record.

The record is a hash in the slot of the activation's partition: `state`, `owner`, `attempt`, `lease_until` (ms, the
server's clock), `digest` (sha256 of the event), `request` (an InvocationRequest without its event), `result` (an
InvocationResult once terminal), `accept_ms`, `start_ms`, `end_ms` (ms since the epoch), `cancel` once asked to stop,
`crashes` (runs whose owner died, since the last retry), `run_lines` (log lines of this run that are stored), and of
retries: `retries`, `next_ms` (when the next run may begin) and `history` (the failed runs, an AttemptHistory).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.storage.v1.records_pb2 import AttemptHistory
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.attempt_pb2 import Attempt
from codesous.type.v1.invocation_error_pb2 import InvocationError
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.clock import Clock, from_timestamp, to_timestamp
from cs_core.errors import ConflictError
from cs_core.store import keys
from cs_core.store.activation_record import FIELDS, read_activation, state_of
from cs_core.store.client import KvClient, replies
from cs_core.store.overdue import OPEN_SLACK_MS, end_moment, end_name
from cs_core.store.run_logs import NO_LOGS, RunLogs
from cs_core.store.scripts import load_script

_SUBMIT, _BEGIN, _RENEW, _RELEASE, _APPEND_LOGS, _RETRY, _FINISH, _CANCEL, _NOTE_DELIVERY = (
    load_script("cs_core.store", name)
    for name in ("submit", "begin", "renew", "release", "append_logs", "retry", "finish", "cancel", "note_delivery")
)
_OPEN_STATES = (b"QUEUED", b"RUNNING")
# What an activation tells and a list of them does not.
_ONE_ONLY: Final = ("response", "failed_attempts", "claim_time", "deliver_time", "host_calls", "host_calls_left_out")


@dataclass(frozen=True, slots=True)
class SubmitOutcome:
    """Whether a record was made; False: one with the same event was there before."""

    created: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """What became of a begin.

    `run`: it is the caller's; `attempt` counts this run, `crashes` the runs since the last retry whose owner died,
    `retries` the runs that failed and were tried again, and `cancel` says why it is to be ended instead of run, if it
    is. `busy`: another owner holds it, or it waits to be tried again,
    for `busy_for` more. `done`: it is terminal, with `result`. `missing`: there is no record.
    """

    kind: Literal["run", "busy", "done", "missing"]
    attempt: int = 0
    crashes: int = 0
    retries: int = 0
    cancel: str = ""
    busy_for: timedelta = timedelta(0)
    result: InvocationResult | None = None

    @property
    def cut_short(self) -> int:
        """Runs before this one that ended neither by themselves nor by a limit: their cell or their owner went away."""
        return self.attempt - 1 - self.retries


@dataclass(frozen=True, slots=True)
class Renewal:
    """Whether a lease is still the owner's, and why its run is to be stopped (empty: it goes on)."""

    owned: bool
    cancel: str = ""


@dataclass(frozen=True, slots=True)
class FinishOutcome:
    """Whether the terminal state was taken. When it was not: the result that stands, or None if another owner runs."""

    accepted: bool
    result: InvocationResult | None = None


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """What became of a retry.

    `waits`: it will be begun again. `cancelled`: it was asked to stop, so it is to be finished instead. `terminal`: it
    ended before, with `result`. `lost`: another owner has it, or it is gone.
    """

    kind: Literal["waits", "cancelled", "terminal", "lost"]
    result: InvocationResult | None = None


@dataclass(frozen=True, slots=True)
class CancelOutcome:
    """What became of a cancel; `owner` is who runs it when it is running."""

    kind: Literal["ended", "running", "terminal", "missing"]
    owner: str = ""


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


async def _submitted(reply: asyncio.Future[Any], digest: bytes) -> SubmitOutcome:
    answer = await reply
    if answer[0] == 1:
        return SubmitOutcome(created=True)
    if answer[1] != digest:
        raise ConflictError("CS_CONFLICT_IDEMPOTENCY", "the idempotency key was used with another body")
    return SubmitOutcome(created=False)


class ActivationStore:
    """The records of activations.

    Args:
        client: the store.
        partitions: partitions of the installation.
        clock: tells accept and end times.
        ttl: life of a record after its activation ended.
    """

    def __init__(self, client: KvClient, partitions: int, clock: Clock, ttl: timedelta) -> None:
        self._client = client
        self._partitions = partitions
        self._clock = clock
        self._ttl = int(ttl.total_seconds())

    def partition(self, tenant: str, activation_id: str) -> int:
        """The partition of an activation's record and of its queue message."""
        return keys.partition_of(tenant, activation_id, self._partitions)

    def _record(self, tenant: str, activation_id: str) -> str:
        return keys.activation(self.partition(tenant, activation_id), tenant, activation_id)

    def submit(self, request: InvocationRequest, digest: bytes) -> Coroutine[Any, Any, SubmitOutcome]:
        """Make the record of a request (state QUEUED) unless there is one; under way when this returns.

        Raises (when awaited):
            ConflictError: there is one, of another event (`CS_CONFLICT_IDEMPOTENCY`).
        """
        ref = request.function
        partition = self.partition(ref.tenant, request.activation_id)
        header = InvocationRequest()
        header.CopyFrom(request)
        header.ClearField("event")
        accepted = _ms(from_timestamp(request.accept_time))
        forgotten = accepted + self._ttl * 1000 + OPEN_SLACK_MS
        ends = end_moment(request) if request.HasField("deadline") else forgotten
        reply = self._client.script(
            _SUBMIT,
            [
                keys.activation(partition, ref.tenant, request.activation_id),
                keys.activation_index(partition, ref.tenant, ref.namespace, ref.function),
                keys.open_activations(partition, ref.tenant),
                keys.ends(partition),
            ],
            [
                request.activation_id,
                accepted,
                digest,
                header.SerializeToString(),
                accepted - self._ttl * 1000,
                self._ttl,
                ends,
                end_name(ref.tenant, request.activation_id),
            ],
        )
        return _submitted(reply, digest)

    async def begin(self, tenant: str, activation_id: str, owner: str, lease: timedelta) -> Begun:
        """Take an activation to run it: QUEUED (and due), or RUNNING with an expired lease, becomes the caller's.

        May be repeated by the same owner when the answer was lost.
        """
        reply = await self._client.script(
            _BEGIN,
            [self._record(tenant, activation_id)],
            [owner, int(lease.total_seconds() * 1000), _ms(self._clock.now())],
        )
        match reply[0]:
            case b"run":
                return Begun(
                    "run",
                    attempt=int(reply[1]),
                    crashes=int(reply[2]),
                    retries=int(reply[3]),
                    cancel=reply[4].decode(),
                )
            case b"busy":
                return Begun("busy", busy_for=timedelta(milliseconds=int(reply[1])))
            case b"done":
                return Begun("done", result=InvocationResult.FromString(reply[1]))
            case _:
                return Begun("missing")

    async def renew(self, tenant: str, activation_id: str, owner: str, lease: timedelta) -> Renewal:
        """Hold the lease for `lease` from now, if it is still the owner's."""
        reply = await self._client.script(
            _RENEW, [self._record(tenant, activation_id)], [owner, int(lease.total_seconds() * 1000)]
        )
        return Renewal(owned=reply[0] == 1, cancel=reply[1].decode())

    async def release(self, tenant: str, activation_id: str, owner: str) -> bool:
        """Hand a running activation back to wait for another owner; False when it is no longer the owner's."""
        return bool(await self._client.script(_RELEASE, [self._record(tenant, activation_id)], [owner]))

    async def append_logs(self, tenant: str, activation_id: str, owner: str, logs: RunLogs) -> bool:
        """Store log lines of a run that goes on; False when it is no longer the owner's."""
        partition = self.partition(tenant, activation_id)
        reply = await self._client.script(
            _APPEND_LOGS,
            [
                keys.activation(partition, tenant, activation_id),
                keys.activation_logs(partition, tenant, activation_id),
            ],
            [owner, self._ttl, *logs.arguments()],
        )
        return bool(reply)

    async def retry(
        self, tenant: str, activation_id: str, owner: str, failed: Attempt, wait: timedelta, logs: RunLogs = NO_LOGS
    ) -> RetryOutcome:
        """Let a run that failed be followed by another after `wait`; it is QUEUED until then."""
        partition = self.partition(tenant, activation_id)
        reply = await self._client.script(
            _RETRY,
            [
                keys.activation(partition, tenant, activation_id),
                keys.activation_logs(partition, tenant, activation_id),
            ],
            [
                owner,
                int(wait.total_seconds() * 1000),
                AttemptHistory(attempts=[failed]).SerializeToString(),
                self._ttl,
                *logs.arguments(),
            ],
        )
        match reply[0]:
            case 1:
                return RetryOutcome("waits")
            case 0:
                return RetryOutcome("terminal", InvocationResult.FromString(reply[1]))
            case -3:
                return RetryOutcome("cancelled")
            case _:
                return RetryOutcome("lost")

    async def count_open(self, tenant: str) -> int:
        """Count a tenant's activations that were accepted and have not ended."""
        now = _ms(self._clock.now())
        counts = [
            self._client.call("ZCOUNT", keys.open_activations(partition, tenant), now, "+inf")
            for partition in sorted(set(keys.tenant_partitions(tenant, self._partitions)))
        ]
        return sum(await replies(counts))

    async def finish(self, result: InvocationResult, owner: str, logs: RunLogs = NO_LOGS) -> FinishOutcome:
        """Give an activation its terminal state. Without an owner, only one that has not started is finished."""
        partition = self.partition(result.tenant, result.activation_id)
        reply = await self._client.script(
            _FINISH,
            [
                keys.activation(partition, result.tenant, result.activation_id),
                keys.activation_logs(partition, result.tenant, result.activation_id),
                keys.open_activations(partition, result.tenant),
                keys.ends(partition),
            ],
            [
                owner,
                state_of(result.status),
                result.SerializeToString(),
                _ms(from_timestamp(result.end_time)),
                self._ttl,
                result.activation_id,
                end_name(result.tenant, result.activation_id),
                *logs.arguments(),
            ],
        )
        if reply[0] == 1:
            return FinishOutcome(accepted=True, result=result)
        if reply[0] == 0:
            return FinishOutcome(accepted=False, result=InvocationResult.FromString(reply[1]))
        return FinishOutcome(accepted=False)

    async def cancel(self, tenant: str, activation_id: str, message: str) -> CancelOutcome:
        """End a queued activation as CANCELLED; mark a running one so that its owner stops it."""
        head = await self._client.call("HGET", self._record(tenant, activation_id), "request")
        if head is None:
            return CancelOutcome("missing")
        request = InvocationRequest.FromString(head)
        now = self._clock.now()
        result = InvocationResult(
            request_id=request.request_id,
            activation_id=activation_id,
            tenant=tenant,
            status=ActivationStatus.ACTIVATION_STATUS_CANCELLED,
            error=InvocationError(reason="CS_RUNTIME_CANCELLED", message=message),
            end_time=to_timestamp(now),
        )
        reply = await self._client.script(
            _CANCEL,
            [
                self._record(tenant, activation_id),
                keys.open_activations(self.partition(tenant, activation_id), tenant),
                keys.ends(self.partition(tenant, activation_id)),
            ],
            [
                result.SerializeToString(),
                _ms(now),
                self._ttl,
                message,
                activation_id,
                end_name(tenant, activation_id),
            ],
        )
        match reply[0]:
            case b"ended":
                return CancelOutcome("ended")
            case b"running":
                return CancelOutcome("running", owner=reply[1].decode())
            case b"terminal":
                return CancelOutcome("terminal")
            case _:
                return CancelOutcome("missing")

    def note_delivery(self, tenant: str, activation_id: str) -> asyncio.Future[Any]:
        """Note that the result has reached who waited for it; under way when this returns.

        Raises (when awaited): UnavailableError.
        """
        return self._client.script(_NOTE_DELIVERY, [self._record(tenant, activation_id)], [_ms(self._clock.now())])

    async def get(self, tenant: str, activation_id: str) -> Activation | None:
        """Read an activation; None when there is none."""
        fields = await self._client.call("HMGET", self._record(tenant, activation_id), *FIELDS)
        return read_activation(fields)

    async def get_result(self, tenant: str, activation_id: str) -> InvocationResult | None:
        """Read the result; None while there is none."""
        stored = await self._client.call("HGET", self._record(tenant, activation_id), "result")
        return None if stored is None else InvocationResult.FromString(stored)

    async def is_open(self, tenant: str, activation_id: str) -> bool:
        """Whether an activation goes on: it was accepted, has not ended, and can still run or does."""
        state, header, lease_until = await self._client.call(
            "HMGET", self._record(tenant, activation_id), "state", "request", "lease_until"
        )
        if state not in _OPEN_STATES or header is None:
            return False
        request = InvocationRequest.FromString(header)
        now = _ms(self._clock.now())
        alive = max(
            _ms(from_timestamp(request.deadline)) if request.HasField("deadline") else now + 1,
            int(lease_until or 0) + OPEN_SLACK_MS,
        )
        return now < alive

    async def list_by_function(
        self, tenant: str, namespace: str, function: str, *, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[Activation], tuple[int, str] | None]:
        """List activations of a function, newest first, and where to go on (None: that was all).

        `before` is a position that an earlier call returned: accept time in ms and activation id of the last one.
        """
        found: list[tuple[int, str]] = []
        ceiling = "+inf" if before is None else str(before[0])
        for partition in sorted(set(keys.tenant_partitions(tenant, self._partitions))):
            index = keys.activation_index(partition, tenant, namespace, function)
            # One time may be shared by many: read on until enough of them are past the position.
            offset, missing = 0, limit + 1
            while missing > 0:
                page = await self._client.call(
                    "ZREVRANGEBYSCORE", index, ceiling, "-inf", "WITHSCORES", "LIMIT", offset, limit + 1
                )
                entries = [
                    (int(float(score)), member.decode()) for member, score in zip(page[::2], page[1::2], strict=True)
                ]
                past = [entry for entry in entries if before is None or entry < before]
                found.extend(past)
                missing -= len(past)
                offset += limit + 1
                if len(entries) < limit + 1:
                    break
        found.sort(reverse=True)
        chosen = found[:limit]
        records = await asyncio.gather(*(self.get(tenant, activation_id) for _, activation_id in chosen))
        activations = [record for record in records if record is not None]
        for record in activations:
            for name in _ONE_ONLY:
                record.ClearField(name)
        return activations, (chosen[-1] if len(found) > limit else None)

    async def logs(self, tenant: str, activation_id: str, start: int, limit: int) -> list[LogEntry]:
        """Read log lines from number `start` (0 is the first) on, oldest first."""
        partition = self.partition(tenant, activation_id)
        lines = await self._client.call(
            "LRANGE", keys.activation_logs(partition, tenant, activation_id), start, start + limit - 1
        )
        return [LogEntry.FromString(line) for line in lines]
