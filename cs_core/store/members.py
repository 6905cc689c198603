"""The living instances of a service: each says so again and again, and learns who else does."""

from __future__ import annotations

from datetime import timedelta

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_BEAT = load_script("cs_core.store", "beat")


class MemberStore:
    """The members of one service. Lives are measured by the store's clock, so clocks of processes do not matter."""

    def __init__(self, client: KvClient, service: str) -> None:
        self._client = client
        self._key = keys.members(service)

    async def beat(self, instance: str, life: timedelta) -> list[str]:
        """Be a member for `life` from now; returns all members, in one order for everybody. Raises UnavailableError."""
        return await self._call(instance, int(life.total_seconds() * 1000))

    async def leave(self, instance: str) -> list[str]:
        """Be a member no more; returns those that are left. Raises UnavailableError."""
        return await self._call(instance, 0)

    async def living(self) -> list[str]:
        """All members, in one order for everybody. Raises UnavailableError."""
        # What leaves has no name, so nobody does.
        return await self._call("", 0)

    async def _call(self, instance: str, life_ms: int) -> list[str]:
        reply = await self._client.script(_BEAT, [self._key], [instance, life_ms])
        return sorted(member.decode() for member in reply)
