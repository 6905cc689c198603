"""How a change of a schedule comes from its tenant's slot to its shard's, whatever dies on the way.

Theory of operation. The record in the tenant's slot is the truth; it is changed together with its mutation. The shard
has a copy beside the cursor. No step spans two slots, so a change goes: an intent in the shard's slot, the change, the
copy, and the intent is withdrawn. Who dies in between leaves the intent; the shard's leader reads the record and makes
the copy. A copy is made only of a newer generation, and what it does to the cursor follows from the record alone, so
it does not matter who makes it or how often. A deletion is final, because a uid is never used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.schedule_pb2 import Schedule, ScheduleState
from codesous.storage.v1.records_pb2 import ScheduleIntent, ScheduleRecord

from cs_core.clock import Clock
from cs_core.errors import UnavailableError
from cs_core.schedules.rule import Rule, stamp_ms
from cs_core.store.schedules import ScheduleStore
from cs_core.store.shards import ShardStore

_log = structlog.get_logger(__name__)
Change = Callable[[ScheduleRecord | None], tuple[ScheduleRecord | None, LifecycleMutation] | None]
INTENT_AGE: Final = timedelta(seconds=1)
"""How old an intent is before somebody else looks after its change."""
INTENT_LIFE: Final = timedelta(seconds=60)
"""How old an intent is before its change cannot be made any more."""
_CHANGE_WITHIN: Final = INTENT_LIFE / 2
_SWEEP_BATCH: Final = 100
_POLL: Final = 0.01
_SETTLE_WITHIN: Final = 10.0


def rule_of(schedule: Schedule) -> Rule:
    """The rule by which a schedule ticks."""
    return Rule(schedule.uid, schedule.spec, stamp_ms(schedule.create_time))


class Placing:
    """Makes changes of schedules, and brings them to the shards."""

    def __init__(self, schedules: ScheduleStore, shards: ShardStore, clock: Clock) -> None:
        self._schedules = schedules
        self._shards = shards
        self._clock = clock

    async def change(self, intent: ScheduleIntent, change: Change) -> ScheduleRecord | None:
        """Change a schedule; when this returns, its shard goes by the change. Returns the record as it is afterwards.

        Raises:
            UnavailableError: the store does not answer; whether the change was made is then not known.
            CodeSousError: whatever `change` raises.
        """
        await self._shards.announce(intent)
        started = self._clock.monotonic()

        def in_time(present: ScheduleRecord | None) -> tuple[ScheduleRecord | None, LifecycleMutation] | None:
            # Later than this the intent may be gone, and a copy that is lost would not be made up for.
            if self._clock.monotonic() - started > _CHANGE_WITHIN.total_seconds():
                raise UnavailableError("CS_STORE_UNAVAILABLE", "the store is too slow")
            return change(present)

        try:
            record = await self._schedules.change(intent.tenant, intent.namespace, intent.schedule, in_time)
        except UnavailableError:
            raise
        except Exception:
            await self._shards.withdraw(intent)
            raise
        await self._place(intent.uid, record)
        await self._shards.withdraw(intent)
        return record

    async def settled(self, uid: str) -> None:
        """Return when no tick of a schedule is being published by a leader that lives.

        A tick that a dead leader claimed is settled by the next one, which publishes it only if the schedule still
        ticks.

        Raises:
            UnavailableError: the leader does not come to an end with it.
        """
        shard = self._shards.shard(uid)
        deadline = self._clock.monotonic() + _SETTLE_WITHIN
        while self._clock.monotonic() < deadline:
            placed, leader, now = await asyncio.gather(
                self._shards.get(uid), self._shards.leader(shard), self._shards.server_ms()
            )
            if placed is None or not placed.claim or leader is None:
                return
            fence, until = leader
            if placed.claim_fence != fence or until <= now:
                return
            await asyncio.sleep(_POLL)
        raise UnavailableError("CS_STORE_UNAVAILABLE", "a tick of the schedule is still being published; try again")

    async def sweep(self, shard: int) -> int:
        """Make up for changes that somebody announced to a shard and did not bring to an end; returns how many."""
        intents = await self._shards.intents(shard, INTENT_AGE, _SWEEP_BATCH)
        for intent, age in intents:
            try:
                await self._repair(intent)
            except UnavailableError:
                raise
            except Exception:  # noqa: BLE001 - one schedule must not stop its neighbours
                _log.exception("a change cannot be brought to its shard", schedule_uid=intent.uid, shard=shard)
            if age > INTENT_LIFE:
                await self._shards.withdraw(intent)
        return len(intents)

    async def _repair(self, intent: ScheduleIntent) -> None:
        record = await self._schedules.get(intent.tenant, intent.namespace, intent.schedule)
        if record is not None and record.schedule.uid == intent.uid:
            await self._place(intent.uid, record)
        elif await self._shards.get(intent.uid) is not None:
            # It was placed, so it was there once; and now it is not.
            await self._place(intent.uid, None)

    async def _place(self, uid: str, record: ScheduleRecord | None) -> str:
        if record is None or record.schedule.uid != uid:
            return await self._shards.place(uid, None, "DELETED", None, 0)
        schedule = record.schedule
        if schedule.status.state == ScheduleState.SCHEDULE_STATE_PAUSED:
            return await self._shards.place(uid, record, "PAUSED", None, 0)
        rule = rule_of(schedule)
        nominal = rule.after(stamp_ms(record.cursor_time))
        look = 0 if nominal is None else rule.due(nominal)
        return await self._shards.place(uid, record, "ACTIVE", nominal, look)
