"""The scheduler's shards as the store has them: who leads each, and what is due."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from codesous.admin.v1.process_pb2 import Shard
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.clock import Clock
from cs_core.store import keys
from cs_core.store.client import KvClient


class ShardLooks:
    """Reads the shards of an installation."""

    def __init__(self, client: KvClient, shards: int, clock: Clock) -> None:
        self._client = client
        self._shards = shards
        self._clock = clock

    async def list(self) -> list[Shard]:
        """All of them, by number. Raises UnavailableError."""
        return list(await asyncio.gather(*(self._look(shard) for shard in range(self._shards))))

    async def _look(self, number: int) -> Shard:
        now_ms = int(self._clock.now().timestamp() * 1000)
        due_key = keys.shard_due(number)
        lease, schedules, due, first = await asyncio.gather(
            self._client.call("HMGET", keys.shard_lease(number), "owner", "until", "fence"),
            self._client.call("ZCARD", due_key),
            self._client.call("ZCOUNT", due_key, "-inf", now_ms),
            self._client.call("ZRANGE", due_key, 0, 0, "WITHSCORES"),
        )
        owner, until, fence = lease
        shard = Shard(shard=number, fence=int(fence or 0), schedules=schedules, due=due)
        if owner and int(until or 0) > now_ms:
            shard.owner = owner.decode()
            shard.expire_time.CopyFrom(_timestamp(int(until)))
        if due and first:
            shard.oldest_due.FromTimedelta(timedelta(milliseconds=max(0, now_ms - int(float(first[1])))))
        return shard


def _timestamp(milliseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMilliseconds(milliseconds)
    return stamp
