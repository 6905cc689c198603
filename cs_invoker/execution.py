"""One activation, from a queue message to its acknowledgement: begin, run, finish, publish, ack.

Theory of operation: the record in the store is the truth and every step is a compare-and-set on it, so a crash in any
gap leaves a state from which the next delivery goes on:

- before begin: the message's lease expires, and another invoker begins;
- after begin: the record is RUNNING with a lease; the next delivery finds it busy until that lease expires, then
  takes it over with the next attempt number;
- after finish: the next delivery finds the record done, publishes the stored result again and acknowledges.

The attempt number counts runs begun. A run that crashes its cell or its invoker is begun again; an activation whose
`max_deliveries` runs crashed is ended as CS_RUNTIME_CRASH and its message goes to the dead letters. The number of
deliveries is no measure of that: a message is also delivered again because it was busy, the store was away, or a
process drained.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult

from cs_core.clock import Clock
from cs_core.codeq import Delivery
from cs_core.errors import UnavailableError
from cs_core.ids import message_id
from cs_core.store.activations import ActivationStore

from . import results
from .conclusion import Conclusion
from .gaps import AtGap, Gap, pass_gap
from .inflight import Inflight
from .job import expired
from .lease import LeaseKeeper, LeaseLostError, Leases, Lengths
from .messages import BadMessageError, open_request
from .metrics import Metrics
from .persistence import persist
from .runner import Ran, Runner

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things are held and how often they may fail."""

    leases: Lengths
    max_deliveries: int
    """Runs that may crash before an activation is given up."""
    retry_delay: timedelta
    """Until a message is looked at again whose processing failed for a reason of ours."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an execution works with."""

    activations: ActivationStore
    leases: Leases
    conclusion: Conclusion
    runner: Runner
    inflight: Inflight
    metrics: Metrics
    clock: Clock


class CrashedRunError(Exception):
    """The run crashed and may be begun again."""


class Execution:
    """Processes deliveries of `cs.invoke`, one call per delivery; calls may overlap."""

    def __init__(self, parts: Parts, policy: Policy, instance: str, *, at_gap: AtGap = pass_gap) -> None:
        self._parts = parts
        self._policy = policy
        self._instance = instance
        self._at_gap = at_gap

    async def process(self, delivery: Delivery) -> None:
        """Bring the delivery's activation to its terminal state, or leave that to another delivery. Never fails."""
        try:
            envelope, request = open_request(delivery.body)
        except BadMessageError as error:
            await self._parts.conclusion.bury(delivery, results.REASON_MALFORMED, str(error))
            return
        self._parts.metrics.observe_lag(envelope, self._parts.clock.now())
        ref = request.function
        with structlog.contextvars.bound_contextvars(
            request_id=request.request_id, activation_id=request.activation_id, tenant=ref.tenant, function=ref.function
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
        except CrashedRunError:
            _log.warning("left to another delivery: the run crashed")
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
        owner = f"{self._instance}/{message_id()}"
        ref, lengths = request.function, self._policy.leases
        begun = await persist(
            "begin",
            lambda: self._parts.activations.begin(ref.tenant, request.activation_id, owner, lengths.record),
            within=lengths.message,
        )
        match begun.kind:
            case "run":
                await self._own(delivery, request, owner, begun.attempt)
            case "done" if begun.result is not None:
                await self._conclude(delivery, request, begun.result)
            case "busy":
                # At the end of the other's lease: it is renewed until then, done, or free to be taken over.
                await self._parts.conclusion.put_back(delivery, begun.busy_for)
            case _:
                await self._parts.conclusion.bury(delivery, results.REASON_MISSING, "the activation has no record")

    async def _expire(self, delivery: Delivery, request: InvocationRequest) -> bool:
        """Finish a request past its deadline that never began; False when it has begun and is not terminal."""
        message = "the deadline passed before the run began"
        result = results.of_failure(request, results.REASON_TIMEOUT, message, now=self._parts.clock.now())
        finished = await persist(
            "finish", lambda: self._parts.activations.finish(result, "", ()), within=self._policy.leases.message
        )
        if finished.accepted:
            self._parts.metrics.observe_result(result)
        elif finished.result is None:
            return False
        await self._conclude(delivery, request, finished.result or result)
        return True

    async def _own(self, delivery: Delivery, request: InvocationRequest, owner: str, attempt: int) -> None:
        """Run and finish an activation that is ours now."""
        lengths = self._policy.leases
        with self._parts.inflight.hold(request, owner, lengths.record) as entry:
            lease = self._parts.leases.of(delivery, request, owner, on_renewed=entry.extend)
            try:
                result = await LeaseKeeper(lease, lengths).hold(
                    self._run_and_finish(request, owner, attempt, entry.cancel)
                )
            except (asyncio.CancelledError, CrashedRunError):
                await lease.release()
                raise
        await self._conclude(delivery, request, result)

    async def _run_and_finish(
        self, request: InvocationRequest, owner: str, attempt: int, cancel: asyncio.Event
    ) -> InvocationResult:
        await self._at_gap(Gap.BEGUN, request.activation_id)
        if attempt > self._policy.max_deliveries:
            ran = self._give_up(request, attempt)
        else:
            ran = await self._parts.runner.run(request, attempt, cancel)
            if ran.crashed and attempt < self._policy.max_deliveries:
                raise CrashedRunError
        await self._at_gap(Gap.RAN, request.activation_id)
        result = await self._finish(ran, owner)
        await self._at_gap(Gap.FINISHED, request.activation_id)
        return result

    def _give_up(self, request: InvocationRequest, attempt: int) -> Ran:
        runs = attempt - 1
        message = f"what ran the activation died {runs} times; it is not run again"
        now = self._parts.clock.now()
        return Ran(results.of_failure(request, results.REASON_CRASH, message, now=now, attempt=runs), (), crashed=True)

    async def _finish(self, ran: Ran, owner: str) -> InvocationResult:
        """Store the result: tried until the store takes it or says that the activation is not ours (any more)."""
        finished = await persist(
            "finish", lambda: self._parts.activations.finish(ran.result, owner, ran.logs), within=None
        )
        if finished.accepted:
            self._parts.metrics.observe_result(ran.result)
            return ran.result
        if finished.result is None:
            raise LeaseLostError
        return finished.result

    async def _conclude(self, delivery: Delivery, request: InvocationRequest, result: InvocationResult) -> None:
        await self._parts.conclusion.publish(request.reply_to, result)
        await self._at_gap(Gap.PUBLISHED, request.activation_id)
        await self._parts.conclusion.close(delivery, result)
        await self._at_gap(Gap.ACKED, request.activation_id)
