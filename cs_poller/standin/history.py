"""The history of one workflow run: events in order, and waiting for more of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from cadence.api.v1.history_pb2 import HistoryEvent

_ENDS = ("completed", "failed", "timed_out", "canceled", "terminated")
_CLOSING = frozenset(f"workflow_execution_{word}_event_attributes" for word in _ENDS)


class History:
    """Events, numbered from 1."""

    def __init__(self) -> None:
        self.events: list[HistoryEvent] = []
        self._grown = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether the run has ended."""
        return bool(self.events) and self.events[-1].WhichOneof("attributes") in _CLOSING

    def add(self, kind: str, **fields: Any) -> int:
        """Append an event, for example `activity_task_scheduled`; returns its number."""
        event = HistoryEvent(event_id=len(self.events) + 1)
        event.event_time.FromNanoseconds(time.time_ns())
        attributes = getattr(event, f"{kind}_event_attributes")
        attributes.CopyFrom(type(attributes)(**fields))
        self.events.append(event)
        self._grown.set()
        self._grown = asyncio.Event()
        return int(event.event_id)

    async def wait_beyond(self, number: int, longest: float) -> None:
        """Wait until there are more than `number` events, the run has ended, or `longest` seconds have passed."""
        try:
            async with asyncio.timeout(max(longest, 0.0)):
                while len(self.events) <= number and not self.closed:
                    await self._grown.wait()
        except TimeoutError:
            pass

    async def wait_closed(self, longest: float) -> None:
        """Wait until the run has ended, or `longest` seconds have passed."""
        try:
            async with asyncio.timeout(max(longest, 0.0)):
                while not self.closed:
                    await self._grown.wait()
        except TimeoutError:
            pass
