"""The mutation log of a tenant: appended to in the same step as the change."""

from __future__ import annotations

import hashlib
import re

from codesous.control.v1.mutation_pb2 import LifecycleMutation

from cs_core.store import keys
from cs_core.store.client import KvClient
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
    transaction.write("XADD", keys.mutations(stamped.tenant), "*", "m", stamped.SerializeToString())
    # In the same step: whoever is woken finds the entry.
    transaction.publish(keys.mutation_bell(), stamped.tenant)


def is_position(text: str) -> bool:
    """Whether a text is a position of the mutation log: milliseconds since the epoch, `-`, and a number."""
    return _POSITION.fullmatch(text) is not None


class MutationLog:
    """Reads the mutation log. Positions are those of `is_position`; a later mutation has a greater one."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def read(self, tenant: str, *, after: str, limit: int) -> list[tuple[str, LifecycleMutation]]:
        """Read mutations after a position (empty: from the oldest), each with its position."""
        lowest = f"({after}" if after else "-"
        entries = await self._client.call("XRANGE", keys.mutations(tenant), lowest, "+", "COUNT", limit)
        return [(position.decode(), LifecycleMutation.FromString(fields[1])) for position, fields in entries]

    async def last(self, tenant: str) -> str:
        """The position of the newest mutation; `OLDEST` when there is none."""
        entries = await self._client.call("XREVRANGE", keys.mutations(tenant), "+", "-", "COUNT", 1)
        return entries[0][0].decode() if entries else OLDEST
