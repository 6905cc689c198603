"""The queue on the store itself: lists, sorted sets, hashes, short scripts, and a pub/sub bell.

Theory of operation. A partition of a topic is, all in one slot: bodies by id, a ready list per lane, leases (a sorted
set by expiry), delayed messages (a sorted set by due time), the receipt of each lease, and the count of deliveries. An
id begins with its lane. Each step is one script; leases are measured by the server's clock. Publishing rings a bell
with the partition's number; `kv_lookout.py` is how a consumer knows where to look.

A script writes a message to where it goes before it removes it from where it was: a server that is killed in the middle
of a script, and that keeps half of it, has the message twice, which costs a delivery, and never not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

from codesous.queue.v1.envelope_pb2 import Envelope, Lane

from cs_core.codeq import dead_letters
from cs_core.codeq.contract import (
    DeadMessage,
    Delivery,
    Depth,
    PartitionDepth,
    Room,
    dead_letter_topic,
    partition_for,
)
from cs_core.codeq.kv_lookout import Lookout
from cs_core.errors import UnavailableError
from cs_core.store import keys
from cs_core.store.client import KvClient, replies
from cs_core.store.pubsub import Listener
from cs_core.store.scripts import load_script

_PUBLISH, _RECEIVE, _ACK, _NACK, _EXTEND, _DEAD_LETTER, _NOTE_REDRIVE, _REMOVE_DEAD_LETTER = (
    load_script("cs_core.codeq", name)
    for name in ("publish", "receive", "ack", "nack", "extend", "dead_letter", "note_redrive", "remove_dead_letter")
)
# Of deliveries of one message, one in this many starts with the background lane.
_BACKGROUND_TURN = 5
_PARTITION_DIGITS = 4


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
        dead_letter_ttl: life of a dead letter.
    """

    def __init__(
        self,
        client: KvClient,
        partitions: int,
        lease: timedelta,
        poll_interval: timedelta,
        dead_letter_ttl: timedelta = timedelta(days=14),
    ) -> None:
        self._client = client
        self._partitions = partitions
        self._lease = lease
        self._poll = poll_interval.total_seconds()
        self._dead_letter_ttl = dead_letter_ttl
        self._lookouts: dict[str, Lookout] = {}
        self._turn = itertools.count()

    def publish(
        self,
        topic: str,
        partition_key: str | int,
        envelope: Envelope,
        *,
        lane: Lane.ValueType = Lane.LANE_INTERACTIVE,
        delay: timedelta | None = None,
    ) -> Awaitable[None]:
        """See Queue.publish."""
        partition = partition_for(partition_key, self._partitions)
        number = _lane(lane)
        return self._client.script(
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

    async def receive(self, topic: str, *, limit: int, wait: timedelta, room: Room | None = None) -> list[Delivery]:
        """See Queue.receive."""
        lookout = await self._lookout(topic)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait.total_seconds()
        while True:
            if lookout.due():
                lookout.note(await self._occupied(topic, lookout.everywhere()))
            found = await self._look(topic, lookout, limit, room or (lambda _partition: limit))
            left = deadline - loop.time()
            if found or left <= 0:
                return found
            await lookout.wait(left)

    async def _look(self, topic: str, lookout: Lookout, limit: int, room: Room) -> list[Delivery]:
        """Take from where messages may be, from all such partitions at once: no more than is asked for in all."""
        found: list[Delivery] = []
        got: Counter[int] = Counter()
        while len(found) < limit:
            left = limit - len(found)
            places = lookout.places(lambda partition: room(partition) > got[partition])[:left]
            if not places:
                break
            asked = {each: min(max(1, left // len(places)), room(each) - got[each]) for each in places}
            try:
                for partition, deliveries in await self._take_each(topic, asked):
                    found += deliveries
                    got[partition] += len(deliveries)
                    if len(deliveries) < asked[partition]:
                        lookout.strike(partition)
            except UnavailableError:
                # What was given before is leased to us.
                if not found:
                    raise
                break
        return found

    async def _take_each(self, topic: str, asked: Mapping[int, int]) -> list[tuple[int, list[Delivery]]]:
        """In one pipeline. Raises UnavailableError when none of them could be asked."""
        taking = [(partition, self._take(topic, partition, count)) for partition, count in asked.items()]
        taken: list[tuple[int, list[Delivery]]] = []
        failure: UnavailableError | None = None
        for partition, deliveries in taking:
            try:
                taken.append((partition, await deliveries))
            except UnavailableError as error:
                failure = error
        if failure is not None and not taken:
            raise failure
        return taken

    async def _occupied(self, topic: str, partitions: Sequence[int]) -> list[int]:
        sizes = [self._client.call("HLEN", keys.queue(partition, topic, "bodies")) for partition in partitions]
        return [partition for partition, size in zip(partitions, await replies(sizes), strict=True) if size]

    def _take(self, topic: str, partition: int, limit: int) -> Awaitable[list[Delivery]]:
        token = secrets.token_hex(8)
        background = 1 if next(self._turn) % _BACKGROUND_TURN == 0 else 0
        reply = self._client.script(
            _RECEIVE,
            [
                keys.queue(partition, topic, part)
                for part in ("bodies", "ready1", "ready2", "leases", "delayed", "receipts", "deliveries")
            ],
            [limit, _ms(self._lease), token, background],
        )
        return self._taken(topic, partition, token, reply)

    async def _taken(self, topic: str, partition: int, token: str, reply: asyncio.Future[Any]) -> list[Delivery]:
        found = await reply
        return [
            Delivery(topic, partition, raw_id[1:].decode(), raw_id[:1].decode() + token, int(count), body)
            for raw_id, count, body in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]

    async def ack(self, deliveries: Sequence[Delivery]) -> int:
        """See Queue.ack."""
        groups: dict[tuple[str, int], list[str]] = {}
        for delivery in deliveries:
            group = groups.setdefault((delivery.topic, delivery.partition), [])
            group += [_id(delivery), delivery.receipt[1:]]
        removed = [
            self._client.script(
                _ACK,
                [keys.queue(partition, topic, part) for part in ("bodies", "leases", "receipts", "deliveries")],
                pairs,
            )
            for (topic, partition), pairs in groups.items()
        ]
        return sum(await replies(removed))

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
                *_dead_keys(delivery.partition, topic),
            ],
            [_id(delivery), delivery.receipt[1:], dead.SerializeToString(), _ms(self._dead_letter_ttl)],
        )
        return bool(reply)

    async def list_dead_letters(
        self, topic: str, *, limit: int, after: tuple[int, str] | None = None
    ) -> list[DeadMessage]:
        """See Queue.list_dead_letters."""
        found = sorted(
            entry
            for entries in await asyncio.gather(
                *(self._dead_order(topic, number, limit, after) for number in range(self._partitions))
            )
            for entry in entries
        )[:limit]
        letters = await asyncio.gather(*(self.get_dead_letter(topic, dead_letter_id) for _, dead_letter_id in found))
        return [letter for letter in letters if letter is not None]

    async def _dead_order(
        self, topic: str, partition: int, limit: int, after: tuple[int, str] | None
    ) -> list[tuple[int, str]]:
        """Positions in one partition, oldest first."""
        order = keys.queue(partition, dead_letter_topic(topic), "order")
        floor = "-inf" if after is None else str(after[0])
        found: list[tuple[int, str]] = []
        offset = 0
        # One time may be shared by many: read on until enough of them are past the position.
        while len(found) < limit:
            page = await self._client.call(
                "ZRANGEBYSCORE", order, floor, "+inf", "WITHSCORES", "LIMIT", offset, limit + 1
            )
            entries = [
                (int(float(score)), f"{partition}.{member.decode()}")
                for member, score in zip(page[::2], page[1::2], strict=True)
            ]
            found += [entry for entry in entries if after is None or entry > after]
            offset += limit + 1
            if len(entries) < limit + 1:
                break
        return found

    async def get_dead_letter(self, topic: str, dead_letter_id: str) -> DeadMessage | None:
        """See Queue.get_dead_letter."""
        place = self._dead_place(dead_letter_id)
        if place is None:
            return None
        partition, member = place
        bodies, order, redrives = _dead_keys(partition, dead_letter_topic(topic))
        body, score, noted = await asyncio.gather(
            self._client.call("HGET", bodies, member),
            self._client.call("ZSCORE", order, member),
            self._client.call("HGET", redrives, member),
        )
        if body is None or score is None:
            return None
        redriven = tuple((noted or b"").decode().split())
        return DeadMessage(dead_letter_id, int(float(score)), Envelope.FromString(body), redriven)

    async def note_redrive(self, topic: str, dead_letter_id: str, activation_id: str) -> bool:
        """See Queue.note_redrive."""
        place = self._dead_place(dead_letter_id)
        if place is None:
            return False
        bodies, _, redrives = _dead_keys(place[0], dead_letter_topic(topic))
        return bool(await self._client.script(_NOTE_REDRIVE, [bodies, redrives], [place[1], activation_id]))

    async def remove_dead_letter(self, topic: str, dead_letter_id: str) -> bool:
        """See Queue.remove_dead_letter."""
        place = self._dead_place(dead_letter_id)
        if place is None:
            return False
        return bool(
            await self._client.script(
                _REMOVE_DEAD_LETTER, list(_dead_keys(place[0], dead_letter_topic(topic))), [place[1]]
            )
        )

    def _dead_place(self, dead_letter_id: str) -> tuple[int, str] | None:
        """Partition and member of an id; None when it is no id of this driver."""
        number, dot, member = dead_letter_id.partition(".")
        if not (
            dot
            and member
            and len(number) <= 4
            and number.isascii()
            and number.isdigit()
            and int(number) < self._partitions
        ):
            return None
        return int(number), member

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
        for lookout in self._lookouts.values():
            await lookout.close()
        self._lookouts.clear()

    async def _lookout(self, topic: str) -> Lookout:
        lookout = self._lookouts.get(topic)
        if lookout is None:
            lookout = Lookout(self._client.url, keys.queue_bell(topic), self._partitions, self._poll)
            self._lookouts[topic] = lookout
            await lookout.start()
        return lookout


class KvResultChannel:
    """Addressed results over pub/sub."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    def push(self, reply_to: str, envelope: Envelope) -> Awaitable[None]:
        """See ResultChannel.push."""
        return self._client.call("PUBLISH", keys.results_channel(reply_to), envelope.SerializeToString())

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


def _dead_keys(partition: int, dead_topic: str) -> tuple[str, str, str]:
    return (
        keys.queue(partition, dead_topic, "bodies"),
        keys.queue(partition, dead_topic, "order"),
        keys.queue(partition, dead_topic, "redrives"),
    )


def _id(delivery: Delivery) -> str:
    return delivery.receipt[0] + delivery.message_id
