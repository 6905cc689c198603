"""One activation, from a queue message to its acknowledgement: begin, run, finish, publish, ack.

Theory of operation: the record in the store is the truth and every step is a compare-and-set on it, so a crash in any
gap leaves a state from which the next delivery goes on:

- before begin: the message's lease expires, and another invoker begins;
- after begin: the record is RUNNING with a lease; the next delivery finds it busy until that lease expires, then
  takes it over with the next attempt number;
- after finish: the next delivery finds the record done, publishes the stored result again and acknowledges.

- after retry: the record is QUEUED and says when it may begin; a delivery that comes early finds it busy until then.

The attempt number counts runs begun. A run that crashes its cell or its invoker is begun again; an activation whose
`max_deliveries` runs crashed is ended as CS_RUNTIME_CRASH and its message goes to the dead letters. A run that was
ended by another one of its cell is handed back without a crash being counted. What was cut short in its cell is begun
again in a cell of its own (`suspects.py`), so that it cannot go on happening to it and a crash has one suspect. The
number of deliveries is no measure of that: a message is also delivered again because it was busy, found no slot, the
store was away, or a process drained. A retry is the same message, put back with a delay: no worker waits for it.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from codesous.control.v1.version_pb2 import Version
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.attempt_pb2 import Attempt
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import Delivery
from cs_core.errors import UnavailableError
from cs_core.ids import message_id
from cs_core.store.activations import ActivationStore, Begun
from cs_core.store.run_logs import NO_LOGS, RunLogs
from cs_core.store.slots import DEFAULT_MAX_CONCURRENCY
from cs_core.trace_context import trace_id_of
from cs_sandbox.job import SandboxError

from . import results, retries
from .conclusion import Conclusion
from .gaps import AtGap, Gap, pass_gap
from .inflight import Inflight
from .interruption import Cancellation
from .job import expired
from .lease import Holding, LeaseLostError, Leases, Lengths
from .log_sink import LogSink
from .messages import BadMessageError, open_request
from .metrics import Metrics
from .persistence import persist
from .runner import Ran, Runner
from .slots import Slots
from .suspects import Suspects
from .tracing import Tracing

_log = structlog.get_logger(__name__)

# Record and message are written in one pipeline, in this order, but a server that was restarted knows no scripts: then
# the record may come after the message, by a round trip of its publisher.
_MISSING_DELIVERIES = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things are held and how often they may fail."""

    leases: Lengths
    max_deliveries: int
    """Runs that may crash before an activation is given up."""
    retry_delay: timedelta
    """Until a message is looked at again whose processing failed for a reason of ours."""
    log_bytes: int
    """Text of the log lines of one run that is kept, in bytes."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an execution works with."""

    activations: ActivationStore
    leases: Leases
    slots: Slots
    conclusion: Conclusion
    runner: Runner
    inflight: Inflight
    metrics: Metrics
    clock: Clock
    tracing: Tracing
    source: random.Random = field(default_factory=random.Random)
    """Of the jitter of retries."""


@dataclass(frozen=True, slots=True)
class Held:
    """An activation that is ours: who we are for the store, which run this is, and what runs (None: it is gone)."""

    owner: str
    begun: Begun
    version: Version | None


@dataclass(frozen=True, slots=True)
class Again:
    """The activation waits to be tried again."""

    wait: timedelta


class CrashedRunError(Exception):
    """The run crashed and may be begun again."""


class BystanderRunError(Exception):
    """Another run of the same cell ended the run: it may be begun again, and that is no crash of its own."""


