"""`cs.cadence.heartbeat`: signs of life of an activation that a Cadence task caused, at most so many a second.

Theory of operation: a heartbeat that comes within the interval after the last one is not refused. It waits, a later one
takes its place, and the last of them is sent when the interval is over: Cadence wants the newest details, not all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from cs_sandbox.host import arguments as given
from cs_sandbox.job import HostCallError

HEARTBEATS_PER_SECOND: Final = 2
_logger = logging.getLogger(__name__)

SendHeartbeat = Callable[[bytes], Awaitable[None]]
"""Sends details, as UTF-8 JSON. Raises HostCallError."""


class HeartbeatCalls:
    """Provides the area `cadence` for one activation."""

    def __init__(self, send: SendHeartbeat, details_bytes: int, interval: float = 1 / HEARTBEATS_PER_SECOND) -> None:
        """`details_bytes` is the limit of the details, as JSON; `interval` is in seconds."""
        self._send = send
        self._details_bytes = details_bytes
        self._interval = interval
        self._waiting: bytes | None = None
        self._task: asyncio.Task[None] | None = None

    async def call(self, _operation: str, arguments: list[Any]) -> None:
        """Send now, or with the next one; the only operation. Raises HostCallError."""
        details = given.to_json("details", given.item(arguments, 0), self._details_bytes)
        if self._task is not None and not self._task.done():
            self._waiting = details
            return
        self._task = asyncio.create_task(self._pace(), name="heartbeats")
        await self._send(details)

    async def close(self) -> None:
        """Send nothing more: the activation has ended, and its result says all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _pace(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            details, self._waiting = self._waiting, None
            if details is None:
                return
            try:
                await self._send(details)
            except HostCallError as error:
                _logger.warning("a heartbeat was not sent: %s", error.message)
