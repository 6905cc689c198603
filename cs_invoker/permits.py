"""Permits: how many activations this process may hold at once, and a wait for a free one."""

from __future__ import annotations

import asyncio


class Permits:
    """A counter with a wait. A permit is held from the receipt of a message until its work is over."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError("at least one permit is needed")
        self.total = total
        self._taken = 0
        self._freed = asyncio.Event()
        self._freed.set()
        self._closed = False

    @property
    def free(self) -> int:
        """Permits that nobody holds."""
        return self.total - self._taken

    @property
    def taken(self) -> int:
        """Permits that are held."""
        return self._taken

    async def wait_free(self) -> int:
        """Wait until at least one permit is free, or `close`; return how many are free."""
        await self._freed.wait()
        return self.free

    def take(self) -> None:
        """Take one permit. Raises RuntimeError when none is free: the caller received more than it asked for."""
        if self._taken >= self.total:
            raise RuntimeError("no permit is free")
        self._taken += 1
        if self._taken == self.total and not self._closed:
            self._freed.clear()

    def release(self) -> None:
        """Give one permit back."""
        if self._taken == 0:
            raise RuntimeError("a permit was released twice")
        self._taken -= 1
        self._freed.set()

    def close(self) -> None:
        """Wake whoever waits, for good: no more permits will be asked for."""
        self._closed = True
        self._freed.set()
