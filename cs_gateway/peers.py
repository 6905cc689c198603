"""How many gateways live: limits of the installation are divided by it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from cs_core.errors import UnavailableError
from cs_core.store.members import MemberStore

_log = structlog.get_logger(__name__)
LIFE: Final = timedelta(seconds=10)
_EVERY: Final = 2.5


class Peers:
    """This gateway among the living ones. With the store away, the last count stands."""

    def __init__(self, members: MemberStore, instance: str) -> None:
        self._members = members
        self._instance = instance
        self._count = 1

    def count(self) -> int:
        """Gateways that live, this one included."""
        return self._count

    async def run(self) -> None:
        """Say that this gateway lives until cancelled, and learn who else does; at the end, say that it is gone."""
        try:
            while True:
                try:
                    await self.beat()
                except UnavailableError as error:
                    _log.info("the gateways could not be counted", reason=error.reason)
                await asyncio.sleep(_EVERY)
        finally:
            try:
                await self._members.leave(self._instance)
            except UnavailableError:
                _log.info("left without a word; the others count this gateway until its time is over")

    async def beat(self) -> None:
        """Say it once. Raises UnavailableError."""
        self._count = max(1, len(await self._members.beat(self._instance, LIFE)))
