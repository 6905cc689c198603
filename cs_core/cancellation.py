"""Cancelling an activation: in the record, and by telling whoever runs it."""

from __future__ import annotations

from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import CancelRequest

from cs_core import ids
from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import ResultChannel
from cs_core.store.activations import ActivationStore, CancelOutcome


class Cancellation:
    """Cancels activations."""

    def __init__(self, activations: ActivationStore, channel: ResultChannel, clock: Clock) -> None:
        self._activations = activations
        self._channel = channel
        self._clock = clock

    async def cancel(self, tenant: str, activation_id: str, message: str) -> CancelOutcome:
        """End an activation that waits; have one that runs stopped by its owner. Raises UnavailableError.

        `message` is one sentence for people: who cancelled.
        """
        outcome = await self._activations.cancel(tenant, activation_id, message)
        if outcome.kind == "running":
            # The mark on the record stops it at the next renewal of its lease; this is faster.
            request = CancelRequest(tenant=tenant, activation_id=activation_id, owner=outcome.owner, message=message)
            envelope = Envelope(
                message_id=ids.message_id(),
                tenant=tenant,
                publish_time=to_timestamp(self._clock.now()),
                cancel_request=request,
            )
            await self._channel.push(instance_of(outcome.owner), envelope)
        return outcome


def instance_of(owner: str) -> str:
    """The instance of an owner token."""
    return owner.partition("/")[0]
