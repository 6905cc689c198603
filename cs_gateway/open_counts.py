"""How many activations of a tenant are open, counted often enough to hold it to its limit.

Theory of operation: the store counts. Between two counts, what this gateway accepts is added, and what ends is not
taken off: so what is known errs on the side of too many, but for what other gateways accepted within the last tenth of
a second. Nobody is refused on what is known alone: at the limit the store counts again, for each request.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cs_core.clock import Clock
from cs_core.store.activations import ActivationStore

FRESH: Final = 0.1
"""Seconds for which a count is used."""
_TENANTS: Final = 10_000


@dataclass(slots=True)
class _Count:
    """`counted` is what the store said, less what had been accepted here before it was asked."""

    counted: int
    accepted: int
    until: float


class OpenCounts:
    """Counts of open activations by tenant."""

    def __init__(self, activations: ActivationStore, clock: Clock) -> None:
        self._activations = activations
        self._clock = clock
        self._counts: OrderedDict[str, _Count] = OrderedDict()

    async def at_limit(self, tenant: str, limit: int) -> int:
        """The tenant's open activations if they are `limit` or more, else 0. Raises UnavailableError."""
        now = self._clock.monotonic()
        known = self._counts.get(tenant)
        if known is not None and known.counted + known.accepted < limit:
            if now < known.until:
                return 0
            # One asks; the others go on with what is known.
            known.until = now + FRESH
        before = 0 if known is None else known.accepted
        found = await self._activations.count_open(tenant)
        count = self._counts.setdefault(tenant, _Count(0, before, 0.0))
        count.counted, count.until = found - before, self._clock.monotonic() + FRESH
        if len(self._counts) > _TENANTS:
            self._counts.popitem(last=False)
        return found if found >= limit else 0

    def add(self, tenant: str) -> None:
        """This gateway accepts one."""
        known = self._counts.get(tenant)
        if known is not None:
            known.accepted += 1
