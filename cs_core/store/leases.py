"""Leases with a fence: the right to lead something, held by one process at a time.

The fence is a number that grows with every change of hands. Whatever a holder changes checks it in the same step as the
change, so a holder that was replaced without knowing it changes nothing. Leases are measured by the server's clock.
"""

from __future__ import annotations

from datetime import timedelta

from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

_TAKE, _RENEW, _RELEASE = (load_script("cs_core.store", f"{verb}_lease") for verb in ("take", "renew", "release"))


class LeaseStore:
    """Leases by their keys. Every method raises UnavailableError when the store does not answer."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def take(self, key: str, owner: str, length: timedelta) -> int | None:
        """Take a lease that is free for `length`; its fence, from 1, or None while another holds it."""
        taken, number = await self._client.script(_TAKE, [key], [owner, _ms(length)])
        return int(number) if taken else None

    async def renew(self, key: str, owner: str, fence: int, length: timedelta) -> bool:
        """Hold a lease for `length` from now; False when another took it."""
        return bool(await self._client.script(_RENEW, [key], [owner, fence, _ms(length)]))

    async def release(self, key: str, owner: str, fence: int) -> bool:
        """Hand a lease back; False when another took it."""
        return bool(await self._client.script(_RELEASE, [key], [owner, fence]))


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
