"""The relay: moves every tenant's mutations to the ledger, at least once and in order, across crashes of either side.

Theory of operation. One process relays at a time: the one that holds a lease, whose token fences everything that the
relay stores. It goes through the tenants of whom something may wait (see `cs_core.store.relay`), a batch each, so that
one with much does not hold up the others. Of each it

1. reads what stands after the tenant's cursor,
2. appends it to the ledger, which is durable when that returns and drops what it has already,
3. stores the ledger's head, so that a cut end can be told,
4. moves the cursor, which also trims what is past the retention of the log.

A crash after any step repeats the steps from the cursor on, and the ledger drops what it has. A process that lost its
lease without knowing can still append, because the ledger is not fenced; but whoever follows opens the ledger only when
that process has let go of it, finds what it appended, and goes on behind it.

While the ledger is away nothing is trimmed and nothing is lost: mutations are accepted and wait in the log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from cs_core.audit.contract import NOTHING, Ledger, LedgerDamagedError, LedgerEntry, LedgerError
from cs_core.audit.metrics import RelayMetrics
from cs_core.clock import Clock, from_timestamp
from cs_core.config import AuditSettings
from cs_core.errors import UnavailableError
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.relay import FencedError, Listing, RelayStore

_log = structlog.get_logger(__name__)
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0


class Gap(StrEnum):
    """Where the relay of a batch stands: after the step of that name and before the next one."""

    READ = "read"
    APPENDED = "appended"
    HEAD_STORED = "head_stored"
    ADVANCED = "advanced"


AtGap = Callable[[Gap], Awaitable[None]]
"""Called in each gap, so that tests can stop a process there."""


async def pass_gap(_gap: Gap) -> None:
    """What production does in a gap: nothing."""


class Relay:
    """Relays for the whole installation while it holds the lease."""

    def __init__(
        self,
        store: RelayStore,
        ledger: Ledger,
        bell: MutationBell,
        settings: AuditSettings,
        clock: Clock,
        metrics: RelayMetrics,
        instance: str,
        at_gap: AtGap = pass_gap,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._bell = bell
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._instance = instance
        self._at_gap = at_gap
        self._rung = asyncio.Event()
        # Tenants that rang since the last pass: a listing that a failing store forgot is made up for.
        self._rang: set[str] = set()
        self._head = NOTHING

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Relay for the length of the block."""
        with self._bell.telling(self._on_ring):
            task = asyncio.create_task(self.run(), name="relay")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def run(self) -> None:
        """Hold the lease whenever it is free, and relay while it is held; for ever."""
        while True:
            try:
                token = await self._store.lease(self._instance, self._lease)
                if token:
                    await self._lead(token)
            except (UnavailableError, TimeoutError):
                _log.warning("the relay waits for the store")
            except FencedError:
                _log.warning("another process relays by now")
            except Exception:  # noqa: BLE001 - whatever it is, mutations wait in the log until the relay goes on
                _log.exception("the relay failed")
            await asyncio.sleep(self._settings.lease / 3 * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    @property
    def _lease(self) -> timedelta:
        return timedelta(seconds=self._settings.lease)

    async def _lead(self, token: int) -> None:
        _log.info("this process relays mutations", token=token)
        self._metrics.leads(True)
        working = asyncio.create_task(self._work(token), name="relay-work")
        holding = asyncio.create_task(self._hold(token), name="relay-lease")
        try:
            await asyncio.wait({working, holding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, holding):
                task.cancel()
            outcomes = await asyncio.gather(working, holding, return_exceptions=True)
            # Let go of the ledger before the lease: whoever follows must find it free.
            await self._ledger.close()
            self._metrics.leads(False)
            await self._hand_back(token)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _hold(self, token: int) -> None:
        """Renew the lease; returns when it is another's, or could not be renewed in time."""
        while True:
            await asyncio.sleep(self._settings.lease / 4)
            async with asyncio.timeout(self._settings.lease / 2):
                if await self._store.lease(self._instance, self._lease) != token:
                    raise FencedError

    async def _hand_back(self, token: int) -> None:
        # Away or not, the lease ends by itself.
        with suppress(UnavailableError):
            await self._store.release(token)

    async def _work(self, token: int) -> None:
        wait = _FIRST_WAIT
        opened = False
        while True:
            try:
                if not opened:
                    await self._open(token)
                    opened = True
                await self._pass(token)
                wait = _FIRST_WAIT
            except LedgerError as error:
                opened = False
                damaged = isinstance(error, LedgerDamagedError)
                self._metrics.failed("damaged" if damaged else "unavailable")
                _log.error(
                    "the ledger takes nothing", error=str(error), damaged=damaged, again_in_seconds=round(wait, 1)
                )
                await self._ledger.close()
                await self._measure()
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait = min(wait * 2, _LONGEST_WAIT)
                continue
            await self._idle()

    async def _open(self, token: int) -> None:
        known = await self._store.head(self._settings.name) or NOTHING
        self._head = await self._ledger.open(known)
        if self._head != known:
            # Appended by a process that died before it could say so.
            await self._store.set_head(self._settings.name, self._head, token)

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(self._settings.poll_interval):
                await self._rung.wait()
        except TimeoutError:
            pass

    async def _pass(self, token: int) -> None:
        """Relay until nothing waits. Raises LedgerError, FencedError, UnavailableError."""
        while True:
            # Cleared before the index is read: what is listed from here on is either read below or rings again.
            self._rung.clear()
            rang, self._rang = self._rang, set()
            listings = {listing.tenant: listing for listing in await self._store.listed()}
            for tenant in rang - listings.keys():
                listings[tenant] = Listing(tenant)
            more = False
            for listing in listings.values():
                more = await self._relay(listing, token) or more
            if not more:
                self._metrics.waits(None)
                return

    async def _relay(self, listing: Listing, token: int) -> bool:
        """Relay a batch of a tenant; tells whether more of it may wait."""
        batch = self._settings.batch
        waiting = await self._store.waiting(listing.tenant, batch)
        if waiting:
            self._metrics.waits(from_timestamp(waiting[0][1].time))
            await self._at_gap(Gap.READ)
            head = await self._ledger.append([LedgerEntry(position, mutation) for position, mutation in waiting])
            await self._at_gap(Gap.APPENDED)
            if head != self._head:
                await self._store.set_head(self._settings.name, head, token)
                self._head = head
            await self._at_gap(Gap.HEAD_STORED)
            retained_since = self._clock.now() - timedelta(seconds=self._settings.retention)
            await self._store.advance(listing.tenant, waiting[-1][0], retained_since, token)
            self._metrics.relayed(len(waiting))
            await self._at_gap(Gap.ADVANCED)
        if len(waiting) == batch:
            return True
        return not await self._store.unlist(listing, token)

    async def _measure(self) -> None:
        """Tell the age of the oldest mutation that waits while the ledger takes none."""
        oldest: datetime | None = None
        for listing in await self._store.listed():
            for _, mutation in await self._store.waiting(listing.tenant, 1):
                time = from_timestamp(mutation.time)
                oldest = time if oldest is None else min(oldest, time)
        self._metrics.waits(oldest)

    def _on_ring(self, tenant: str | None) -> None:
        if tenant is not None:
            self._rang.add(tenant)
        self._rung.set()
