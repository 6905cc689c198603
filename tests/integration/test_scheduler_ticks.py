"""What becomes of ticks, over a real store and on a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from codesous.control.v1.schedule_pb2 import OverlapPolicy, ScheduleState
from codesous.control.v1.version_pb2 import Version
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from cs_core.schedules import runs
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.resolve import Resolver
from tests.support.schedules import ADA, FUNCTION, SECOND, SPACE, START, TENANT, Bench, outcome_of, put_function

PARALLEL, QUEUE = OverlapPolicy.OVERLAP_POLICY_PARALLEL, OverlapPolicy.OVERLAP_POLICY_QUEUE


@pytest.fixture
async def bench(kv: KvClient) -> Bench:
    await put_function(kv)
    return Bench(kv)


async def test_sixty_ticks_of_a_second_are_sixty_activations(bench: Bench) -> None:
    schedule = await bench.create(every=1, overlap=PARALLEL, payload=b'{"a": 1}')
    await bench.pass_time(60 * SECOND)
    activations = await bench.run()
    assert [each.trigger.schedule.tick for each in activations] == list(range(1, 61))
    assert [each.trigger.schedule.due_time.ToDatetime(UTC) for each in activations] == [
        START + number * SECOND for number in range(1, 61)
    ]
    assert await bench.messages() == 60
    assert {each.trigger.schedule.schedule_uid for each in activations} == {schedule.uid}
    assert {each.principal.subject for each in activations} == {"ada"}
    status = (await bench.get()).status
    assert (status.last_tick, status.published_ticks, status.next_tick_time.ToDatetime(UTC)) == (
        60,
        60,
        START + 61 * SECOND,
    )
    assert bench.count("cs_scheduler_ticks_total", outcome="published") == 60
    assert bench.count("cs_scheduler_lateness_seconds_count") == 60
    assert bench.count("cs_scheduler_shards_held") == 4


async def test_skip_skips_while_the_tick_before_runs(bench: Bench) -> None:
    await bench.create(every=1)
    await bench.pass_time(3 * SECOND)
    await bench.end_all()
    await bench.pass_time(2 * SECOND)
    assert await bench.outcomes() == [
        (1, "published"),
        (2, "skipped"),
        (3, "skipped"),
        (4, "published"),
        (5, "skipped"),
    ]
    (first, *_), skipped = await bench.run(), (await bench.ticks())[1]
    assert first.activation_id in skipped.message
    status = (await bench.get()).status
    assert (status.published_ticks, status.skipped_ticks) == (2, 3)
    assert bench.count("cs_scheduler_ticks_total", outcome="skipped") == 3


@pytest.mark.parametrize("lost", ["record", "deadline"])
async def test_an_activation_that_cannot_end_any_more_holds_nothing(bench: Bench, lost: str) -> None:
    await bench.create(every=1)
    await bench.pass_time(SECOND)
    (first,) = await bench.run()
    partition = bench.activations.partition(TENANT, first.activation_id)
    if lost == "record":
        await bench.client.call("DEL", keys.activation(partition, TENANT, first.activation_id))
    else:
        # Its message was lost: nobody will ever begin it. Past its deadline nobody may.
        bench.manual.advance(timedelta(seconds=bench.settings.limits.async_age) - 30 * SECOND)
        await bench.look()
        assert {outcome for _, outcome in await bench.outcomes()} == {"published", "dropped", "skipped"}
        bench.manual.advance(60 * SECOND)
    await bench.pass_time(SECOND)
    assert outcome_of((await bench.ticks())[-1]) == "published" or "published" in [
        outcome for _, outcome in (await bench.outcomes())[2:]
    ]


async def test_queue_runs_ticks_one_after_the_other_and_loses_none(bench: Bench) -> None:
    await bench.create(every=10, overlap=QUEUE)
    await bench.pass_time(35 * SECOND)
    assert await bench.outcomes() == [(1, "published")]
    for number in (2, 3):
        await bench.end_all()
        await bench.pass_time(SECOND)
        assert (await bench.outcomes())[-1] == (number, "published")
    activations = await bench.run()
    assert [each.trigger.schedule.due_time.ToDatetime(UTC) for each in activations] == [
        START + 10 * number * SECOND for number in (1, 2, 3)
    ]
    # A tick that waited for the one before was not late.
    assert bench.count("cs_scheduler_lateness_seconds_count") == 1


async def test_queue_lets_as_many_wait_as_are_made_up_for(bench: Bench) -> None:
    await bench.create(every=1, overlap=QUEUE, catchup=3)
    await bench.pass_time(10 * SECOND)
    dropped = [tick for tick in await bench.ticks() if outcome_of(tick) == "dropped"]
    # Of 9 that waited, the newest and 3 before it still do.
    assert sum(max(tick.last_tick, tick.tick) - tick.tick + 1 for tick in dropped) == 5
    assert (await bench.get()).status.dropped_ticks == 5


async def test_parallel_runs_them_beside_each_other(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(5 * SECOND)
    assert len(await bench.run()) == 5


async def test_an_outage_is_made_up_for_in_part_and_the_rest_is_counted(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    bench.manual.advance(timedelta(hours=2))
    await bench.look()
    ticks = await bench.ticks()
    assert (outcome_of(ticks[0]), ticks[0].tick, ticks[0].last_tick) == ("dropped", 1, 7200 - 61)
    # The newest is no missed one; 60 before it are made up for.
    assert [tick.tick for tick in ticks[1:]] == list(range(7140, 7201))
    assert {outcome_of(tick) for tick in ticks[1:]} == {"published"}
    status = (await bench.get()).status
    assert (status.dropped_ticks, status.published_ticks, status.last_tick) == (7139, 61, 7200)
    assert bench.count("cs_scheduler_ticks_total", outcome="dropped") == 7139
    assert len(await bench.run()) == await bench.messages() == 61


async def test_without_catch_up_one_jumps_to_now(bench: Bench) -> None:
    await bench.create(every=60, overlap=PARALLEL, catchup=0)
    bench.manual.advance(timedelta(minutes=10, seconds=5))
    await bench.look()
    assert await bench.outcomes() == [(1, "dropped"), (10, "published")]
    bench.manual.advance(timedelta(seconds=90))
    await bench.look()
    # 35 s late: nothing says how old it would be when it is made up for.
    assert await bench.outcomes() == [(1, "dropped"), (10, "published"), (11, "dropped")]


async def test_the_longest_outage_of_a_cron_schedule_is_counted_to_the_tick(bench: Bench) -> None:
    await bench.create(cron="* * * * *", overlap=PARALLEL, catchup=2)
    bench.manual.advance(timedelta(days=3))
    await bench.look()
    status = (await bench.get()).status
    # The last one was due at 03:04:00, 5 s ago.
    assert (status.last_tick, status.dropped_ticks, status.published_ticks) == (4320, 4317, 3)
    assert [tick.due_time.ToDatetime(UTC) for tick in (await bench.ticks())[-3:]] == [
        datetime(2026, 1, 5, 3, minute, tzinfo=UTC) for minute in (2, 3, 4)
    ]


async def test_a_principal_that_may_not_is_refused_at_each_tick_and_nothing_is_paused(bench: Bench) -> None:
    await put_function(bench.client, roles=("somebody",))
    await bench.create(every=1)
    await bench.pass_time(2 * SECOND)
    assert await bench.outcomes() == [(1, "refused"), (2, "refused")]
    tick = (await bench.ticks())[0]
    assert (tick.reason, tick.activation_id) == ("CS_AUTHZ_ROLE_MISSING", "")
    schedule = await bench.get()
    assert schedule.status.state == ScheduleState.SCHEDULE_STATE_ACTIVE
    assert (schedule.status.refused_ticks, schedule.status.last_error_reason) == (2, "CS_AUTHZ_ROLE_MISSING")
    assert "invoke_schedule_roles" in schedule.status.last_error_message
    assert bench.count("cs_scheduler_refused_ticks_total", reason="CS_AUTHZ_ROLE_MISSING") == 2
    assert await bench.messages() == 0


async def test_a_version_that_lets_the_principal_in_is_met_by_the_next_tick(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL, actor=ADA)
    await bench.client.call("HDEL", keys.aliases(TENANT, SPACE, FUNCTION), "live")
    await bench.pass_time(SECOND)
    await bench.client.call("DEL", keys.function(TENANT, SPACE, FUNCTION))
    await bench.pass_time(SECOND)
    await put_function(bench.client)
    await bench.pass_time(SECOND)
    assert [(outcome_of(tick), tick.reason) for tick in await bench.ticks()] == [
        ("refused", "CS_NOT_FOUND_ALIAS"),
        ("refused", "CS_NOT_FOUND_FUNCTION"),
        ("published", ""),
    ]
    assert (await bench.get()).status.last_error_reason == ""


async def test_a_tenant_with_too_much_in_flight_is_refused(kv: KvClient) -> None:
    await put_function(kv)
    bench = Bench(kv)
    bench.settings.limits.__dict__["tenant_inflight"] = 2
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(3 * SECOND)
    assert [tick.reason for tick in await bench.ticks()] == ["", "", "CS_TENANT_INFLIGHT_LIMIT"]


async def test_a_single_tick_completes_its_schedule(bench: Bench) -> None:
    await bench.create(once=START + 5 * SECOND)
    await bench.pass_time(10 * SECOND)
    assert len(await bench.run()) == 1
    status = (await bench.get()).status
    assert (status.state, status.HasField("next_tick_time")) == (ScheduleState.SCHEDULE_STATE_COMPLETED, False)


async def test_no_tick_before_the_start_and_none_at_the_end(bench: Bench) -> None:
    await bench.create(every=10, overlap=PARALLEL, start_time=START + 25 * SECOND, end_time=START + 55 * SECOND)
    await bench.pass_time(100 * SECOND)
    assert [each.trigger.schedule.due_time.ToDatetime(UTC) for each in await bench.run()] == [
        START + seconds * SECOND for seconds in (25, 35, 45)
    ]
    assert (await bench.get()).status.state == ScheduleState.SCHEDULE_STATE_COMPLETED


async def test_jitter_delays_each_tick_by_its_own_time_and_keeps_their_order(bench: Bench) -> None:
    await bench.create(every=10, overlap=PARALLEL, jitter=8 * SECOND)
    await bench.pass_time(205 * SECOND)
    dues = [each.trigger.schedule.due_time.ToDatetime(UTC) for each in await bench.run()]
    delays = [(due - START) % (10 * SECOND) for due in dues]
    assert len(dues) >= 19
    assert dues == sorted(dues)
    assert max(delays) <= 8 * SECOND
    assert len(set(delays)) > 10


@pytest.mark.parametrize("step", [timedelta(minutes=5), timedelta(minutes=-5)])
async def test_a_step_of_the_clock_doubles_no_tick_and_loses_none_uncounted(bench: Bench, step: timedelta) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(10 * SECOND)
    bench.manual.step(step)
    await bench.look()
    # Back: silence until the clock is where it was. Forward: as an outage.
    await bench.pass_time(timedelta(minutes=5, seconds=10))
    status = (await bench.get()).status
    numbers = [each.trigger.schedule.tick for each in await bench.run()]
    dues = [each.trigger.schedule.due_time.ToDatetime(UTC) for each in await bench.run()]
    assert len(set(numbers)) == len(numbers) == status.published_ticks == await bench.messages()
    assert len(set(dues)) == len(dues)
    assert status.published_ticks + status.dropped_ticks == status.last_tick
    if step < timedelta(0):
        assert (status.last_tick, status.dropped_ticks) == (20, 0)
    else:
        assert status.last_tick == 620
        assert status.dropped_ticks == 300 - 61


async def test_one_broken_schedule_does_not_stop_its_neighbours(bench: Bench) -> None:
    broken = await bench.create("broken", every=1)
    await bench.create("well", every=1, overlap=PARALLEL)
    shard = bench.shards.shard(broken.uid)
    await bench.client.call("HSET", keys.shard_schedule(shard, broken.uid), "record", b"\xff\xff\xff")
    await bench.pass_time(3 * SECOND)
    assert len(await bench.outcomes("well")) == 3
    assert bench.count("cs_scheduler_faults_total") >= 1


async def test_an_activation_of_a_tick_is_told_by_schedule_and_number_alone(bench: Bench) -> None:
    first = await bench.create(every=1)
    await bench.pass_time(SECOND)
    await bench.schedules.delete(TENANT, SPACE, "beat", ADA)
    again = await bench.create(every=1)
    await bench.pass_time(SECOND)
    assert first.uid != again.uid
    assert len({each.activation_id for each in await bench.run()}) == 2
    assert {each.status for each in await bench.run()} == {ActivationStatus.ACTIVATION_STATUS_QUEUED}


@pytest.mark.parametrize(
    ("start", "expression", "length", "expected"),
    [
        # 02:30 is not there on the 29th: right after, at 03:00 of summer time.
        ("2026-03-28T00:00", "30 2 * * *", timedelta(days=3), ["03-28T01:30", "03-29T01:00", "03-30T00:30"]),
        # 02:30 is there twice on the 25th: the first time.
        ("2026-10-24T00:00", "30 2 * * *", timedelta(days=3), ["10-24T00:30", "10-25T00:30", "10-26T01:30"]),
        ("2028-02-28T00:00", "0 12 L * *", timedelta(days=33), ["02-29T11:00", "03-31T10:00"]),
        ("2026-01-30T00:00", "0 0 31 * *", timedelta(days=62), ["01-30T23:00", "03-30T22:00"]),
    ],
)
async def test_what_clocks_and_calendars_do_is_done_once(
    bench: Bench, start: str, expression: str, length: timedelta, expected: list[str]
) -> None:
    bench.manual.step(datetime.fromisoformat(start).replace(tzinfo=UTC) - START)
    await bench.create(cron=expression, timezone="Europe/Berlin", overlap=PARALLEL)
    await bench.pass_time(length, timedelta(minutes=30))
    ticks = await bench.ticks()
    assert [tick.due_time.ToDatetime(UTC).strftime("%m-%dT%H:%M") for tick in ticks] == expected
    assert {outcome_of(tick) for tick in ticks} == {"published"}
    assert (await bench.get()).status.dropped_ticks == 0


async def test_an_activation_that_is_asked_for_its_state_alone_would_hold_its_schedule(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control run of what an activation that cannot end any more holds."""

    async def by_state(tenant: str, activation_id: str) -> bool:
        found = await bench.activations.get(tenant, activation_id)
        return found is not None and found.status == ActivationStatus.ACTIVATION_STATUS_QUEUED

    monkeypatch.setattr(ActivationStore, "is_open", lambda _self, *names: by_state(*names))
    await bench.create(every=1)
    await bench.pass_time(SECOND)
    bench.manual.advance(timedelta(seconds=bench.settings.limits.async_age) + 60 * SECOND)
    await bench.pass_time(SECOND)
    assert [outcome for _, outcome in await bench.outcomes()].count("published") == 1


async def test_without_the_check_a_principal_that_may_not_would_run(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control run of what is refused at each tick."""
    monkeypatch.setattr(runs, "check_allowlist", lambda *_: None)
    await put_function(bench.client, roles=("somebody",))
    await bench.create(every=1)
    await bench.pass_time(SECOND)
    assert await bench.outcomes() == [(1, "published")]


async def test_ticks_that_are_due_at_once_share_a_look_up_and_later_ones_do_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    resolve = Resolver.resolve

    async def count(self: Resolver, *names: str) -> Version:
        looked_up.append(names[3])
        return await resolve(self, *names)

    for number in range(12):
        await bench.create(f"beat-{number}", every=1, overlap=PARALLEL)
    monkeypatch.setattr(Resolver, "resolve", count)
    await bench.pass_time(SECOND)
    assert len(await bench.run()) == 12
    assert 1 <= len(looked_up) < 12
    # The alias is gone: the next ticks see it.
    before = len(looked_up)
    await bench.client.call("HDEL", keys.aliases(TENANT, SPACE, FUNCTION), "live")
    await bench.pass_time(SECOND)
    assert len(looked_up) > before
    assert {outcome for _, outcome in (await bench.outcomes("beat-7"))[1:]} == {"refused"}
