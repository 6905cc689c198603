"""cs-control with the guard of its relay off: the cursor moves before the ledger has what it stands for.

Chaos tests run it to show that they would notice. `python -m tests.support.careless_control --config FILE`.
"""

from __future__ import annotations

import sys
from datetime import timedelta

from cs_control import __main__ as control
from cs_core.audit.contract import LedgerEntry
from cs_core.audit.relay import Relay
from cs_core.store.relay import Listing


class CarelessRelay(Relay):
    """Relays at most once."""

    async def _relay(self, listing: Listing, token: int) -> bool:
        waiting = await self._store.waiting(listing.tenant, self._settings.batch)
        if waiting:
            since = self._clock.now() - timedelta(seconds=self._settings.retention)
            await self._store.advance(listing.tenant, waiting[-1][0], since, token)
            head = await self._ledger.append([LedgerEntry(*each) for each in waiting])
            await self._store.set_head(self._settings.name, head, token)
        return not await self._store.unlist(listing, token)


if __name__ == "__main__":
    control.Relay = CarelessRelay  # type: ignore[misc]
    sys.exit(control.main())
