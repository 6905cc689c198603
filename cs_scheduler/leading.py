"""Which shards this process leads: its fair share of them, each under a lease with a fence.

Theory of operation. Every process announces itself, learns who else lives, and works out its share from its place in
that list: the shares of all add up to the shards. It hands back what is over its share and takes what is free until it
has it, so a process that joins gets shards from the others, and the shards of one that leaves, or dies, go to those
that are left. Leases are measured by the store's clock; a process stops by its own monotonic clock, counted from
before it asked. Should it stop too late all the same, the fence refuses what it does.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog
from codesous.admin.v1.process_pb2 import Lease

from cs_core.clock import Clock, to_timestamp
from cs_core.errors import UnavailableError
from cs_core.store import keys
from cs_core.store.leases import LeaseStore
from cs_core.store.members import MemberStore
from cs_core.store.shards import Lead, LeadLostError
from cs_scheduler.metrics import Metrics

_log = structlog.get_logger(__name__)
_LONGEST_PERIOD: Final = 0.5
# While the share is not reached: what another hands back, or a dead one held, must not be without a leader for long.
_SHORT_PERIOD: Final = 0.05


@dataclass(slots=True)
class Held:
    """A shard that is led.

    `until` is when to stop, by the monotonic clock; `busy` is held while it is worked on; once it is `leaving`, what
    was begun is brought to its end and nothing new is begun.
    """

    lead: Lead
    until: float
    leaving: bool = False
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)


class Leading:
    """Takes, keeps and hands back shards.

    Args:
        members: the living schedulers.
        leases: leases of the shards.
        shards: how many shards there are.
        instance: id of this process.
        length: length of a lease, and of the life of a member.
    """

    def __init__(
        self,
        members: MemberStore,
        leases: LeaseStore,
        shards: int,
        instance: str,
        length: timedelta,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._members = members
        self._leases = leases
        self._shards = shards
        self._instance = instance
        self._length = length
        self._clock = clock
        self._held: dict[int, Held] = {}
        self._draining = False
        self._satisfied = True
        self._changing = asyncio.Lock()
        metrics.watch_shards(lambda: len(self.held()), shards)
        self.period = min(length.total_seconds() / 4, _LONGEST_PERIOD)

    def held(self) -> list[Held]:
        """The shards that are led now."""
        now = self._clock.monotonic()
        return [held for held in self._held.values() if held.until > now and not held.leaving]

    def leases(self) -> list[Lease]:
        """The leases of the shards that are led now, as the administration shows them."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        return [
            Lease(
                shard=held.lead.shard,
                fence=held.lead.fence,
                expire_time=to_timestamp(now + timedelta(seconds=held.until - monotonic)),
            )
            for held in self.held()
        ]

    def check(self, lead: Lead) -> None:
        """Raise LeadLostError unless the lease is known to hold."""
        held = self._held.get(lead.shard)
        if held is None or held.lead != lead or held.until <= self._clock.monotonic():
            raise LeadLostError(lead)

    def lose(self, lead: Lead) -> None:
        """Forget a shard that another leads."""
        held = self._held.get(lead.shard)
        if held is not None and held.lead == lead:
            del self._held[lead.shard]
            _log.warning("lost a shard", shard=lead.shard, fence=lead.fence)

    async def run(self) -> None:
        """Keep the share until cancelled."""
        while True:
            try:
                await self.balance()
            except UnavailableError as error:
                _log.warning("the store is away; leases run out", reason=error.reason)
            await asyncio.sleep(self.period if self._satisfied else min(_SHORT_PERIOD, self.period))

    async def balance(self) -> None:
        """Announce this process, keep what is held, and move towards the fair share. Raises UnavailableError."""
        async with self._changing:
            if not self._draining:
                await self._balance()

    async def _balance(self) -> None:
        members = await self._members.beat(self._instance, self._length)
        await asyncio.gather(*(self._renew(held) for held in list(self._held.values())))
        place = members.index(self._instance)
        share = self._shards // len(members) + (place < self._shards % len(members))
        for held in list(self._held.values())[share:]:
            await self._hand_back(held)
        # Each begins to look at another place, so that not all ask for the same.
        start = place * self._shards // len(members)
        order = [(start + step) % self._shards for step in range(self._shards)]
        others = [shard for shard in order if shard not in self._held]
        while others and (missing := share - len(self._held)) > 0:
            await asyncio.gather(*(self._take(shard) for shard in others[:missing]))
            others = others[missing:]
        self._satisfied = len(self._held) >= share

    async def drain(self, draining: bool) -> None:
        """Hand everything back and take nothing, or take part again. Raises UnavailableError."""
        self._draining = draining
        if draining:
            await self.leave()

    async def leave(self) -> None:
        """Hand everything back, for others to take at once. Raises UnavailableError."""
        async with self._changing:
            await self._members.leave(self._instance)
            await asyncio.gather(*(self._hand_back(held) for held in list(self._held.values())))

    async def _renew(self, held: Held) -> None:
        asked = self._clock.monotonic()
        lead = held.lead
        if await self._leases.renew(keys.shard_lease(lead.shard), lead.owner, lead.fence, self._length):
            held.until = asked + self._length.total_seconds()
        else:
            self.lose(lead)

    async def _take(self, shard: int) -> None:
        asked = self._clock.monotonic()
        fence = await self._leases.take(keys.shard_lease(shard), self._instance, self._length)
        if fence is not None:
            lead = Lead(shard, self._instance, fence)
            self._held[shard] = Held(lead, asked + self._length.total_seconds())
            _log.info("leads a shard", shard=shard, fence=fence)

    async def _hand_back(self, held: Held) -> None:
        lead = held.lead
        held.leaving = True
        async with held.busy:
            self._held.pop(lead.shard, None)
            await self._leases.release(keys.shard_lease(lead.shard), lead.owner, lead.fence)
        _log.info("handed a shard back", shard=lead.shard, fence=lead.fence)
