"""Brings a store to the schema of this release, step by step.

Theory of operation. A lease lets one migrator work at a time. It is for economy and order, not for safety: steps leave
alone what is done, so two that overlap do the same twice, and the version goes up only from the one before. A step
walks the keys of its prefix; when it is through, the record tells its version. Killed in between, the next run begins
the step again and finds less to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from cs_core.backoff import Backoff
from cs_core.clock import Clock
from cs_core.errors import ConflictError
from cs_core.ids import instance_id
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.leases import LeaseStore
from cs_core.store.migrations import activation_ends, relay_listing, user_value_books
from cs_core.store.migrations.step import Step
from cs_core.store.schema import VERSION, SchemaStore, judge

STEPS: Final[tuple[Step, ...]] = (relay_listing.STEP, activation_ends.STEP, user_value_books.STEP)
_LEASE: Final = timedelta(seconds=15)
_TOGETHER: Final = 64
"""Keys that are worked on at once."""


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What a step did: how many records it changed, or in a dry run would change, of how many keys."""

    step: Step
    changed: int
    keys: int


Tell = Callable[[StepOutcome], None]


class Migrator:
    """Migrates one store. `wait` is how long it waits for another migrator to end."""

    def __init__(
        self,
        client: KvClient,
        clock: Clock,
        steps: Sequence[Step] = STEPS,
        wait: timedelta = timedelta(minutes=10),
    ) -> None:
        self._client = client
        self._clock = clock
        self._schema = SchemaStore(client, clock)
        self._leases = LeaseStore(client)
        self._steps = steps
        self._wait = wait
        self._owner = instance_id("migrator")

    async def version(self) -> int:
        """The version of the store; the newest one for an empty store, which needs none of the steps.

        Raises:
            UnavailableError: the store does not answer.
        """
        record = await self._schema.read()
        return VERSION if record is None else record.version

    async def plan(self, tell: Tell) -> None:
        """Tell, of every step that is left, what it would do. Nothing is changed.

        Raises:
            StoreSchemaError: the store is newer than this release.
            UnavailableError: the store does not answer.
        """
        for step in await self._left():
            tell(await self._run(step, None))

    async def migrate(self, tell: Tell) -> None:
        """Take every step that is left, and tell what each did.

        Raises:
            ConflictError: another migrator went on for longer than the wait (`CS_CONFLICT_CONCURRENT`), or took the
                lease of this one.
            StoreSchemaError: the store is newer than this release.
            UnavailableError: the store does not answer. What was done stays done.
        """
        if not await self._left():
            return
        fence = await self._take()
        try:
            # What is left may be less by now: another has just ended.
            for step in await self._left():
                outcome = await self._run(step, fence)
                await self._schema.advance(step.version, step.readable_from)
                tell(outcome)
        finally:
            await asyncio.shield(self._leases.release(keys.schema_lease(), self._owner, fence))

    async def _left(self) -> list[Step]:
        record = await self._schema.read()
        if record is None:
            return []
        newest = max((step.version for step in self._steps), default=0)
        if record.version > newest:
            judge(record, newest)
        return [step for step in self._steps if step.version > record.version]

    async def _take(self) -> int:
        backoff, until = Backoff(), self._clock.monotonic() + self._wait.total_seconds()
        while (fence := await self._leases.take(keys.schema_lease(), self._owner, _LEASE)) is None:
            if self._clock.monotonic() >= until:
                raise ConflictError("CS_CONFLICT_CONCURRENT", "the store is being migrated by another process")
            await asyncio.sleep(backoff.next())
        return fence

    async def _run(self, step: Step, fence: int | None) -> StepOutcome:
        """Walk the keys of a step; without a fence, only look."""
        changed = seen = 0
        async for page in self._client.scan(step.prefix):
            concerned = (key for raw in page if step.concerns(key := raw.decode()))
            while portion := list(islice(concerned, _TOGETHER)):
                done = await asyncio.gather(*(step.change(self._client, key, dry=fence is None) for key in portion))
                changed, seen = changed + sum(done), seen + len(portion)
            if fence is not None and not await self._leases.renew(keys.schema_lease(), self._owner, fence, _LEASE):
                raise ConflictError("CS_CONFLICT_CONCURRENT", "another process has taken the migration over")
        return StepOutcome(step, changed, seen)
