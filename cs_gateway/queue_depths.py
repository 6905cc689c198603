"""How much waits in the queue, as it was a moment ago: reading it for each request would cost more than the request."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import structlog

from cs_core.codeq import Queue
from cs_core.codeq.contract import INVOKE
from cs_core.errors import LimitError, UnavailableError
from cs_core.store import keys

_log = structlog.get_logger(__name__)
READ_EVERY: Final = 0.25
"""Seconds between two readings while requests come; without requests the queue is not read."""
_RETRY_AFTER: Final = timedelta(seconds=1)


class QueueDepths:
    """Refuses requests whose partitions hold too many messages that wait.

    Args:
        queue: what is read.
        partitions: partitions of the installation.
        limit: messages that may wait in one partition.
    """

    def __init__(self, queue: Queue, partitions: int, limit: int) -> None:
        self._queue = queue
        self._partitions = partitions
        self._limit = limit
        self._waiting: Mapping[int, int] = {}
        self._asked = asyncio.Event()

    def check(self, tenant: str) -> None:
        """Raise LimitError (`CS_QUEUE_FULL`) when every partition of the tenant is full."""
        self._asked.set()
        own = keys.tenant_partitions(tenant, self._partitions)
        if min(self._waiting.get(partition, 0) for partition in own) >= self._limit:
            raise LimitError(
                "CS_QUEUE_FULL",
                f"the partitions of the queue that tenant {tenant} uses hold {self._limit} messages each or more",
                _RETRY_AFTER,
            )

    async def run(self) -> None:
        """Read the queue while there are requests, for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.read()
            except UnavailableError as error:
                _log.info("the depth of the queue could not be read", reason=error.reason)
            await asyncio.sleep(READ_EVERY)

    async def read(self) -> None:
        """Read the queue once. Raises UnavailableError."""
        depth = await self._queue.depth(INVOKE)
        self._waiting = {number: sum(part.ready.values()) + part.delayed for number, part in depth.partitions.items()}
