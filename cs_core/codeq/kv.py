"""The queue on the store itself: lists, sorted sets, hashes, short scripts, and a pub/sub bell.

Theory of operation. A partition of a topic is, all in one slot: bodies by id, a ready list per lane, leases (a sorted
set by expiry), delayed messages (a sorted set by due time), the receipt of each lease, and the count of deliveries. An
id begins with its lane. Each step is one script; leases are measured by the server's clock. Publishing rings a bell
with the partition's number; a consumer that waits looks at that partition at once, and at all of them on a slow poll,
which covers a lost bell, delayed messages and expired leases.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from codesous.queue.v1.envelope_pb2 import Envelope, Lane

from cs_core.codeq import dead_letters
from cs_core.codeq.contract import Delivery, Depth, PartitionDepth, dead_letter_topic, partition_for
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.pubsub import Listener
from cs_core.store.scripts import load_script

_PUBLISH, _RECEIVE, _ACK, _NACK, _EXTEND, _DEAD_LETTER = (
    load_script("cs_core.codeq", name) for name in ("publish", "receive", "ack", "nack", "extend", "dead_letter")
)
# Of deliveries of one message, one in this many starts with the background lane.
_BACKGROUND_TURN = 5


def _lane(lane: Lane.ValueType) -> int:
    return 2 if lane == Lane.LANE_BACKGROUND else 1


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)


class KvQueue:
    """The `kv` driver.

    Args:
        client: the store.
        partitions: partitions of the installation.
        lease: length of a delivery's lease.
        poll_interval: the slow poll of a waiting consumer.
    """

    def __init__(self, client: KvClient, partitions: int, lease: timedelta, poll_interval: timedelta) -> None:
        self._client = client
        self._partitions = partitions
        self._lease = lease
        self._poll = poll_interval.total_seconds()
        self._bells: dict[str, _Bell] = {}
        self._turn = itertools.count()

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
        partition = partition_for(partition_key, self._partitions)
        number = _lane(lane)
        await self._client.script(
            _PUBLISH,
            [
                keys.queue(partition, topic, "bodies"),
                keys.queue(partition, topic, f"ready{number}"),
                keys.queue(partition, topic, "delayed"),
            ],
            [
                f"{number}{envelope.message_id}",
                envelope.SerializeToString(),
                _ms(delay or timedelta(0)),
                keys.queue_bell(topic),
                partition,
            ],
        )

    async def receive(self, topic: str, *, limit: int, wait: timedelta) -> list[Delivery]:
        """See Queue.receive."""
        bell = await self._bell(topic)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        hint: set[int] = set()
        while True:
            found = await self._sweep(topic, limit, hint)
            left = deadline - loop.time()
            if found or left <= 0:
                return found
            hint = await bell.rung(min(left, self._poll))

    async def _sweep(self, topic: str, limit: int, hint: set[int]) -> list[Delivery]:
        """Look at the partitions that rang, or at all of them, from a start that moves on each time."""
        if hint:
            order = sorted(hint)
        else:
            start = next(self._turn) % self._partitions
            order = [(start + step) % self._partitions for step in range(self._partitions)]
        found: list[Delivery] = []
        # One pipeline tells where something is; taking happens there alone, so that no more is leased than asked for.
        for partition in order if len(order) == 1 else await self._occupied(topic, order):
            found += await self._take(topic, partition, limit - len(found))
            if len(found) >= limit:
                break
        return found

    async def _occupied(self, topic: str, order: Sequence[int]) -> list[int]:
        sizes = await asyncio.gather(
            *(self._client.call("HLEN", keys.queue(partition, topic, "bodies")) for partition in order)
        )
        return [partition for partition, size in zip(order, sizes, strict=True) if size]

    async def _take(self, topic: str, partition: int, limit: int) -> list[Delivery]:
        token = secrets.token_hex(8)
        background = 1 if next(self._turn) % _BACKGROUND_TURN == 0 else 0
        reply = await self._client.script(
            _RECEIVE,
            [
                keys.queue(partition, topic, part)
                for part in ("bodies", "ready1", "ready2", "leases", "delayed", "receipts", "deliveries")
            ],
            [limit, _ms(self._lease), token, background],
        )
        return [
            Delivery(topic, partition, raw_id[1:].decode(), raw_id[:1].decode() + token, int(count), body)
            for raw_id, count, body in zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        ]

    async def ack(self, deliveries: Sequence[Delivery]) -> int:
        """See Queue.ack."""
        groups: dict[tuple[str, int], list[str]] = {}
        for delivery in deliveries:
            group = groups.setdefault((delivery.topic, delivery.partition), [])
            group += [_id(delivery), delivery.receipt[1:]]
        replies = await asyncio.gather(
            *(
                self._client.script(
                    _ACK,
                    [keys.queue(partition, topic, part) for part in ("bodies", "leases", "receipts", "deliveries")],
                    pairs,
                )
                for (topic, partition), pairs in groups.items()
            )
        )
        return sum(replies)

    async def nack(self, delivery: Delivery, delay: timedelta = timedelta(0)) -> bool:
        """See Queue.nack."""
        parts = (f"ready{delivery.receipt[0]}", "leases", "delayed", "receipts")
        reply = await self._client.script(
            _NACK,
            [keys.queue(delivery.partition, delivery.topic, part) for part in parts],
            [
                _id(delivery),
                delivery.receipt[1:],
                _ms(delay),
                keys.queue_bell(delivery.topic),
                delivery.partition,
            ],
        )
        return bool(reply)

    async def extend(self, delivery: Delivery, lease: timedelta) -> bool:
        """See Queue.extend."""
        reply = await self._client.script(
            _EXTEND,
            [keys.queue(delivery.partition, delivery.topic, part) for part in ("leases", "receipts")],
            [_id(delivery), delivery.receipt[1:], _ms(lease)],
        )
        return bool(reply)

    async def dead_letter(self, delivery: Delivery, reason: str, message: str = "") -> bool:
        """See Queue.dead_letter."""
        dead = dead_letters.seal(delivery, reason, message)
        topic = dead_letter_topic(delivery.topic)
        reply = await self._client.script(
            _DEAD_LETTER,
            [
                *(
                    keys.queue(delivery.partition, delivery.topic, part)
                    for part in ("bodies", "leases", "receipts", "deliveries")
                ),
                keys.queue(delivery.partition, topic, "bodies"),
                keys.queue(delivery.partition, topic, "order"),
            ],
            [_id(delivery), delivery.receipt[1:], dead.SerializeToString()],
        )
        return bool(reply)

    async def list_dead_letters(self, topic: str, *, limit: int) -> list[Envelope]:
        """See Queue.list_dead_letters."""
        dead = dead_letter_topic(topic)
        found: list[Envelope] = []
        for partition in range(self._partitions):
            ids = await self._client.call("ZRANGE", keys.queue(partition, dead, "order"), 0, limit - len(found) - 1)
            if ids:
                bodies = await self._client.call("HMGET", keys.queue(partition, dead, "bodies"), *ids)
                found += [Envelope.FromString(body) for body in bodies if body is not None]
            if len(found) >= limit:
                break
        return found

    async def depth(self, topic: str) -> Depth:
        """See Queue.depth."""
        counts = [("LLEN", "ready1"), ("LLEN", "ready2"), ("ZCARD", "leases"), ("ZCARD", "delayed")]
        replies = await asyncio.gather(
            *(
                self._client.call(command, keys.queue(partition, topic, part))
                for partition in range(self._partitions)
                for command, part in counts
            )
        )
        partitions = {}
        for partition in range(self._partitions):
            first, second, leased, delayed = replies[partition * 4 : partition * 4 + 4]
            if first or second or leased or delayed:
                ready = {Lane.LANE_INTERACTIVE: first, Lane.LANE_BACKGROUND: second}
                partitions[partition] = PartitionDepth(ready, leased, delayed)
        return Depth(partitions)

    async def ping(self) -> None:
        """See Queue.ping."""
        await self._client.ping()

    async def close(self) -> None:
        """See Queue.close."""
        for bell in self._bells.values():
            await bell.close()
        self._bells.clear()

    async def _bell(self, topic: str) -> _Bell:
        bell = self._bells.get(topic)
        if bell is None:
            bell = self._bells[topic] = _Bell(self._client.url, keys.queue_bell(topic))
            await bell.start()
        return bell


class KvResultChannel:
    """Addressed results over pub/sub."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def push(self, reply_to: str, envelope: Envelope) -> None:
        """See ResultChannel.push."""
        await self._client.call("PUBLISH", keys.results_channel(reply_to), envelope.SerializeToString())

    def listen(
        self, instance: str, on_envelope: Callable[[Envelope], None], on_gap: Callable[[], None]
    ) -> AbstractAsyncContextManager[object]:
        """See ResultChannel.listen."""
        return Listener(
            self._client.url,
            [keys.results_channel(instance)],
            lambda _channel, payload: on_envelope(Envelope.FromString(payload)),
            on_gap,
        )


class _Bell:
    """Remembers which partitions rang since somebody looked."""

    def __init__(self, url: str, channel: str) -> None:
        self._partitions: set[int] = set()
        self._event = asyncio.Event()
        self._listener = Listener(url, [channel], self._ring, lambda: None)

    async def start(self) -> None:
        await self._listener.__aenter__()

    async def close(self) -> None:
        await self._listener.__aexit__(None, None, None)

    def _ring(self, _channel: str, payload: bytes) -> None:
        self._partitions.add(int(payload))
        self._event.set()

    async def rung(self, wait: float) -> set[int]:
        """Wait for the bell; the partitions that rang, or nothing when the wait ended first."""
        try:
            async with asyncio.timeout(wait):
                await self._event.wait()
        except TimeoutError:
            return set()
        self._event.clear()
        rang, self._partitions = self._partitions, set()
        return rang


def _id(delivery: Delivery) -> str:
    return delivery.receipt[0] + delivery.message_id
