"""When schedules tick: clocks that change, months that end, leap days, jitter; and expressions that are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from codesous.control.v1.schedule_pb2 import ScheduleSpec
from hypothesis import given, settings
from hypothesis import strategies as st

from cs_core.clock import to_timestamp
from cs_core.schedules.rule import MAX_LISTED, CronError, Rule, check_cron, from_ms, timezones, to_ms

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> int:
    """A moment: local time, or with an offset of its own."""
    moment = datetime.fromisoformat(text)
    return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone)))


def local(rule: Rule, start: str, zone: str, count: int) -> list[str]:
    """The next ticks after a local time, as local times with their offsets."""
    found, moment = [], at(start, zone)
    for _ in range(count):
        following = rule.after(moment)
        if following is None:
            break
        assert following > moment
        moment = following
        found.append(from_ms(moment).astimezone(ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


def cron(expression: str, zone: str = "UTC", **fields: datetime) -> Rule:
    spec = ScheduleSpec(cron=expression, timezone=zone)
    for name, moment in fields.items():
        getattr(spec, name).CopyFrom(to_timestamp(moment))
    return Rule("uid", spec, 0)


def every(seconds: int, created: str = "2026-01-01T00:00:00", **fields: datetime) -> Rule:
    spec = ScheduleSpec()
    spec.interval.FromSeconds(seconds)
    for name, moment in fields.items():
        getattr(spec, name).CopyFrom(to_timestamp(moment))
    return Rule("uid", spec, at(created))


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        # The clocks go from 02:00 to 03:00: what was due in between is due right after, once.
        ("30 2 * * *", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("0,30 2 * * *", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        ("0 2,3 * * *", "2026-03-28T12:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        # By the elapsed time there is no such hour.
        ("*/30 2 * * *", "2026-03-28T12:00", ["2026-03-30T02:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 * * * *", "2026-03-29T01:00", ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"]),
        # The clocks go from 03:00 to 02:00: what is due at a time is due once, the first time.
        ("30 2 * * *", "2026-10-24T12:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        # By the elapsed time the hour is there twice.
        (
            "*/30 2 * * *",
            "2026-10-24T12:00",
            [
                "2026-10-25T02:00+02:00",
                "2026-10-25T02:30+02:00",
                "2026-10-25T02:00+01:00",
                "2026-10-25T02:30+01:00",
                "2026-10-26T02:00+01:00",
            ],
        ),
        ("30 * * * *", "2026-10-25T02:00", ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"]),
        ("0 12 * * *", "2026-03-28T13:00", ["2026-03-29T12:00+02:00", "2026-03-30T12:00+02:00"]),
    ],
)
def test_clocks_that_change(expression: str, start: str, expected: list[str]) -> None:
    assert local(cron(expression, BERLIN), start, BERLIN, len(expected)) == expected


def test_from_within_the_doubled_hour_no_tick_lies_back() -> None:
    rule = cron("30 2 * * *", BERLIN)
    assert rule.after(at("2026-10-25T02:10:00+01:00")) == at("2026-10-26T02:30:00+01:00")


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("0 0 29 2 *", "2026-01-01", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
        ("0 0 29 2 *", "2096-03-01", ["2104-02-29T00:00+00:00"]),
        ("0 0 31 * *", "2026-01-01", ["2026-01-31T00:00+00:00", "2026-03-31T00:00+00:00", "2026-05-31T00:00+00:00"]),
        ("0 0 30 * *", "2026-02-01", ["2026-03-30T00:00+00:00"]),
        ("0 12 L * *", "2028-02-01", ["2028-02-29T12:00+00:00", "2028-03-31T12:00+00:00"]),
        ("59 23 31 12 *", "2026-01-01", ["2026-12-31T23:59+00:00", "2027-12-31T23:59+00:00"]),
        # Both day fields: one of them has to match.
        ("0 0 13 * FRI", "2026-02-01", ["2026-02-06T00:00+00:00", "2026-02-13T00:00+00:00"]),
    ],
)
def test_leap_days_and_month_ends(expression: str, start: str, expected: list[str]) -> None:
    assert local(cron(expression), f"{start}T00:00", "UTC", len(expected)) == expected


@pytest.mark.parametrize(
    "expression",
    [
        *("", "* * * *", "* * * * * *", "@daily", "61 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8"),
        *("a * * * *", "*/0 * * * *", "5-1 * * * *", "-1 * * * *", "1.5 * * * *", "* * * * ²L", "1L/2 * * * *"),
        *("0 0 30 2 *", "0 0 31 4,6 *", "0 " * 4 + "0" * 300, "* * * * *\x00"),
    ],
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(CronError):
        check_cron(expression)


def test_an_expression_that_never_comes_up_has_no_tick() -> None:
    check_cron("* * */20 * 1L")
    assert cron("* * */20 * 1L").after(at("2026-01-01T00:00")) is None


def test_the_timezones_are_those_of_iana() -> None:
    assert {"UTC", BERLIN, "America/New_York", "Australia/Lord_Howe"} <= timezones()
    assert not {"", "Mars/Olympus", "../etc/passwd", "posixrules"} & timezones()


def test_an_interval_is_counted_from_the_creation_or_the_start() -> None:
    assert every(60).after(at("2026-01-01T00:00:00")) == at("2026-01-01T00:01:00")
    assert every(60).after(at("2026-01-01T00:01:00")) == at("2026-01-01T00:02:00")
    start = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert every(60, start_time=start).after(at("2026-01-01T00:00:00")) == to_ms(start)
    assert every(60, start_time=start).after(to_ms(start)) == to_ms(start) + 60_000
    old = datetime(2020, 1, 1, tzinfo=UTC)
    assert every(86_400, start_time=old).after(at("2026-06-01T00:00:01")) == at("2026-06-02T00:00:00")


def test_start_and_end_bound_the_ticks() -> None:
    start, end = datetime(2026, 1, 1, 0, 2, tzinfo=UTC), datetime(2026, 1, 1, 0, 4, tzinfo=UTC)
    for rule in (every(60, start_time=start, end_time=end), cron("* * * * *", start_time=start, end_time=end)):
        assert rule.after(0) == to_ms(start)
        assert rule.after(to_ms(start)) == to_ms(start) + 60_000
        assert rule.after(to_ms(start) + 60_000) is None
        assert list(rule.due_through(to_ms(start), to_ms(end) * 2)) == [to_ms(start), to_ms(start) + 60_000]


def test_what_is_due_is_listed_up_to_a_bound() -> None:
    rule = cron("* * * * *")
    first = at("2026-01-01T00:00")
    assert len(rule.due_through(first, at("2026-06-01T00:00"))) == MAX_LISTED
    assert list(rule.due_through(first, first + 120_000)) == [first, first + 60_000, first + 120_000]
    assert not rule.due_through(first, first - 1)
    assert len(every(1).due_through(first, at("2027-01-01T00:00"))) == 365 * 86_400 + 1


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 31 * *", "15 1-3 * * 0", "0 */5 * * *", "59 2,3 L * *"]),
    st.sampled_from([BERLIN, "UTC", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca"]),
    st.integers(at("2024-01-01T00:00"), at("2029-01-01T00:00")),
    st.integers(0, 3600),
)
def test_ticks_grow_whatever_the_clocks_do(expression: str, zone: str, start: int, jitter: int) -> None:
    spec = ScheduleSpec(cron=expression, timezone=zone)
    spec.jitter.FromSeconds(jitter)
    rule = Rule("uid", spec, 0)
    nominal, ticks = start, []
    for _ in range(12):
        following = rule.after(nominal)
        assert following is not None
        nominal = following
        ticks.append(nominal)
    assert all(before < after for before, after in pairwise([start, *ticks]))
    dues = [rule.due(tick) for tick in ticks]
    assert dues == sorted(dues)
    assert all(0 <= due - tick <= jitter * 1000 for due, tick in zip(dues, ticks, strict=True))
    assert dues == [rule.due(tick) for tick in ticks]
    # Whether one looks from here or from there, the ticks are the same.
    assert list(rule.due_through(ticks[0], dues[-1]))[:12] == ticks


def test_jitter_is_another_one_for_each_tick_and_each_schedule() -> None:
    spec = ScheduleSpec(cron="0 * * * *")
    spec.jitter.FromSeconds(600)
    hours = [at("2026-01-01T00:00") + hour * 3_600_000 for hour in range(200)]
    delays = [Rule("one", spec, 0).due(hour) - hour for hour in hours]
    assert 0 <= min(delays) < 60_000
    assert 540_000 < max(delays) <= 600_000
    assert abs(sum(delays) / len(delays) - 300_000) < 60_000
    assert delays != [Rule("two", spec, 0).due(hour) - hour for hour in hours]


def test_a_single_tick_may_be_delayed_too() -> None:
    spec = ScheduleSpec()
    spec.once.CopyFrom(to_timestamp(datetime(2026, 1, 1, tzinfo=UTC)))
    spec.jitter.FromTimedelta(timedelta(seconds=10))
    rule = Rule("uid", spec, 0)
    nominal = rule.after(0)
    assert nominal is not None
    assert nominal < rule.due(nominal) <= nominal + 10_000
    assert rule.after(nominal) is None
