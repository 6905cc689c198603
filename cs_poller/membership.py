"""This instance among the living ones: its heartbeat in the store, and who else polls.

Theory of operation. An instance that did not say for the length of `life` that it lives is dead to all others, which
adopt its tasks and poll in its place. So it polls only while its own last word is young enough: what it received while
it counts as dead, another might adopt at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from cs_core.errors import UnavailableError
from cs_core.store.members import MemberStore

_log = structlog.get_logger(__name__)
_WORDS = 4
"""Words in the time that one lasts: three may be lost."""


class Membership:
    """Says again and again that this instance lives.

    Args:
        store: the members of the service.
        instance: this one.
        on_change: called after the members changed.
        life: how long one word lasts.
    """

    def __init__(
        self,
        store: MemberStore,
        instance: str,
        on_change: Callable[[], None],
        life: timedelta,
    ) -> None:
        self.instance = instance
        self.members: Sequence[str] = ()
        self._store = store
        self._on_change = on_change
        self._life = life
        self._every = life.total_seconds() / _WORDS
        self._living = asyncio.Event()
        self._lapse: asyncio.TimerHandle | None = None

    async def wait_living(self) -> None:
        """Wait until this instance counts as living."""
        await self._living.wait()

    async def run(self) -> None:
        """Say so for ever."""
        while True:
            try:
                await self.beat()
            except UnavailableError as error:
                _log.info("did not say that this instance lives", error=error.message)
            await asyncio.sleep(self._every)

    async def beat(self) -> None:
        """Say so once. Raises UnavailableError."""
        loop = asyncio.get_running_loop()
        # From before the call: the store's count begins no earlier.
        until = loop.time() + self._life.total_seconds() * 0.75
        members = await self._store.beat(self.instance, self._life)
        if self._lapse is not None:
            self._lapse.cancel()
        self._lapse = loop.call_at(until, self._living.clear)
        self._living.set()
        if members != self.members:
            self.members = members
            _log.info("pollers changed", members=members)
            self._on_change()

    async def leave(self) -> None:
        """Say that this instance is gone; others adopt its tasks at once."""
        self._living.clear()
        if self._lapse is not None:
            self._lapse.cancel()
        try:
            await self._store.leave(self.instance)
        except UnavailableError:
            _log.info("left without a word")
