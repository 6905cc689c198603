"""The queue in memory, under the same contract: for unit tests and for one process."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import TracebackType

from codesous.queue.v1.envelope_pb2 import Envelope, Lane

from cs_core.clock import Clock, SystemClock
from cs_core.codeq import dead_letters
from cs_core.codeq.contract import DeadMessage, Delivery, Depth, PartitionDepth, Room, partition_for

_BACKGROUND_TURN = 5


@dataclass(slots=True)
class _Message:
    envelope_id: str
    body: bytes
    lane: Lane.ValueType
    deliveries: int = 0
    receipt: str = ""
    until: float = 0.0


@dataclass(slots=True)
class _Partition:
    ready: dict[Lane.ValueType, deque[_Message]] = field(
        default_factory=lambda: {Lane.LANE_INTERACTIVE: deque(), Lane.LANE_BACKGROUND: deque()}
    )
    leased: dict[str, _Message] = field(default_factory=dict)
    delayed: list[_Message] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    """The ids of all of them."""


class MemoryQueue:
    """The `memory` driver. Nothing outlives the process."""

    def __init__(self, partitions: int, lease: timedelta, clock: Clock | None = None) -> None:
        self._partitions = partitions
        self._lease = lease.total_seconds()
        self._clock = clock or SystemClock()
        self._topics: dict[str, list[_Partition]] = {}
        self._dead: dict[str, dict[str, DeadMessage]] = {}
        self._published = asyncio.Event()
        self._turn = itertools.count()

    def _topic(self, topic: str) -> list[_Partition]:
        return self._topics.setdefault(topic, [_Partition() for _ in range(self._partitions)])

    async def publish(
        self,
        topic: str,
        partition_key: str | int,
        envelope: Envelope,
        *,
        lane: Lane.ValueType = Lane.LANE_INTERACTIVE,
        delay: timedelta | None = None,
    ) -> None:
        """See Queue.publish."""
        partition = self._topic(topic)[partition_for(partition_key, self._partitions)]
        if envelope.message_id in partition.held:
            return
        partition.held.add(envelope.message_id)
        lane = Lane.LANE_BACKGROUND if lane == Lane.LANE_BACKGROUND else Lane.LANE_INTERACTIVE
        message = _Message(envelope.message_id, envelope.SerializeToString(), lane)
        if delay:
            message.until = self._clock.monotonic() + delay.total_seconds()
            partition.delayed.append(message)
        else:
            partition.ready[lane].append(message)
        self._published.set()

    async def receive(self, topic: str, *, limit: int, wait: timedelta, room: Room | None = None) -> list[Delivery]:
        """See Queue.receive."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        while True:
            self._published.clear()
            found = self._sweep(topic, limit, room or (lambda _partition: limit))
            left = deadline - loop.time()
            if found or left <= 0:
                return found
            try:
                async with asyncio.timeout(min(left, 0.01 + self._until_due(topic))):
                    await self._published.wait()
            except TimeoutError:
                continue

    def _until_due(self, topic: str) -> float:
        now = self._clock.monotonic()
        times = [
            message.until - now
            for partition in self._topic(topic)
            for message in (*partition.delayed, *partition.leased.values())
        ]
        return max(0.0, min(times, default=1.0))

    def _sweep(self, topic: str, limit: int, room: Room) -> list[Delivery]:
        partitions = self._topic(topic)
        start = next(self._turn) % self._partitions
        found: list[Delivery] = []
        for step in range(self._partitions):
            number = (start + step) % self._partitions
            most = min(limit - len(found), room(number))
            if most > 0:
                found += self._take(topic, number, partitions[number], most)
        return found

    def _take(self, topic: str, number: int, partition: _Partition, limit: int) -> list[Delivery]:
        now = self._clock.monotonic()
        chosen = [message for message in partition.leased.values() if message.until <= now][:limit]
        for message in [message for message in partition.delayed if message.until <= now]:
            partition.delayed.remove(message)
            partition.ready[message.lane].append(message)
        first, second = (partition.ready[lane] for lane in (Lane.LANE_INTERACTIVE, Lane.LANE_BACKGROUND))
        left = limit - len(chosen)
        background = next(self._turn) % _BACKGROUND_TURN == 0
        share = int(background) if left == 1 else max(1, left // 5)
        from_second = min(len(second), max(share, left - len(first)), left)
        from_first = min(len(first), left - from_second)
        chosen += [first.popleft() for _ in range(from_first)] + [second.popleft() for _ in range(from_second)]
        return [self._lease_to(topic, number, partition, message, now) for message in chosen]

    def _lease_to(self, topic: str, number: int, partition: _Partition, message: _Message, now: float) -> Delivery:
        message.deliveries += 1
        message.receipt = secrets.token_hex(8)
        message.until = now + self._lease
        partition.leased[message.envelope_id] = message
        return Delivery(topic, number, message.envelope_id, message.receipt, message.deliveries, message.body)

    def _held(self, delivery: Delivery) -> tuple[_Partition, _Message] | None:
        partition = self._topic(delivery.topic)[delivery.partition]
        message = partition.leased.get(delivery.message_id)
        return (partition, message) if message is not None and message.receipt == delivery.receipt else None

    def _forget(self, partition: _Partition, message_id: str) -> None:
        del partition.leased[message_id]
        partition.held.discard(message_id)

    async def ack(self, deliveries: Sequence[Delivery]) -> int:
        """See Queue.ack."""
        removed = 0
        for delivery in deliveries:
            if held := self._held(delivery):
                self._forget(held[0], delivery.message_id)
                removed += 1
        return removed

    async def nack(self, delivery: Delivery, delay: timedelta = timedelta(0)) -> bool:
        """See Queue.nack."""
        if not (held := self._held(delivery)):
            return False
        partition, message = held
        del partition.leased[delivery.message_id]
        message.receipt = ""
        if delay:
            message.until = self._clock.monotonic() + delay.total_seconds()
            partition.delayed.append(message)
        else:
            partition.ready[message.lane].appendleft(message)
        self._published.set()
        return True

    async def extend(self, delivery: Delivery, lease: timedelta) -> bool:
        """See Queue.extend."""
        if not (held := self._held(delivery)):
            return False
        held[1].until = self._clock.monotonic() + lease.total_seconds()
        return True

    async def dead_letter(self, delivery: Delivery, reason: str, message: str = "") -> bool:
        """See Queue.dead_letter."""
        if not (held := self._held(delivery)):
            return False
        self._forget(held[0], delivery.message_id)
        dead_letter_id = f"{delivery.partition}.{delivery.message_id}"
        letter = DeadMessage(
            dead_letter_id, int(self._clock.now().timestamp() * 1000), dead_letters.seal(delivery, reason, message)
        )
        self._dead.setdefault(delivery.topic, {})[dead_letter_id] = letter
        return True

    async def list_dead_letters(
        self, topic: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[DeadMessage]:
        """See Queue.list_dead_letters."""
        letters = sorted(self._dead.get(topic, {}).values(), key=lambda letter: letter.position)
        return [letter for letter in letters if after is None or letter.position > after][:limit]

    async def get_dead_letter(self, topic: str, dead_letter_id: str) -> DeadMessage | None:
        """See Queue.get_dead_letter."""
        return self._dead.get(topic, {}).get(dead_letter_id)

    async def note_redrive(self, topic: str, dead_letter_id: str, activation_id: str) -> bool:
        """See Queue.note_redrive."""
        letter = await self.get_dead_letter(topic, dead_letter_id)
        if letter is None:
            return False
        if activation_id not in letter.redrives:
            self._dead[topic][dead_letter_id] = replace(letter, redrives=(*letter.redrives, activation_id))
        return True

    async def remove_dead_letter(self, topic: str, dead_letter_id: str) -> bool:
        """See Queue.remove_dead_letter."""
        return self._dead.get(topic, {}).pop(dead_letter_id, None) is not None

    async def depth(self, topic: str) -> Depth:
        """See Queue.depth."""
        return Depth(
            {
                number: PartitionDepth(
                    {lane: len(messages) for lane, messages in partition.ready.items()},
                    len(partition.leased),
                    len(partition.delayed),
                )
                for number, partition in enumerate(self._topic(topic))
                if any(partition.ready.values()) or partition.leased or partition.delayed
            }
        )

    async def ping(self) -> None:
        """See Queue.ping."""

    async def close(self) -> None:
        """See Queue.close."""


class MemoryResultChannel:
    """Addressed results within one process."""

    def __init__(self) -> None:
        self._listeners: dict[str, Callable[[Envelope], None]] = {}

    async def push(self, reply_to: str, envelope: Envelope) -> None:
        """See ResultChannel.push."""
        if listener := self._listeners.get(reply_to):
            listener(envelope)

    def listen(
        self, instance: str, on_envelope: Callable[[Envelope], None], on_gap: Callable[[], None]
    ) -> AbstractAsyncContextManager[object]:
        """See ResultChannel.listen."""
        return _Registration(self._listeners, instance, on_envelope, on_gap)


class _Registration:
    def __init__(
        self,
        listeners: dict[str, Callable[[Envelope], None]],
        instance: str,
        on_envelope: Callable[[Envelope], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._listeners, self._instance = listeners, instance
        self._on_envelope, self._on_gap = on_envelope, on_gap

    async def __aenter__(self) -> _Registration:
        self._listeners[self._instance] = self._on_envelope
        self._on_gap()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listeners.pop(self._instance, None)
