"""The mutation log of a tenant: appended to in the same step as the change."""

from __future__ import annotations

import asyncio
import hashlib
import re

from codesous.control.v1.mutation_pb2 import LifecycleMutation

from cs_core.errors import ExpiredError
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.relay import list_for_relay
from cs_core.store.transaction import Transaction

OLDEST = "0-0"
"""The position before the first mutation."""
_POSITION = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})", re.ASCII)


def append_mutation(
    transaction: Transaction, mutation: LifecycleMutation, *, before: bytes | None, after: bytes | None
) -> None:
    """Append a mutation to its tenant's log when the transaction commits, with digests of the record it changes."""
    stamped = LifecycleMutation()
    stamped.CopyFrom(mutation)
    stamped.before_sha256 = "" if before is None else hashlib.sha256(before).hexdigest()
    stamped.after_sha256 = "" if after is None else hashlib.sha256(after).hexdigest()
    # Before the change can be seen, the relay can find its tenant.
    transaction.require(
        keys.relay_state(stamped.tenant), "listed", lambda client: list_for_relay(client, stamped.tenant)
    )
    transaction.write("XADD", keys.mutations(stamped.tenant), "*", "m", stamped.SerializeToString())
    # In the same step: whoever is woken finds the entry.
    transaction.publish(keys.mutation_bell(), stamped.tenant)


def is_position(text: str) -> bool:
    """Whether a text is a position of the mutation log: milliseconds since the epoch, `-`, and a number."""
    return _POSITION.fullmatch(text) is not None


def position_key(position: str) -> tuple[int, int]:
    """What positions are ordered by."""
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


class MutationLog:
    """Reads the mutation log. Positions are those of `is_position`; a later mutation has a greater one."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def read(self, tenant: str, *, after: str, limit: int) -> list[tuple[str, LifecycleMutation]]:
        """Read mutations after a position (empty: from the oldest), each with its position.

        Raises:
            ExpiredError: something after that position was trimmed (`CS_EXPIRED_CURSOR`).
        """
        lowest = f"({after}" if after else "-"
        # The entries first: what is trimmed in between must not look as if it had never been.
        entries, trimmed = await asyncio.gather(
            self._client.call("XRANGE", keys.mutations(tenant), lowest, "+", "COUNT", limit),
            self._client.call("HGET", keys.relay_state(tenant), "trimmed"),
        )
        if after and trimmed is not None and position_key(after) < position_key(trimmed.decode()):
            raise ExpiredError(
                "CS_EXPIRED_CURSOR",
                "mutations after this position are past the retention of the log; the ledger has them",
            )
        return [(position.decode(), LifecycleMutation.FromString(fields[1])) for position, fields in entries]

    async def last(self, tenant: str) -> str:
        """The position of the newest mutation; `OLDEST` when there is none."""
        entries = await self._client.call("XREVRANGE", keys.mutations(tenant), "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else OLDEST
