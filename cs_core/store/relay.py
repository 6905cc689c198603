"""What the relay of mutations keeps in the store: who relays, which tenants have something to relay, and how far it is.

Theory of operation. Mutations lie in the slots of their tenants, and the relay must find them without asking every
tenant. So there is an index of tenants; it lies in another slot and cannot be written in the step that commits a
change. Instead the commit requires that its tenant is *listed*, which the tenant's own slot tells:

- who wants to commit and finds the tenant not listed writes it into the index at the next generation, and then claims
  that generation in the tenant's slot;
- the relay, when nothing of a tenant is left, first clears the listing in the tenant's slot and uses up the generation
  that it saw in the index, and then takes the tenant out of the index if it still stands there at that generation.

Whatever dies in between, a tenant that is listed stands in the index: a claim fails when its generation was used up,
and the index is only cleared of a generation that was used up. An idle tenant costs nothing; a busy one pays for the
listing once, and one look at a field per commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from codesous.control.v1.mutation_pb2 import LifecycleMutation

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_LIST, _CLAIM, _UNLIST, _DROP, _ADVANCE, _LEASE, _RELEASE, _SET_HEAD = (
    load_script("cs_core.store", name)
    for name in (
        "list_tenant",
        "claim_listing",
        "unlist_tenant",
        "drop_listing",
        "advance_relay",
        "lease_relay",
        "release_relay",
        "set_ledger_head",
    )
)


class FencedError(Exception):
    """Another process relays by now; what this one was about to store was not stored."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A tenant whose mutations may wait, and the generation at which it stands in the index (0: it does not)."""

    tenant: str
    generation: int = 0


async def list_for_relay(client: KvClient, tenant: str) -> None:
    """Let the relay find a tenant, until nothing of it is left to relay. Raises UnavailableError."""
    generation = int(await client.call("HGET", keys.relay_state(tenant), "generation") or 0) + 1
    await client.script(_LIST, [keys.relay_tenants()], [tenant, generation])
    # Not claimed: another did it, or the relay was faster; the commit that needs it looks again.
    await client.script(_CLAIM, [keys.relay_state(tenant)], [generation])


class RelayStore:
    """The relay's part of the store. `token` is the fencing token that `lease` gave out."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def lease(self, holder: str, length: timedelta) -> int:
        """Take or renew the lease; returns its token, or 0 when another holds it."""
        return int(await self._client.script(_LEASE, [keys.relay_lease()], [holder, _ms(length)]))

    async def release(self, token: int) -> None:
        """End the lease, so that another need not wait for it."""
        await self._client.script(_RELEASE, [keys.relay_lease()], [token])

    async def head(self, ledger: str) -> str | None:
        """The head of a ledger as the relay last left it; None when it never did."""
        stored = await self._client.call("HGET", keys.ledger_head(ledger), "head")
        return None if stored is None else stored.decode()

    async def set_head(self, ledger: str, head: str, token: int) -> None:
        """Remember the head of a ledger. Raises FencedError."""
        if await self._client.script(_SET_HEAD, [keys.ledger_head(ledger)], [token, head]) != 1:
            raise FencedError

    async def listed(self) -> list[Listing]:
        """The tenants of whom something may wait, those first that have stood in the index for fewest generations."""
        found = await self._client.call("ZRANGE", keys.relay_tenants(), 0, -1, "WITHSCORES")
        return [Listing(name.decode(), int(float(score))) for name, score in zip(found[::2], found[1::2], strict=True)]

    async def waiting(self, tenant: str, limit: int) -> list[tuple[str, LifecycleMutation]]:
        """The oldest mutations of a tenant that were not relayed, each with its position."""
        cursor = await self._client.call("HGET", keys.relay_state(tenant), "cursor")
        lowest = "-" if cursor is None else f"({cursor.decode()}"
        entries = await self._client.call("XRANGE", keys.mutations(tenant), lowest, "+", "COUNT", limit)
        return [(position.decode(), LifecycleMutation.FromString(fields[1])) for position, fields in entries]

    async def advance(self, tenant: str, cursor: str, retained_since: datetime, token: int) -> int:
        """Note that everything up to `cursor` is in the ledger, and trim what is past retention.

        Returns the number of mutations that were trimmed. Raises FencedError.
        """
        since = max(0, int(retained_since.timestamp() * 1000))
        trimmed = await self._client.script(
            _ADVANCE, [keys.relay_state(tenant), keys.mutations(tenant)], [token, cursor, since]
        )
        if trimmed < 0:
            raise FencedError
        return int(trimmed)

    async def unlist(self, listing: Listing, token: int) -> bool:
        """Take a tenant out of the index unless something of it waits: False. Raises FencedError."""
        outcome = await self._client.script(
            _UNLIST,
            [keys.relay_state(listing.tenant), keys.mutations(listing.tenant)],
            [token, listing.generation],
        )
        if outcome < 0:
            raise FencedError
        if outcome == 1:
            await self._client.script(_DROP, [keys.relay_tenants()], [listing.tenant, listing.generation])
        return bool(outcome)


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
