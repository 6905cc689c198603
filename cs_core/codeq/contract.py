"""What every driver of the queue promises."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from codesous.queue.v1.envelope_pb2 import Envelope, Lane

INVOKE = "cs.invoke"
HEARTBEAT = "cs.heartbeat"
DEAD_INVOKE = "cs.dlq.invoke"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a consumer received it. `receipt` is of this delivery alone; `deliveries` counts it, from 1."""

    topic: str
    partition: int
    message_id: str
    receipt: str
    deliveries: int
    body: bytes

    def envelope(self) -> Envelope:
        """Parse the body; raises google.protobuf.message.DecodeError."""
        return Envelope.FromString(self.body)


@dataclass(frozen=True, slots=True)
class PartitionDepth:
    """What one partition holds: ready messages by lane, leased and delayed ones."""

    ready: Mapping[Lane.ValueType, int]
    leased: int
    delayed: int


@dataclass(frozen=True, slots=True)
class Depth:
    """What a topic holds, by partition; empty partitions are left out."""

    partitions: Mapping[int, PartitionDepth]

    @property
    def total(self) -> int:
        """Messages in all, whatever their state."""
        return sum(sum(part.ready.values()) + part.leased + part.delayed for part in self.partitions.values())


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """A message that was given up. `id` names it within its topic; `time_ms` is when, in ms since the epoch."""

    id: str
    time_ms: int
    envelope: Envelope
    redrives: tuple[str, ...] = ()
    """Activations that redrove it, oldest first."""

    @property
    def position(self) -> tuple[int, str]:
        """Where it stands among the dead letters of its topic."""
        return (self.time_ms, self.id)


Room = Callable[[int], int]
"""How many more messages of a partition a consumer takes now."""


class Queue(Protocol):
    """A durable queue of envelopes. Every method raises UnavailableError when the queue does not answer."""

    def publish(
        self,
        topic: str,
        partition_key: str | int,
        envelope: Envelope,
        *,
        lane: Lane.ValueType = Lane.LANE_INTERACTIVE,
        delay: timedelta | None = None,
    ) -> Awaitable[None]:
        """Store a message; it is durable once that was awaited. An int names the partition, a str is hashed to one.

        One whose id the partition still holds, in whatever state and lane, is not stored twice.
        """
        ...

    async def receive(self, topic: str, *, limit: int, wait: timedelta, room: Room | None = None) -> list[Delivery]:
        """Take up to `limit` messages under a lease; returns as soon as there is one, or nothing after `wait`.

        `room` tells for each partition how many of the messages may be its; default: all.
        """
        ...

    async def ack(self, deliveries: Sequence[Delivery]) -> int:
        """Remove messages for good; those whose lease went to another delivery are not. Returns how many were."""
        ...

    async def nack(self, delivery: Delivery, delay: timedelta = timedelta(0)) -> bool:
        """Give a message back, to be delivered after `delay`; False when the lease went to another delivery."""
        ...

    async def extend(self, delivery: Delivery, lease: timedelta) -> bool:
        """Hold the lease for `lease` from now; False when it went to another delivery."""
        ...

    async def dead_letter(self, delivery: Delivery, reason: str, message: str = "") -> bool:
        """Move a message to the topic's dead letters in one step; False when the lease went to another delivery."""
        ...

    async def list_dead_letters(
        self, topic: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[DeadMessage]:
        """Read up to `limit` dead letters of a topic, oldest first, from behind the position `after` on."""
        ...

    async def get_dead_letter(self, topic: str, dead_letter_id: str) -> DeadMessage | None:
        """Read one dead letter of a topic; None when there is none of that id."""
        ...

    async def note_redrive(self, topic: str, dead_letter_id: str, activation_id: str) -> bool:
        """Note on a dead letter, once, which activation redrove it; False when it is gone."""
        ...

    async def remove_dead_letter(self, topic: str, dead_letter_id: str) -> bool:
        """Remove a dead letter for good; False when there is none of that id."""
        ...

    async def depth(self, topic: str) -> Depth:
        """Count what a topic holds."""
        ...

    async def ping(self) -> None:
        """Return when the queue answers."""
        ...

    async def close(self) -> None:
        """Release what the driver holds. Messages stay."""
        ...


class ResultChannel(Protocol):
    """Addressed messages to one instance, best effort: what must not be lost is in the store."""

    def push(self, reply_to: str, envelope: Envelope) -> Awaitable[None]:
        """Send to an instance; nobody listening is no error. Await it to know that it went out."""
        ...

    def listen(
        self, instance: str, on_envelope: Callable[[Envelope], None], on_gap: Callable[[], None]
    ) -> AbstractAsyncContextManager[object]:
        """Hand each envelope for `instance` to a callback; `on_gap` tells that some may have been missed before."""
        ...


def user_topic(tenant: str, topic: str) -> str:
    """The queue's topic for what the functions of a tenant publish on `topic`."""
    return f"user.{tenant}.{topic}"


def dead_letter_topic(topic: str) -> str:
    """The topic of a topic's dead letters: `cs.invoke` gives `cs.dlq.invoke`."""
    return f"cs.dlq.{topic.removeprefix('cs.')}"


def partition_for(partition_key: str | int, partitions: int) -> int:
    """The partition that a key means.

    Raises:
        ValueError: a number outside the installation's partitions.
    """
    if isinstance(partition_key, int):
        if not 0 <= partition_key < partitions:
            raise ValueError(f"partition {partition_key} of {partitions}")
        return partition_key
    return int.from_bytes(hashlib.blake2b(partition_key.encode(), digest_size=4).digest()) % partitions
