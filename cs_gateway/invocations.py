"""Invoking: accept, wait when the caller waits, and answer the activation."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta

import structlog
from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.invocation_pb2 import InvocationResult
from codesous.type.v1.principal_pb2 import Principal

from cs_core.errors import CorrelationTimeoutError, UnavailableError
from cs_core.store.activations import ActivationStore
from cs_core.waiters import Waiters
from cs_gateway.gate import Gate
from cs_gateway.ingress import Ingress, Invocation, Prepared, Target

_log = structlog.get_logger(__name__)


class Invocations:
    """Runs functions for callers."""

    def __init__(
        self,
        ingress: Ingress,
        waiters: Waiters,
        activations: ActivationStore,
        slack: timedelta,
        gate: Gate | None = None,
    ) -> None:
        """`slack` is how much longer than the version's timeout a caller waits; without a gate, all are let in."""
        self._ingress = ingress
        self._waiters = waiters
        self._activations = activations
        self._slack = slack
        self._gate = gate

    async def invoke(self, invocation: Invocation) -> Activation:
        """Run a function: the ended activation, or the accepted one of an asynchronous invocation.

        Raises:
            CorrelationTimeoutError: the wait ended before the result came.
            LimitError: too much is asked for at once, per second, or with a full queue.
            CodeSousError: everything that Ingress raises.
        """
        with nullcontext() if invocation.asynchronous else self.seat(invocation.target.tenant):
            version = await self.admit(invocation.target, invocation.principal)
            return await self.run(invocation, version)

    def seat(self, tenant: str) -> AbstractContextManager[None]:
        """Hold the seat of a caller that waits. Entering raises LimitError when there is none."""
        return nullcontext() if self._gate is None else self._gate.seat(tenant)

    async def admit(self, target: Target, principal: Principal) -> Version:
        """Let a request in: past the gate, to a version that its principal may invoke. Raises what `invoke` does."""
        if self._gate is not None:
            self._gate.enter(target.tenant)
        version = await self._ingress.admit(target, principal)
        if self._gate is not None:
            self._gate.pass_on(version)
        return version

    async def run(self, invocation: Invocation, version: Version) -> Activation:
        """Do as `invoke` does, for a version that was admitted before, in the seat that the caller holds."""
        prepared = self._ingress.prepare(invocation, version)
        if not invocation.asynchronous:
            return await self._submit_and_wait(prepared)
        created = await self._ingress.submit(prepared)
        return prepared.queued() if created else await self._as_it_is(prepared)

    async def _submit_and_wait(self, prepared: Prepared) -> Activation:
        # Registered before it is published: its result cannot come too early.
        with self._waiters.expect(prepared.tenant, prepared.activation_id) as future:
            submitting = asyncio.ensure_future(self._ingress.submit(prepared))
            try:
                created = await asyncio.shield(submitting)
                async with asyncio.timeout((prepared.timeout + self._slack).total_seconds()):
                    if not created and await self._has_ended(prepared):
                        return await self._as_it_is(prepared)
                    result = await future
            except TimeoutError:
                raise CorrelationTimeoutError(prepared.activation_id) from None
            except asyncio.CancelledError:
                await asyncio.gather(submitting, return_exceptions=True)
                await self._abandon(prepared)
                raise
        return ended(prepared, result) if created else await self._as_it_is(prepared)

    async def _has_ended(self, prepared: Prepared) -> bool:
        return await self._activations.get_result(prepared.tenant, prepared.activation_id) is not None

    async def _as_it_is(self, prepared: Prepared) -> Activation:
        found = await self._activations.get(prepared.tenant, prepared.activation_id)
        return prepared.queued() if found is None else found

    async def _abandon(self, prepared: Prepared) -> None:
        """The caller went away. What others may wait for too, by the same idempotency key, goes on."""
        if prepared.keyed:
            return
        try:
            await self._ingress.withdraw(prepared)
        except UnavailableError:
            _log.info("an abandoned activation was not withdrawn", activation_id=prepared.activation_id)


def ended(prepared: Prepared, result: InvocationResult) -> Activation:
    """The activation with its result."""
    activation = prepared.queued()
    activation.status = result.status
    activation.attempt = result.attempt
    if result.HasField("response"):
        activation.response.CopyFrom(result.response)
    if result.HasField("error"):
        activation.error.CopyFrom(result.error)
    if result.HasField("start_time"):
        activation.start_time.CopyFrom(result.start_time)
    activation.end_time.CopyFrom(result.end_time)
    activation.host_calls.extend(result.host_calls)
    activation.host_calls_left_out = result.host_calls_left_out
    return activation
