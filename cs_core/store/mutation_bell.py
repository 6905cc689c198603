"""The bell of the mutation log: wakes who follows what tenants change, in any process.

Theory of operation: each commit rings one channel with the name of its tenant. A process listens once, however many
of its parts follow. A ring is a hint and can be lost: who is woken reads the log from its own position, and reads it
again on a slow timer too. After a break of the connection everyone is woken, because any ring may have been missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from cs_core.store import keys
from cs_core.store.pubsub import Listener

# Told the tenant that changed something, or None after a gap: any may have. Called in the event loop; must not raise.
OnRing = Callable[[str | None], None]


class MutationBell:
    """Hears the bell for one process.

    Args:
        url: address of the store.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._callbacks: set[OnRing] = set()
        self.closing = False

    @asynccontextmanager
    async def running(self, stopping: asyncio.Event | None = None) -> AsyncIterator[None]:
        """Listen for the length of the block. When `stopping` is set, all are woken and `closing` is True."""
        listener = Listener(self._url, [keys.mutation_bell()], self._take, self._wake_all)
        closing = asyncio.create_task(self._close_when(stopping or asyncio.Event()), name="mutation-bell")
        try:
            async with listener:
                yield
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    @contextmanager
    def following(self, tenant: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever the tenant may have changed something; clear it before reading the log."""
        event = asyncio.Event()
        events = self._followers.setdefault(tenant, set())
        events.add(event)
        try:
            yield event
        finally:
            events.discard(event)
            if not events and self._followers.get(tenant) is events:
                del self._followers[tenant]

    @contextmanager
    def telling(self, on_ring: OnRing) -> Iterator[None]:
        """Call `on_ring` at every ring of any tenant, for the length of the block."""
        self._callbacks.add(on_ring)
        try:
            yield
        finally:
            self._callbacks.discard(on_ring)

    def count(self, tenant: str) -> int:
        """Count who follows a tenant."""
        return len(self._followers.get(tenant, ()))

    async def _close_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self.closing = True
        self._wake_all()

    def _take(self, _channel: str, payload: bytes) -> None:
        tenant = payload.decode("utf-8", "replace")
        for event in self._followers.get(tenant, ()):
            event.set()
        self._tell(tenant)

    def _wake_all(self) -> None:
        for events in self._followers.values():
            for event in events:
                event.set()
        self._tell(None)

    def _tell(self, tenant: str | None) -> None:
        for callback in tuple(self._callbacks):
            callback(tenant)
