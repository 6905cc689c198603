"""Making a request durable: the activation's record and the message that leads to its run.

Theory of operation. The record (QUEUED) and the message travel to the store in one pipeline, record first: when both
are there, the request is accepted; a process that dies in between keeps a record that nobody was told of, which goes
with its life. A request that may be a repeat (its activation id is derived from what it repeats) goes in two steps,
because its record may be there already: one of another digest must not reach the queue. One of the same digest is
published again, since its first publisher may have died before it published. A message is named by its activation, so
the queue holds one at a time, however often it is published; one that comes after the end finds the activation done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from codesous.queue.v1.envelope_pb2 import Envelope, Lane
from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.codeq import Queue
from cs_core.codeq.contract import INVOKE
from cs_core.store.activations import ActivationStore
from cs_core.store.client import drop


class Submitter:
    """Submits requests, whatever triggered them."""

    def __init__(self, activations: ActivationStore, queue: Queue) -> None:
        self._activations = activations
        self._queue = queue

    async def submit(
        self, request: InvocationRequest, digest: bytes, *, lane: Lane.ValueType, repeatable: bool
    ) -> bool:
        """Make record and message; False: the record was there before, and the message was published again.

        Args:
            request: complete, `accept_time` included.
            digest: tells whether two requests of one activation id are the same.
            lane: where the message waits.
            repeatable: whether the activation id is derived, so that a record may be there.

        Raises:
            ConflictError: there is a record of another digest (`CS_CONFLICT_IDEMPOTENCY`).
            UnavailableError: the store or the queue does not answer; whether it was accepted is then not known.
        """
        submitting = self._activations.submit(request, digest)
        if not repeatable:
            # Under way in this order, both of them, before the first is waited for.
            publishing = asyncio.ensure_future(self._publish(request, lane))
            try:
                await submitting
            except BaseException:
                drop(publishing)
                raise
            await publishing
            return True
        outcome = await submitting
        await self._publish(request, lane)
        return outcome.created

    def _publish(self, request: InvocationRequest, lane: Lane.ValueType) -> Awaitable[None]:
        tenant = request.function.tenant
        envelope = Envelope(
            message_id=request.activation_id,
            topic=INVOKE,
            tenant=tenant,
            publish_time=request.accept_time,
            invocation_request=request,
        )
        partition = self._activations.partition(tenant, request.activation_id)
        return self._queue.publish(INVOKE, partition, envelope, lane=lane)
