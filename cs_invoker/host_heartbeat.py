"""`cs.cadence.heartbeat` in the mesh: pushed to the poller that holds the task of the activation."""

from __future__ import annotations

from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import ActivityHeartbeat, InvocationRequest

from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import ResultChannel
from cs_core.codeq.contract import HEARTBEAT
from cs_core.errors import UnavailableError
from cs_core.ids import message_id
from cs_sandbox.job import HostCallError


class HeartbeatSender:
    """Sends the heartbeats of one activation. Best effort: when the poller is gone, nobody hears them."""

    def __init__(self, channel: ResultChannel, clock: Clock, request: InvocationRequest) -> None:
        self._channel = channel
        self._clock = clock
        self._request = request

    async def send(self, details: bytes) -> None:
        """Send details, as UTF-8 JSON. Raises HostCallError when the channel is away."""
        request, now = self._request, to_timestamp(self._clock.now())
        tenant = request.function.tenant
        envelope = Envelope(
            message_id=message_id(),
            topic=HEARTBEAT,
            tenant=tenant,
            publish_time=now,
            activity_heartbeat=ActivityHeartbeat(
                tenant=tenant, activation_id=request.activation_id, details=details, time=now
            ),
        )
        try:
            await self._channel.push(request.reply_to, envelope)
        except UnavailableError as error:
            raise HostCallError("CS_CODEQ_UNAVAILABLE", "the queue does not answer") from error
