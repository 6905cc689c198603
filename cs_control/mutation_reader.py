"""Reading what was changed: pages of the mutation log, and the stream of what is added to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from codesous.control.v1.mutation_pb2 import LifecycleMutation

from cs_core.changes import MutationFilter
from cs_core.clock import Clock
from cs_core.config import LimitSettings
from cs_core.errors import LimitError, ValidationError
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.mutations import MutationLog, is_position

LOOKED_AT: Final = 5_000
"""Mutations that one page looks at; a filter that fits none of them must not read a whole log in one call."""
_BATCH: Final = 500
SLOW_POLL: Final = 2.0
"""Seconds after which the log is read even if the bell did not ring."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A mutation, and the cursor to go on behind it; None: only the cursor."""

    cursor: str
    mutation: LifecycleMutation | None


class MutationReader:
    """Reads mutation logs."""

    def __init__(self, log: MutationLog, bell: MutationBell, limits: LimitSettings, clock: Clock) -> None:
        self._log = log
        self._bell = bell
        self._limits = limits
        self._clock = clock

    async def list_oldest_first(
        self, tenant: str, wanted: MutationFilter, *, after: str, limit: int
    ) -> tuple[list[LifecycleMutation], str | None]:
        """List mutations after a position (empty: all), and the position to go on after (None: that was all).

        Raises:
            ValidationError: the filter breaks a rule, or the position is none (`CS_VALIDATION_PAGE_TOKEN`).
            UnavailableError: the store does not answer.
        """
        wanted.check()
        if after and not is_position(after):
            raise ValidationError("CS_VALIDATION_PAGE_TOKEN", "page_token: was not given out by this list")
        found: list[tuple[str, LifecycleMutation]] = []
        position, looked_at = after, 0
        while looked_at < LOOKED_AT:
            entries = await self._log.read(tenant, after=position, limit=_BATCH)
            for position, mutation in entries:
                if not wanted.fits(mutation):
                    continue
                if len(found) == limit:
                    return [each for _, each in found], found[-1][0]
                found.append((position, mutation))
            if len(entries) < _BATCH:
                return [each for _, each in found], None
            looked_at += len(entries)
        return [each for _, each in found], position

    async def watch(self, tenant: str, cursor: str) -> AsyncIterator[Watched]:
        """Tell of each mutation after `cursor` as it comes; ends when the process stops or the watch is too old.

        Raises:
            ValidationError: the cursor is none.
            LimitError: the tenant has too many watches here (`CS_RATE_LIMITED`).
            UnavailableError: the store does not answer.
        """
        if cursor and not is_position(cursor):
            raise ValidationError.field("cursor", "must be one that this method gave out")
        if self._bell.count(tenant) >= self._limits.tenant_watches:
            raise LimitError(
                "CS_RATE_LIMITED",
                f"the tenant watches its mutations {self._limits.tenant_watches} times already",
                timedelta(seconds=self._limits.watch_length),
            )
        ends = self._clock.monotonic() + self._limits.watch_length
        with self._bell.following(tenant) as rung:
            at = cursor
            if not at:
                at = await self._log.last(tenant)
                yield Watched(at, None)
            while not self._bell.closing:
                # Cleared first: what is appended from here on is either read below or rings again.
                rung.clear()
                entries = await self._log.read(tenant, after=at, limit=_BATCH)
                for position, mutation in entries:
                    at = position
                    yield Watched(at, mutation)
                left = ends - self._clock.monotonic()
                if left <= 0:
                    return
                if len(entries) < _BATCH:
                    await _wait(rung, min(left, SLOW_POLL))


async def _wait(rung: asyncio.Event, longest: float) -> None:
    try:
        async with asyncio.timeout(longest):
            await rung.wait()
    except TimeoutError:
        pass
