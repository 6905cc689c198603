"""Slots: how many activations of a version run at once in the whole installation."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final

from codesous.type.v1.function_ref_pb2 import FunctionRef

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.scripts import load_script

DEFAULT_MAX_CONCURRENCY: Final = 100
"""Slots of a version that names no number."""
_TAKE, _RENEW = (load_script("cs_core.store", name) for name in ("take_slot", "renew_slot"))


class SlotStore:
    """The slots of versions, each held under a lease by an owner token."""

    def __init__(self, client: KvClient) -> None:
        self._client = client

    async def take(self, ref: FunctionRef, owner: str, most: int, lease: timedelta) -> bool:
        """Take one of `most` slots; False when all are taken. Raises UnavailableError."""
        return bool(await self._client.script(_TAKE, [_key(ref)], [owner, most, _ms(lease)]))

    async def renew(self, ref: FunctionRef, owner: str, lease: timedelta) -> bool:
        """Hold the slot for `lease` from now; False when it was lost. Raises UnavailableError."""
        return bool(await self._client.script(_RENEW, [_key(ref)], [owner, _ms(lease)]))

    def give_back(self, ref: FunctionRef, owner: str) -> asyncio.Future[Any]:
        """Free the slot; under way when this returns.

        Raises (when awaited): UnavailableError; the slot is then free when its lease has ended.
        """
        return self._client.call("ZREM", _key(ref), owner)

    async def count_live(self, ref: FunctionRef, now_ms: int) -> int:
        """Count the slots that are held under a lease at `now_ms`, a reading of the store's clock."""
        return int(await self._client.call("ZCOUNT", _key(ref), f"({now_ms}", "+inf"))

    async def count(self, ref: FunctionRef) -> int:
        """Count the slots that are taken, those included whose lease has ended since."""
        return int(await self._client.call("ZCARD", _key(ref)))


def _key(ref: FunctionRef) -> str:
    return keys.slots(ref.tenant, ref.namespace, ref.function, ref.version)


def _ms(length: timedelta) -> int:
    return int(length.total_seconds() * 1000)
