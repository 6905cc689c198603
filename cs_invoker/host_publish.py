"""`cs.codeq.publish` in the mesh: user messages on the queue, in the partitions of their tenant."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from codesous.queue.v1.envelope_pb2 import Envelope, Lane
from codesous.queue.v1.user_message_pb2 import UserMessage

from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import Queue
from cs_core.codeq.contract import user_topic
from cs_core.errors import UnavailableError
from cs_core.ids import message_id
from cs_core.store.keys import partition_of
from cs_sandbox.host.publish import Message
from cs_sandbox.job import HostCallError

COUNTED_FOR: Final = timedelta(seconds=1)
TOPICS_KEPT: Final = 10_000


class TopicLimit:
    """How many messages a topic of a tenant may hold. Counted now and then, so the limit may be passed a little."""

    def __init__(self, queue: Queue, most: int, clock: Clock) -> None:
        self._queue = queue
        self._most = most
        self._clock = clock
        self._counts: dict[str, tuple[float, int]] = {}

    async def pass_one(self, topic: str) -> None:
        """Return when the topic has room for one more. Raises HostCallError with CS_QUEUE_FULL."""
        now = self._clock.monotonic()
        until, count = self._counts.get(topic, (0.0, 0))
        if until <= now:
            until, count = now + COUNTED_FOR.total_seconds(), (await self._queue.depth(topic)).total
            while len(self._counts) >= TOPICS_KEPT:
                del self._counts[next(iter(self._counts))]
        self._counts[topic] = (until, count + 1)
        if count >= self._most:
            raise HostCallError("CS_QUEUE_FULL", f"the topic holds {self._most} messages, as many as it may")


class QueuePublisher:
    """Implements the sandbox's Publisher for one activation."""

    def __init__(
        self, queue: Queue, limit: TopicLimit, clock: Clock, partitions: int, tenant: str, activation_id: str
    ) -> None:
        """`partitions` is the number of the installation's."""
        self._queue = queue
        self._limit = limit
        self._clock = clock
        self._partitions = partitions
        self._tenant = tenant
        self._activation_id = activation_id

    async def publish(self, message: Message) -> str:
        """See Publisher.publish."""
        topic = user_topic(self._tenant, message.topic)
        envelope = Envelope(
            message_id=message_id(),
            topic=topic,
            tenant=self._tenant,
            publish_time=to_timestamp(self._clock.now()),
            user_message=UserMessage(
                topic=message.topic,
                body=message.payload,
                partition_key=message.key,
                activation_id=self._activation_id,
            ),
        )
        # Within the tenant's own partitions, as its activations: what floods fills nobody else's.
        partition = partition_of(self._tenant, message.key or envelope.message_id, self._partitions)
        try:
            await self._limit.pass_one(topic)
            await self._queue.publish(
                topic, partition, envelope, lane=Lane.LANE_BACKGROUND, delay=message.delay or None
            )
        except UnavailableError as error:
            raise HostCallError("CS_CODEQ_UNAVAILABLE", "the queue does not answer") from error
        return envelope.message_id
