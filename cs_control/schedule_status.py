"""What is the case with a schedule: its record, and what its shard tells."""

from __future__ import annotations

from codesous.control.v1.schedule_pb2 import Schedule, ScheduleState
from codesous.storage.v1.records_pb2 import ScheduleRecord

from cs_core.clock import to_timestamp
from cs_core.schedules.placing import rule_of
from cs_core.schedules.rule import from_ms, stamp_ms
from cs_core.store.shards import Placed


def next_nominal(record: ScheduleRecord, placed: Placed | None) -> int | None:
    """The nominal time of the next tick in ms; None: there is none, or the schedule is paused."""
    if record.schedule.status.state == ScheduleState.SCHEDULE_STATE_PAUSED:
        return None
    if placed is not None and placed.generation >= record.cursor_generation:
        return placed.nominal_ms
    # The change is on its way to the shard.
    return rule_of(record.schedule).after(stamp_ms(record.cursor_time))


def with_status(record: ScheduleRecord, placed: Placed | None) -> Schedule:
    """The schedule as callers see it."""
    schedule = Schedule()
    schedule.CopyFrom(record.schedule)
    status = schedule.status
    nominal = next_nominal(record, placed)
    if nominal is not None:
        status.next_tick_time.CopyFrom(to_timestamp(from_ms(rule_of(schedule).due(nominal))))
    elif status.state == ScheduleState.SCHEDULE_STATE_ACTIVE:
        status.state = ScheduleState.SCHEDULE_STATE_COMPLETED
    if placed is not None:
        status.last_tick = placed.last_tick
        status.published_ticks = placed.published
        status.skipped_ticks = placed.skipped
        status.dropped_ticks = placed.dropped
        status.refused_ticks = placed.refused
        status.last_error_reason = placed.error_reason
        status.last_error_message = placed.error_message
    return schedule
