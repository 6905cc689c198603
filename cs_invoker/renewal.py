"""Renews leases in a thread of its own, with its own event loop and its own connections to the store.

Theory of operation: the process's event loop may be held up for longer than a lease, by a large bundle, a slow disk or
a busy machine, and what runs in cells goes on meanwhile. So renewing does not depend on it: whoever holds an
activation puts it into a dictionary, the thread looks at the dictionary at every tick, and renews what is due in one
pipeline. What is over before its first renewal costs an entry made and removed. News go back by
`call_soon_threadsafe`.

A process whose loop does not come back must not keep its activations for ever. The loop gives a sign of life every
second, and without one for `STALL_LIMIT` the thread renews nothing until the loop is back.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

import structlog

from cs_core.codeq import Queue
from cs_core.errors import UnavailableError
from cs_core.store.activations import ActivationStore, Renewal
from cs_core.store.slots import SlotStore

from .lease import Holding, Lengths

_log = structlog.get_logger(__name__)

TICKS_PER_RENEWAL = 4
SIGN_OF_LIFE = 1.0
"""Seconds between two signs of life of the process's loop."""
STALL_LIMIT = 30.0
"""Seconds without a sign of life after which the process counts as dead."""


@dataclass(frozen=True, slots=True)
class Lessors:
    """Who gives the leases: over connections that belong to the thread's loop."""

    activations: ActivationStore
    queue: Queue
    slots: SlotStore


OpenLessors = Callable[[], AbstractAsyncContextManager[Lessors]]


@dataclass(eq=False, slots=True)
class _Entry:
    """One activation that is kept. `due` is a reading of the monotonic clock."""

    holding: Holding
    on_lost: Callable[[], None]
    due: float


class RenewalThread:
    """Renews the leases of one process. `keep` may be used while `running`.

    Args:
        open_lessors: opens the store and the queue, in the thread's loop.
        lengths: of the leases.
        stall_limit: seconds without a sign of life of the process's loop after which nothing is renewed.
    """

    def __init__(self, open_lessors: OpenLessors, lengths: Lengths, stall_limit: float = STALL_LIMIT) -> None:
        self._open_lessors = open_lessors
        self._lengths = lengths
        self._interval = lengths.renewal.total_seconds()
        self._tick = self._interval / TICKS_PER_RENEWAL
        self._stall_limit = stall_limit
        self._entries: dict[str, _Entry] = {}
        self._sign = 0.0
        self._holder: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Renew for the length of the block."""
        self._holder = asyncio.get_running_loop()
        self._sign = time.monotonic()
        living = asyncio.create_task(self._give_signs(), name="sign-of-life")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._run, args=[loop], name="lease-renewal", daemon=True)
        thread.start()
        try:
            yield
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)
            loop.call_soon_threadsafe(self._stopping.set)
            await asyncio.to_thread(thread.join)

    @contextmanager
    def keep(self, holding: Holding, on_lost: Callable[[], None]) -> Iterator[None]:
        """Renew what is held for the length of the block; see Renewals.keep."""
        self._entries[holding.owner] = _Entry(holding, on_lost, time.monotonic() + self._interval)
        try:
            yield
        finally:
            self._entries.pop(holding.owner, None)

    async def _give_signs(self) -> None:
        while True:
            self._sign = time.monotonic()
            await asyncio.sleep(SIGN_OF_LIFE)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._renew_all())

    async def _renew_all(self) -> None:
        async with self._open_lessors() as lessors:
            while not await self._stops_within(self._tick):
                now = time.monotonic()
                if now - self._sign > self._stall_limit:
                    _log.error("the event loop is stuck; its leases are left to end", seconds=round(now - self._sign))
                    continue
                # One C call, so the other thread cannot change the dictionary in the middle of it.
                due = [entry for entry in list(self._entries.values()) if entry.due <= now]
                await asyncio.gather(*(self._renew(lessors, entry) for entry in due))

    async def _stops_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _renew(self, lessors: Lessors, entry: _Entry) -> None:
        """Renew one; a failure leaves it due, so the next tick tries again."""
        holding = entry.holding
        started = time.monotonic()
        try:
            renewal, held = await self._ask(lessors, holding)
        except UnavailableError as error:
            _log.warning("the leases could not be renewed, trying again", reason=error.reason)
            return
        except Exception:  # noqa: BLE001 - the thread must outlive whatever one renewal meets
            _log.exception("the leases could not be renewed, trying again")
            return
        entry.due = started + self._interval
        if not renewal.owned:
            self._entries.pop(holding.owner, None)
            self._tell(entry.on_lost)
            return
        if not held:
            _log.info("the message is leased to another consumer, who will find the activation busy")
        self._tell(lambda: holding.on_renewed(self._lengths.record))
        if renewal.cancel:
            self._tell(holding.on_cancel)

    async def _ask(self, lessors: Lessors, holding: Holding) -> tuple[Renewal, bool]:
        ref, lengths = holding.request.function, self._lengths
        renewal, held, _ = await asyncio.gather(
            lessors.activations.renew(ref.tenant, holding.request.activation_id, holding.owner, lengths.record),
            lessors.queue.extend(holding.delivery, lengths.message),
            lessors.slots.renew(ref, holding.owner, lengths.record),
        )
        return renewal, held

    def _tell(self, news: Callable[[], None]) -> None:
        assert self._holder is not None  # noqa: S101 - set before the thread is started
        self._holder.call_soon_threadsafe(news)
