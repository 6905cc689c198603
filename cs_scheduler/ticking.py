"""The loop that looks at what is due in the shards that this process leads, and after changes left halfway."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from cs_core.clock import Clock
from cs_core.errors import UnavailableError
from cs_core.schedules.placing import Placing
from cs_core.schedules.rule import to_ms
from cs_core.store.shards import Lead, LeadLostError, ShardStore
from cs_scheduler.leading import Held, Leading
from cs_scheduler.metrics import Metrics
from cs_scheduler.ticks import Ticks

_log = structlog.get_logger(__name__)
_SWEEP_PERIOD: Final = 0.5
_FAULT_WAIT_MS: Final = 5_000


class Ticking:
    """Looks at the shards, again and again.

    Args:
        poll: time between two looks that find nothing, in seconds.
        concurrency: schedules of one shard that are handled at once.
    """

    def __init__(
        self,
        shards: ShardStore,
        leading: Leading,
        ticks: Ticks,
        placing: Placing,
        metrics: Metrics,
        clock: Clock,
        *,
        poll: float,
        concurrency: int,
    ) -> None:
        self._shards = shards
        self._leading = leading
        self._ticks = ticks
        self._placing = placing
        self._metrics = metrics
        self._clock = clock
        self._poll = poll
        self._concurrency = concurrency

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            # A shard that has a backlog is looked at again at once.
            if not await self.look():
                await asyncio.sleep(self._poll)

    async def sweep(self) -> None:
        """Look after changes that were left halfway, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_PERIOD)
            for held in self._leading.held():
                try:
                    self._metrics.count_repairs(await self._placing.sweep(held.lead.shard))
                except UnavailableError:
                    break

    async def look(self) -> int:
        """Handle what is due in every shard that is led, one tick of each schedule; returns how many there were."""
        return sum(await asyncio.gather(*(self._look_at(held) for held in self._leading.held())))

    async def _look_at(self, held: Held) -> int:
        async with held.busy:
            try:
                self._leading.check(held.lead)
                uids = await self._shards.due(held.lead.shard, to_ms(self._clock.now()), self._concurrency)
                await asyncio.gather(*(self._handle(held.lead, uid) for uid in uids))
            except UnavailableError as error:
                _log.warning("the store is away", shard=held.lead.shard, reason=error.reason)
                return 0
            except LeadLostError:
                self._leading.lose(held.lead)
                return 0
        return len(uids)

    async def _handle(self, lead: Lead, uid: str) -> None:
        try:
            await self._ticks.handle(lead, uid)
        except (UnavailableError, LeadLostError):
            raise
        except Exception:  # noqa: BLE001 - one schedule must not stop its neighbours
            _log.exception("a schedule cannot be handled", schedule_uid=uid, shard=lead.shard)
            self._metrics.count_fault()
            await self._shards.postpone(uid, to_ms(self._clock.now()) + _FAULT_WAIT_MS)
