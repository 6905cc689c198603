"""Permits: how many tasks of one worker binding this process may hold at once."""

from __future__ import annotations

import asyncio


class Permits:
    """A counter with a wait, whose total may change at any time.

    A permit is taken before a poll and held until the task that it brought is answered, or the poll brought none.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._freed = asyncio.Event()

    @property
    def taken(self) -> int:
        """Permits that are held; more than `total` after it shrank, or when tasks were adopted."""
        return self._taken

    async def acquire(self) -> None:
        """Take a permit when one is free."""
        while self._taken >= self.total:
            self._freed.clear()
            await self._freed.wait()
        self._taken += 1

    def occupy(self) -> None:
        """Count in a task that is here already, free permit or not."""
        self._taken += 1

    def release(self) -> None:
        """Give a permit back."""
        if self._taken == 0:
            raise RuntimeError("a permit was released twice")
        self._taken -= 1
        self._freed.set()

    def resize(self, total: int) -> None:
        """Change the total. Permits that are held stay held."""
        self.total = total
        self._freed.set()
