"""An activation's record as an operator looks at it, at the server's time; and the search for one by its id alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_LOOK = load_script("cs_core.store", "look")
SEARCHED_MAX: Final = 100_000
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Look:
    """A record; times are ms since the epoch by the server's clock, which said `now_ms` when it was read."""

    now_ms: int
    state: str
    owner: str
    lease_until_ms: int
    next_ms: int
    attempt: int
    request: InvocationRequest
    result: InvocationResult | None


class ActivationLooks:
    """Reads records. Every method raises UnavailableError when the store does not answer."""

    def __init__(self, client: KvClient, partitions: int) -> None:
        self._client = client
        self._partitions = partitions

    async def find_tenant(self, activation_id: str) -> str:
        """The tenant of an activation that has not ended; empty when none of those that are looked at is it."""
        left = SEARCHED_MAX
        for partition in range(self._partitions):
            start = 0
            while left > 0:
                names = await self._client.call("ZRANGE", keys.ends(partition), start, start + min(_PAGE, left) - 1)
                for name in names:
                    tenant, _, found = name.decode().partition("/")
                    if found == activation_id:
                        return str(tenant)
                left -= len(names)
                start += len(names)
                if len(names) < _PAGE:
                    break
        return ""

    async def look(self, tenant: str, activation_id: str) -> Look | None:
        """The record; None when there is none."""
        partition = self.partition(tenant, activation_id)
        now, state, owner, lease, next_ms, attempt, request, result = await self._client.script(
            _LOOK, [keys.activation(partition, tenant, activation_id)], []
        )
        if state is None or request is None:
            return None
        return Look(
            now_ms=int(now),
            state=state.decode(),
            owner=(owner or b"").decode(),
            lease_until_ms=int(lease or 0),
            next_ms=int(next_ms or 0),
            attempt=int(attempt or 0),
            request=InvocationRequest.FromString(request),
            result=None if result is None else InvocationResult.FromString(result),
        )

    def partition(self, tenant: str, activation_id: str) -> int:
        """The partition of an activation's record and of its message."""
        return keys.partition_of(tenant, activation_id, self._partitions)
