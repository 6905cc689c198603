"""How a delivery ends: its result pushed to whoever waits, its message acknowledged, put back, or given up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import InvocationResult

from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import Delivery, Queue, ResultChannel
from cs_core.errors import UnavailableError
from cs_core.ids import message_id

from .persistence import persist

_log = structlog.get_logger(__name__)

RESULTS_TOPIC = "cs.results"


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The last steps of a delivery. None of them fails: what does not reach the queue is done by the next delivery."""

    queue: Queue
    channel: ResultChannel
    clock: Clock
    patience: timedelta
    """How long a step is tried while the queue is away: the message's lease, after which it is delivered again."""

    def publish(self, reply_to: str, result: InvocationResult) -> None:
        """Push a result to the instance that waits for it. Best effort, and not waited for: waiters re-read the record.

        It goes out before whatever is sent next.
        """
        if not reply_to:
            return
        envelope = Envelope(
            message_id=message_id(),
            topic=RESULTS_TOPIC,
            tenant=result.tenant,
            publish_time=to_timestamp(self.clock.now()),
            invocation_result=result,
        )
        asyncio.ensure_future(self.channel.push(reply_to, envelope)).add_done_callback(_note_failure)

    async def close(self, delivery: Delivery, result: InvocationResult) -> None:
        """Acknowledge a message whose activation is terminal; one that was given up becomes a dead letter."""
        if result.dead_letter:
            await self.bury(delivery, result.error.reason, result.error.message)
            return
        try:
            await persist("ack", lambda: self.queue.ack([delivery]), within=self.patience)
        except UnavailableError as error:
            _log.warning("not acknowledged; the next delivery finds the activation done", reason=error.reason)

    async def bury(self, delivery: Delivery, reason: str, message: str) -> None:
        """Move a message to the dead letters."""
        _log.error("dead letter", message_id=delivery.message_id, reason=reason, why=message)
        try:
            await persist(
                "dead letter", lambda: self.queue.dead_letter(delivery, reason, message), within=self.patience
            )
        except UnavailableError as error:
            _log.warning("not moved to the dead letters; the next delivery will be", reason=error.reason)

    async def put_back(self, delivery: Delivery, delay: timedelta) -> None:
        """Let the message be delivered again after `delay`. When this fails, the end of its lease does the same."""
        try:
            await self.queue.nack(delivery, delay)
        except UnavailableError as error:
            _log.warning("not put back; delivered again when its lease ends", reason=error.reason)

    async def hand_back(self, delivery: Delivery) -> None:
        """Let a message that was not looked at be delivered again at once."""
        await self.put_back(delivery, timedelta(0))


def _note_failure(pushed: asyncio.Future[Any]) -> None:
    error = None if pushed.cancelled() else pushed.exception()
    if error is not None:
        _log.warning("the result could not be pushed; whoever waits reads the record", error=str(error))
