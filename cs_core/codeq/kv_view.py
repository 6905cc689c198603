"""Looks into the `kv` driver's queue without changing it: where a message is, and what waits for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from codesous.queue.v1.envelope_pb2 import Envelope, Lane

from cs_core.clock import Clock, from_timestamp
from cs_core.codeq.contract import dead_letter_topic
from cs_core.codeq.envelope_head import HEAD_BYTES, read_head
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_PEEK, _LOCATE = (load_script("cs_core.codeq", name) for name in ("peek", "locate"))
PEEKED: Final = 500
"""Messages of each lane of a partition that are looked at."""
_LANES: Final = {1: Lane.LANE_INTERACTIVE, 2: Lane.LANE_BACKGROUND}
Where = Literal["none", "ready", "leased", "delayed"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is; `until_ms` is the end of its lease or delay, by the server's clock."""

    where: Where
    lane: Lane.ValueType = Lane.LANE_UNSPECIFIED
    deliveries: int = 0
    ahead: int = 0
    until_ms: int = 0


@dataclass(slots=True)
class TenantBacklog:
    """Ready messages of one tenant that were looked at."""

    ready: int = 0
    oldest: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in one partition: the age of the oldest ready message by lane, and the tenants."""

    oldest: Mapping[Lane.ValueType, timedelta]
    tenants: dict[str, TenantBacklog] = field(default_factory=dict)


class KvQueueView:
    """What operators see of the queue. Every method raises UnavailableError when the store does not answer."""

    def __init__(self, client: KvClient, partitions: int, clock: Clock) -> None:
        self._client = client
        self._partitions = partitions
        self._clock = clock

    async def locate(self, topic: str, partition: int, message_id: str) -> Place:
        """Where a message is."""
        parts = ("bodies", "ready1", "ready2", "leases", "delayed", "deliveries")
        reply = await self._client.script(_LOCATE, [keys.queue(partition, topic, part) for part in parts], [message_id])
        where = reply[0].decode()
        if where == "none":
            return Place("none")
        lane, deliveries, number = _LANES[int(reply[1])], int(reply[2]), int(reply[3])
        if where == "ready":
            return Place("ready", lane, deliveries, ahead=number)
        return Place(where, lane, deliveries, until_ms=number)

    async def backlog(self, topic: str, partition: int) -> Backlog:
        """What waits in a partition of a topic: of the first `PEEKED` messages of each lane."""
        now, bodies = self._clock.now(), keys.queue(partition, topic, "bodies")
        replies = await asyncio.gather(
            *(
                self._client.script(
                    _PEEK, [bodies, keys.queue(partition, topic, f"ready{number}")], [PEEKED, HEAD_BYTES]
                )
                for number in _LANES
            )
        )
        found = Backlog({})
        oldest: dict[Lane.ValueType, timedelta] = {}
        for lane, reply in zip(_LANES.values(), replies, strict=True):
            for head in reply[1::2]:
                envelope = read_head(head)
                age = _age(envelope, now)
                oldest[lane] = max(oldest.get(lane, timedelta(0)), age)
                tenant = found.tenants.setdefault(envelope.tenant, TenantBacklog())
                tenant.ready += 1
                tenant.oldest = max(tenant.oldest, age)
        return Backlog(oldest, found.tenants)

    async def count_dead_letters(self, topic: str) -> int:
        """How many messages of a topic were given up."""
        counts = await asyncio.gather(
            *(
                self._client.call("ZCARD", keys.queue(partition, dead_letter_topic(topic), "order"))
                for partition in range(self._partitions)
            )
        )
        return sum(counts)

    def dead_letter_ids(self, partition: int, message_id: str) -> list[str]:
        """The ids that the dead letter of a message may have."""
        return [f"{partition}.{number}{message_id}" for number in _LANES]


def _age(envelope: Envelope, now: datetime) -> timedelta:
    """How long ago it was published; 0 for a clock that is ahead of ours."""
    if not envelope.HasField("publish_time"):
        return timedelta(0)
    return max(now - from_timestamp(envelope.publish_time), timedelta(0))
