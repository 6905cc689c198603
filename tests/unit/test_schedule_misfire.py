"""Which missed ticks are made up for, and which are dropped."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from codesous.control.v1.schedule_pb2 import SchedulePolicies, ScheduleSpec

from cs_core.schedules.misfire import GRACE, judge
from cs_core.schedules.rule import Rule, to_ms

START = to_ms(datetime(2026, 1, 1, tzinfo=UTC))
MINUTE = 60_000


def rule(kind: str = "interval") -> Rule:
    """Every minute."""
    spec = ScheduleSpec(cron="* * * * *") if kind == "cron" else ScheduleSpec()
    if kind == "interval":
        spec.interval.FromSeconds(60)
    return Rule("uid", spec, START)


def keep(ticks: int) -> SchedulePolicies:
    return SchedulePolicies(max_catchup_ticks=ticks)


@pytest.mark.parametrize("kind", ["interval", "cron"])
@pytest.mark.parametrize(
    ("late", "catchup", "dropped", "stay"),
    [
        (-1, 60, 0, []),
        (0, 60, 0, [0]),
        (0, 0, 0, [0]),
        (int(GRACE.total_seconds() * 1000), 0, 0, [0]),
        (int(GRACE.total_seconds() * 1000) + 1, 0, 1, []),
        (int(GRACE.total_seconds() * 1000) + 1, 1, 0, [0]),
        (3 * MINUTE, 60, 0, [0, 1, 2, 3]),
        (3 * MINUTE, 2, 1, [1, 2, 3]),
        (3 * MINUTE, 0, 3, [3]),
        (3 * MINUTE + 31_000, 2, 2, [2, 3]),
        (100 * MINUTE, 60, 40, list(range(40, 101))),
    ],
)
def test_the_newest_are_kept(kind: str, late: int, catchup: int, dropped: int, stay: list[int]) -> None:
    overdue = judge(rule(kind), START, START + late, keep(catchup))
    assert overdue.dropped == dropped
    assert overdue.stay == tuple(START + number * MINUTE for number in stay)
    assert overdue.next_ms == START + (stay[0] if stay else dropped) * MINUTE


def test_the_default_is_sixty() -> None:
    assert judge(rule(), START, START + 1000 * MINUTE, SchedulePolicies()).dropped == 940


def test_more_than_can_be_listed_is_dropped_in_portions_that_add_up() -> None:
    nominal, now, dropped = START, START + 10_000 * MINUTE, 0
    for _ in range(20):
        overdue = judge(rule("cron"), nominal, now, keep(5))
        if not overdue.dropped:
            break
        dropped += overdue.dropped
        assert overdue.next_ms is not None
        nominal = overdue.next_ms
    assert dropped == 10_000 - 5
    assert nominal == START + dropped * MINUTE


def test_after_the_last_tick_there_is_none() -> None:
    spec = ScheduleSpec()
    spec.once.FromMilliseconds(START)
    overdue = judge(Rule("uid", spec, 0), START, START + MINUTE, keep(0))
    assert (overdue.dropped, overdue.stay, overdue.next_ms) == (1, (), None)
