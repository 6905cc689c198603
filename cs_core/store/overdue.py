"""Activations that should have ended long ago: those that nothing leads to any more."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.clock import from_timestamp
from cs_core.store import keys
from cs_core.store.client import KvClient

# An activation past its deadline ends at its next delivery; until then it still counts as open.
OPEN_SLACK_MS: Final = 60_000


def end_moment(request: InvocationRequest) -> int:
    """By when an activation with a deadline should have ended, in ms since the epoch."""
    return int(from_timestamp(request.deadline).timestamp() * 1000) + OPEN_SLACK_MS


def end_name(tenant: str, activation_id: str) -> str:
    """An activation's name among the ends of its partition."""
    return f"{tenant}/{activation_id}"


class OverdueStore:
    """The ends of a partition: what was accepted and has not ended, by a minute after its deadline."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def find(self, partition: int, now: datetime, limit: int) -> list[InvocationRequest]:
        """Up to `limit` requests (without their events) whose end is past. Raises UnavailableError.

        Names whose record is gone are dropped.
        """
        found = await self._client.call(
            "ZRANGEBYSCORE", keys.ends(partition), "-inf", int(now.timestamp() * 1000), "LIMIT", 0, limit
        )
        names = [name.decode() for name in found]
        stored = await asyncio.gather(
            *(self._client.call("HGET", keys.activation(partition, *name.split("/", 1)), "request") for name in names)
        )
        requests = []
        for name, request in zip(names, stored, strict=True):
            if request is None:
                await self._client.call("ZREM", keys.ends(partition), name)
            else:
                requests.append(InvocationRequest.FromString(request))
        return requests
