"""Listens for requests to stop a running activation, addressed to this instance."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

import structlog
from codesous.queue.v1.envelope_pb2 import Envelope

from cs_core.codeq import ResultChannel

from .inflight import Inflight

_log = structlog.get_logger(__name__)


class Cancellations:
    """Stops what this process runs when a CancelRequest names its owner token.

    Best effort, for speed: a request that is lost or late changes nothing here, and the marked record tells the next
    renewal of the lease.
    """

    def __init__(self, channel: ResultChannel, inflight: Inflight) -> None:
        self._channel = channel
        self._inflight = inflight

    def listen(self, instance: str) -> AbstractAsyncContextManager[object]:
        """Take the envelopes that are addressed to `instance`, for the length of the block."""
        return self._channel.listen(instance, self._take, lambda: None)

    def _take(self, envelope: Envelope) -> None:
        if envelope.WhichOneof("body") != "cancel_request":
            _log.warning("ignored an envelope that is no cancel request", message_id=envelope.message_id)
            return
        request = envelope.cancel_request
        stopped = self._inflight.cancel(request.owner)
        _log.info("cancel requested", activation_id=request.activation_id, tenant=request.tenant, running=stopped)
