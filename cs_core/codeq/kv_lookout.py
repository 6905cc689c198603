"""Where a consumer of a topic looks for messages: where the bell rang, where it left some, now and then everywhere.

Theory of operation. The bell tells the partition of each message that can be received at once. What it does not tell is
found by a look at all partitions, once per poll interval: a ring that was lost, a delay that is over, a lease that has
ended. A partition stays on the list until a look has found it to hold less than was asked for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable

from cs_core.store.pubsub import Listener


class Lookout:
    """What is known of the partitions of one topic.

    Args:
        url: address of the server.
        channel: channel of the topic's bell.
        partitions: partitions of the installation.
        poll: seconds between two looks at all of them.
    """

    def __init__(self, url: str, channel: str, partitions: int, poll: float) -> None:
        self._all = range(partitions)
        self._poll = poll
        self._rang: set[int] = set()
        self._left: set[int] = set()
        self._next_look = 0.0
        self._turn = itertools.count()
        self._event = asyncio.Event()
        self._listener = Listener(url, [channel], self._ring, self._miss)

    async def start(self) -> None:
        """Begin to listen to the bell."""
        await self._listener.__aenter__()

    async def close(self) -> None:
        """Stop listening."""
        await self._listener.__aexit__(None, None, None)

    def due(self) -> bool:
        """Whether it is time to look at all partitions; the next time is counted from now on, if it is."""
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return False
        self._next_look = now + self._poll
        return True

    def everywhere(self) -> range:
        """All partitions."""
        return self._all

    def note(self, partitions: Iterable[int]) -> None:
        """These may hold messages."""
        self._left.update(partitions)

    def strike(self, partition: int) -> None:
        """This one was found to hold no more, unless it rings again."""
        self._left.discard(partition)

    def places(self, wanted: Callable[[int], bool]) -> list[int]:
        """Those that may hold messages and are wanted, each call from another start so that all have their turn."""
        self._event.clear()
        rang, self._rang = self._rang, set()
        self._left |= rang
        order = sorted(self._left)
        start = next(self._turn) % len(order) if order else 0
        return [place for place in order[start:] + order[:start] if wanted(place)]

    async def wait(self, seconds: float) -> None:
        """Wait for the bell, or the next look, for at most so long."""
        loop = asyncio.get_running_loop()
        clock = loop.call_later(min(seconds, max(0.0, self._next_look - loop.time())), self._event.set)
        try:
            await self._event.wait()
        finally:
            clock.cancel()

    def _ring(self, _channel: str, payload: bytes) -> None:
        number = int(payload)
        # Anyone who reaches the server can ring it.
        if number in self._all:
            self._rang.add(number)
            self._event.set()

    def _miss(self) -> None:
        self._next_look = 0.0
        self._event.set()