class Execution:
    """Processes deliveries of `cs.invoke`, one call per delivery; calls may overlap."""

    def __init__(self, parts: Parts, policy: Policy, instance: str, *, at_gap: AtGap = pass_gap) -> None:
        self._parts = parts
        self._policy = policy
        self._instance = instance
        self._at_gap = at_gap
        self._suspects = Suspects()

    async def process(self, delivery: Delivery) -> None:
        """Bring the delivery's activation to its terminal state, or leave that to another delivery. Never fails."""
        try:
            envelope, request = open_request(delivery.body)
        except BadMessageError as error:
            await self._parts.conclusion.bury(delivery, results.REASON_MALFORMED, str(error))
            return
        self._parts.metrics.observe_lag(envelope, self._parts.clock.now())
        ref = request.function
        with (
            self._parts.tracing.processing(request),
            structlog.contextvars.bound_contextvars(
                request_id=request.request_id,
                activation_id=request.activation_id,
                tenant=ref.tenant,
                function=ref.function,
                trace_id=trace_id_of(request.traceparent),
            ),
        ):
            await self._guard(delivery, request)

    async def _guard(self, delivery: Delivery, request: InvocationRequest) -> None:
        try:
            await self._process(delivery, request)
        except asyncio.CancelledError:
            _log.warning("left to another delivery: the process drains")
            await self._parts.conclusion.put_back(delivery, timedelta(0))
            raise
        except UnavailableError as error:
            _log.warning("left to another delivery: the store is away", reason=error.reason)
        except (CrashedRunError, BystanderRunError) as error:
            _log.warning("left to another delivery: the run was cut short", by=type(error).__name__)
            await self._parts.conclusion.put_back(delivery, timedelta(0))
        except LeaseLostError:
            _log.warning("left to another delivery: the lease was lost")
            await self._parts.conclusion.put_back(delivery, self._policy.retry_delay)
        except Exception:  # noqa: BLE001 - one activation must not end the process
            _log.exception("left to another delivery: a fault of the invoker")
            await self._parts.conclusion.put_back(delivery, self._policy.retry_delay)

    async def _process(self, delivery: Delivery, request: InvocationRequest) -> None:
        await self._at_gap(Gap.RECEIVED, request.activation_id)
        if expired(request, self._parts.clock.now()) and await self._expire(delivery, request):
            return
        if self._parts.inflight.runs(request.function.tenant, request.activation_id):
            # After an outage, both leases of what runs here may have ended, and the next receive brings it back to us.
            await self._parts.conclusion.put_back(delivery, self._policy.leases.record)
            return
        owner = f"{self._instance}/{message_id()}"
        version = await persist(
            "find version",
            lambda: self._parts.runner.find(request.function),
            within=self._policy.leases.record,
        )
        if version is None:
            await self._begin(delivery, request, owner, None)
            return
        most = version.config.max_concurrency or DEFAULT_MAX_CONCURRENCY
        async with self._parts.slots.hold(request.function, owner, most) as taken:
            if taken:
                await self._begin(delivery, request, owner, version)
                return
        self._parts.metrics.count_slot_wait()
        wait = self._parts.slots.wait(request.function, most, self._parts.clock.monotonic())
        await self._parts.conclusion.put_back(delivery, wait)

    async def _begin(self, delivery: Delivery, request: InvocationRequest, owner: str, version: Version | None) -> None:
        ref, lengths = request.function, self._policy.leases
        begun = await persist(
            "begin",
            lambda: self._parts.activations.begin(ref.tenant, request.activation_id, owner, lengths.record),
            within=lengths.message,
        )
        match begun.kind:
            case "run":
                if begun.crashes:
                    self._parts.metrics.count_takeover()
                await self._own(delivery, request, Held(owner, begun, version))
            case "done" if begun.result is not None:
                await self._conclude(delivery, request, begun.result)
            case "busy":
                # At the end of the other's lease: it is renewed until then, done, or free to be taken over.
                await self._parts.conclusion.put_back(delivery, begun.busy_for)
            case _ if delivery.deliveries < _MISSING_DELIVERIES:
                await self._parts.conclusion.put_back(delivery, self._policy.retry_delay)
            case _:
                await self._parts.conclusion.bury(delivery, results.REASON_MISSING, "the activation has no record")

    async def _expire(self, delivery: Delivery, request: InvocationRequest) -> bool:
        """Finish a request past its deadline that never began; False when it has begun and is not terminal."""
        message = "the deadline passed before the run began"
        result = results.of_failure(request, results.REASON_TIMEOUT, message, now=self._parts.clock.now())
        finished = await persist(
            "finish", lambda: self._parts.activations.finish(result, ""), within=self._policy.leases.message
        )
        if finished.accepted:
            self._parts.metrics.observe_result(result)
        elif finished.result is None:
            return False
        await self._conclude(delivery, request, finished.result or result)
        return True

    async def _own(self, delivery: Delivery, request: InvocationRequest, held: Held) -> None:
        """Run and finish an activation that is ours now."""
        leases = self._parts.leases
        with self._parts.inflight.hold(request, held.owner, self._policy.leases.record) as entry:
            holding = Holding(delivery, request, held.owner, on_renewed=entry.extend, on_cancel=entry.cancel.set)
            try:
                ended = await leases.hold(holding, self._run_and_finish(request, held, entry.cancel))
            except (asyncio.CancelledError, UnavailableError, SandboxError, BystanderRunError):
                # Nothing was run, or what ran was ended by us: not a crash.
                await leases.release(holding)
                raise
            except CrashedRunError:
                await leases.lapse(holding)
                raise
        if isinstance(ended, Again):
            await self._parts.conclusion.put_back(delivery, ended.wait)
        else:
            await self._conclude(delivery, request, ended)

    async def _run_and_finish(
        self, request: InvocationRequest, held: Held, cancel: Cancellation
    ) -> InvocationResult | Again:
        await self._at_gap(Gap.BEGUN, request.activation_id)
        if held.begun.cancel:
            # Asked to stop while another owner had it, who did not live to do so.
            ran, logs = self._not_run(request, held.begun, results.REASON_CANCELLED, held.begun.cancel), NO_LOGS
        elif held.begun.crashes >= self._policy.max_deliveries:
            message = f"what ran the activation died {held.begun.crashes} times; it is not run again"
            ran, logs = self._not_run(request, held.begun, results.REASON_CRASH, message), NO_LOGS
        else:
            ran, logs = await self._run(request, held, cancel)
            self._parts.tracing.ran(ran.result)
            if ran.crashed or ran.bystander:
                self._suspects.note(request.function.tenant, request.activation_id)
            if ran.crashed and held.begun.crashes + 1 < self._policy.max_deliveries:
                raise CrashedRunError
            if ran.bystander:
                self._parts.metrics.count_bystander()
                raise BystanderRunError
        ran.result.dead_letter = ran.result.error.reason == results.REASON_CRASH
        await self._at_gap(Gap.RAN, request.activation_id)
        ended = await self._finish_or_retry(request, held, ran.result, logs)
        await self._at_gap(Gap.FINISHED, request.activation_id)
        return ended

    async def _run(self, request: InvocationRequest, held: Held, cancel: Cancellation) -> tuple[Ran, RunLogs]:
        """Run, the log lines being stored meanwhile; answers those that are left to go with the result."""
        tenant, activation_id = request.function.tenant, request.activation_id
        sink = LogSink(
            held.begun.attempt,
            self._policy.log_bytes,
            lambda logs: self._parts.activations.append_logs(tenant, activation_id, held.owner, logs),
        )
        try:
            alone = self._suspects.is_alone(tenant, activation_id, held.begun)
            ran = await self._parts.runner.run(request, held.begun.attempt, cancel, sink, alone=alone)
        finally:
            logs = await sink.close()
        return ran, logs

    def _not_run(self, request: InvocationRequest, begun: Begun, reason: str, message: str) -> Ran:
        now = self._parts.clock.now()
        return Ran(results.of_failure(request, reason, message, now=now, attempt=begun.attempt - 1))

    async def _finish_or_retry(
        self, request: InvocationRequest, held: Held, result: InvocationResult, logs: RunLogs
    ) -> InvocationResult | Again:
        if held.version is not None:
            verdict = retries.judge(
                held.version.config.retry,
                request,
                result,
                retries=held.begun.retries,
                now=self._parts.clock.now(),
                source=self._parts.source,
            )
            if verdict.kind == "exhausted":
                result.dead_letter = True
            elif verdict.kind == "again":
                return await self._retry(request, held, result, logs, verdict.wait)
        return await self._finish(result, held.owner, logs)

    async def _retry(
        self, request: InvocationRequest, held: Held, result: InvocationResult, logs: RunLogs, wait: timedelta
    ) -> InvocationResult | Again:
        failed = Attempt(
            attempt=held.begun.attempt,
            error=InvocationError(reason=result.error.reason, message=result.error.message, type=result.error.type),
            start_time=result.start_time if result.HasField("start_time") else None,
            end_time=result.end_time,
            next_time=to_timestamp(self._parts.clock.now() + wait),
        )
        ref = request.function
        outcome = await persist(
            "retry",
            lambda: self._parts.activations.retry(ref.tenant, request.activation_id, held.owner, failed, wait, logs),
            within=None,
        )
        match outcome.kind:
            case "waits":
                self._parts.metrics.count_retry()
                return Again(wait)
            case "cancelled":
                return await self._finish(result, held.owner, logs)
            case "terminal" if outcome.result is not None:
                return outcome.result
            case _:
                # An earlier try of this very step may have gone through: then it waits, and the message with it.
                raise LeaseLostError

    async def _finish(self, result: InvocationResult, owner: str, logs: RunLogs) -> InvocationResult:
        """Store the result: tried until the store takes it or says that the activation is not ours (any more)."""
        finished = await persist("finish", lambda: self._parts.activations.finish(result, owner, logs), within=None)
        if finished.accepted:
            self._parts.metrics.observe_result(result)
            return result
        if finished.result is None:
            raise LeaseLostError
        return finished.result

    async def _conclude(self, delivery: Delivery, request: InvocationRequest, result: InvocationResult) -> None:
        self._parts.conclusion.publish(request.reply_to, result)
        await self._at_gap(Gap.PUBLISHED, request.activation_id)
        await self._parts.conclusion.close(delivery, result)
        await self._at_gap(Gap.ACKED, request.activation_id)
