"""The next ticks of a schedule, and what would become of each if nothing changed."""

from __future__ import annotations

from typing import Final

from codesous.control.v1.schedule_pb2 import OverlapPolicy, Schedule, ScheduleState, ScheduleTick, TickOutcome
from codesous.control.v1.version_pb2 import Version
from codesous.storage.v1.records_pb2 import ScheduleRecord

from cs_control.schedule_status import next_nominal
from cs_control.schedules import check_names
from cs_core.clock import Clock, to_timestamp
from cs_core.errors import CodeSousError, NotFoundError, UnavailableError, ValidationError
from cs_core.schedules import misfire
from cs_core.schedules.placing import rule_of
from cs_core.schedules.rule import from_ms, to_ms
from cs_core.schedules.runs import Runs
from cs_core.store.schedules import ScheduleStore
from cs_core.store.shards import Placed, ShardStore

COUNT_DEFAULT: Final = 10
COUNT_MAX: Final = 100
_PUBLISHED: Final = TickOutcome.TICK_OUTCOME_PUBLISHED


class Previews:
    """Previews schedules."""

    def __init__(self, store: ScheduleStore, shards: ShardStore, runs: Runs, clock: Clock) -> None:
        self._store = store
        self._shards = shards
        self._runs = runs
        self._clock = clock

    async def preview(self, tenant: str, namespace: str, name: str, count: int) -> list[ScheduleTick]:
        """The next `count` ticks (0: 10, at most 100), soonest first. Raises ValidationError or NotFoundError."""
        check_names(namespace, name)
        if not 0 <= count <= COUNT_MAX:
            raise ValidationError.field("count", f"must be 0 to {COUNT_MAX}")
        record = await self._store.get(tenant, namespace, name)
        if record is None:
            raise NotFoundError("schedule", f"{namespace}/{name}")
        placed = await self._shards.get(record.schedule.uid)
        ticks = self._ticks(record, placed, count or COUNT_DEFAULT)
        await self._judge(record.schedule, placed, ticks)
        return ticks

    def _ticks(self, record: ScheduleRecord, placed: Placed | None, count: int) -> list[ScheduleTick]:
        schedule = record.schedule
        rule, now = rule_of(schedule), to_ms(self._clock.now())
        number = 1 if placed is None else placed.tick
        nominal = next_nominal(record, placed)
        found: list[ScheduleTick] = []
        if schedule.status.state == ScheduleState.SCHEDULE_STATE_PAUSED:
            nominal = rule.after(now)
        elif nominal is not None:
            overdue = misfire.judge(rule, nominal, now, schedule.policies)
            if overdue.dropped:
                found.append(_tick(number, rule.due(nominal), TickOutcome.TICK_OUTCOME_DROPPED))
                found[0].last_tick = number + overdue.dropped - 1 if overdue.dropped > 1 else 0
                found[0].message = f"{overdue.dropped} of the ticks that were missed are too many to make up for"
                number, nominal = number + overdue.dropped, overdue.next_ms
        while nominal is not None and len(found) < count:
            found.append(_tick(number, rule.due(nominal), _PUBLISHED))
            number, nominal = number + 1, rule.after(nominal)
        return found

    async def _judge(self, schedule: Schedule, placed: Placed | None, ticks: list[ScheduleTick]) -> None:
        """Tell of those that would not be published why."""
        if schedule.status.state == ScheduleState.SCHEDULE_STATE_PAUSED:
            for tick in ticks:
                tick.outcome = TickOutcome.TICK_OUTCOME_SKIPPED
                tick.message = "the schedule is paused"
            return
        try:
            version = await self._runs.admit(schedule)
        except UnavailableError:
            raise
        except CodeSousError as error:
            for tick in ticks:
                if tick.outcome == _PUBLISHED:
                    tick.outcome = TickOutcome.TICK_OUTCOME_REFUSED
                    tick.reason, tick.message = error.reason, error.message
            return
        skips = schedule.policies.overlap in (
            OverlapPolicy.OVERLAP_POLICY_UNSPECIFIED,
            OverlapPolicy.OVERLAP_POLICY_SKIP,
        )
        if skips and placed is not None and placed.marker and await self._runs.is_open(schedule, placed.marker):
            self._skip(placed, version, ticks)

    def _skip(self, placed: Placed, version: Version, ticks: list[ScheduleTick]) -> None:
        """Ticks that come up while the one that runs now may still run."""
        longest = to_ms(self._clock.now() + version.config.worker_timeout.ToTimedelta())
        for tick in ticks:
            if tick.outcome == _PUBLISHED and tick.due_time.ToMilliseconds() <= longest:
                tick.outcome = TickOutcome.TICK_OUTCOME_SKIPPED
                tick.message = f"unless activation {placed.marker} of a tick before has ended by then"


def _tick(number: int, due: int, outcome: TickOutcome.ValueType) -> ScheduleTick:
    return ScheduleTick(tick=number, due_time=to_timestamp(from_ms(due)), outcome=outcome)
