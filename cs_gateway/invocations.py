"""Invoking: accept, wait when the caller waits, and answer the activation."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.invocation_pb2 import InvocationResult

from cs_core.errors import CorrelationTimeoutError, UnavailableError
from cs_core.store.activations import ActivationStore
from cs_core.waiters import Waiters
from cs_gateway.ingress import Ingress, Invocation, Prepared

_log = structlog.get_logger(__name__)


class Invocations:
    """Runs functions for callers."""

    def __init__(self, ingress: Ingress, waiters: Waiters, activations: ActivationStore, slack: timedelta) -> None:
        """`slack` is how much longer than the version's timeout a caller waits for the result."""
        self._ingress = ingress
        self._waiters = waiters
        self._activations = activations
        self._slack = slack

    async def invoke(self, invocation: Invocation) -> Activation:
        """Run a function: the ended activation, or the accepted one of an asynchronous invocation.

        Raises:
            CorrelationTimeoutError: the wait ended before the result came.
            CodeSousError: everything that Ingress raises.
        """
        version = await self._ingress.admit(invocation.target, invocation.principal)
        return await self.run(invocation, version)

    async def run(self, invocation: Invocation, version: Version) -> Activation:
        """Do as `invoke` does, for a version that was admitted before."""
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
    return activation
