"""A scheduler that dies between any two steps of a tick, alone or while the schedule is being changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from codesous.control.v1.schedule_pb2 import OverlapPolicy, ScheduleState
from codesous.control.v1.schedule_service_pb2 import UpdateScheduleRequest
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from cs_core import ids
from cs_core.clock import SystemClock
from cs_core.errors import ConflictError, NotFoundError, UnavailableError
from cs_core.schedules import placing, runs
from cs_core.schedules.placing import Placing
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_scheduler.gaps import Gap
from tests.support.schedules import ADA, SECOND, SPACE, TENANT, Bench, put_function

NAME = (TENANT, SPACE, "beat")
PARALLEL = OverlapPolicy.OVERLAP_POLICY_PARALLEL


class Died(BaseException):
    """The process is gone."""


async def bench_with_a_death(kv: KvClient, gap: Gap, **fields: Any) -> Bench:
    """A schedule whose leader died in a gap of its first tick; `bench.scheduler` is another that leads nothing yet."""
    await put_function(kv)

    async def die(at: Gap, _uid: str) -> None:
        if at is gap:
            raise Died

    bench = Bench(kv, at_gap=die, lease=60.0)
    await bench.create(every=1, overlap=fields.get("overlap", PARALLEL))
    await bench.scheduler.leading.balance()
    bench.manual.advance(SECOND)
    with pytest.raises(Died):
        await bench.scheduler.ticking.look()
    # As when its lease and its life have ended.
    for shard in range(bench.shards.shards):
        await kv.call("HSET", keys.shard_lease(shard), "until", 0)
    await kv.call("DEL", keys.members("cs-scheduler"))
    bench.scheduler = bench.scheduler_named("scheduler-2")
    return bench


async def check_exactly_once(bench: Bench, ticks: int) -> None:
    activations = await bench.run()
    assert [each.trigger.schedule.tick for each in activations] == list(range(1, ticks + 1))
    status = (await bench.get()).status
    assert (status.published_ticks, status.last_tick, status.dropped_ticks) == (ticks, ticks, 0)
    assert await bench.outcomes() == [(number, "published") for number in range(1, ticks + 1)]


@pytest.mark.parametrize("gap", list(Gap))
async def test_a_death_in_any_gap_leads_to_each_tick_once(kv: KvClient, gap: Gap) -> None:
    bench = await bench_with_a_death(kv, gap)
    await bench.look()
    await bench.pass_time(3 * SECOND)
    await check_exactly_once(bench, 4)
    assert await bench.messages() == 4


async def test_with_ids_of_their_own_a_repeat_would_be_another_activation(
    kv: KvClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control run of the test above."""
    monkeypatch.setattr(runs, "activation_of", lambda _schedule, _tick: ids.activation_id())
    bench = await bench_with_a_death(kv, Gap.PUBLISHED)
    await bench.look()
    assert [each.trigger.schedule.tick for each in await bench.run()] == [1, 1]


@pytest.mark.parametrize("gap", [Gap.CLAIMED, Gap.PUBLISHED])
async def test_a_repeated_tick_is_held_back_by_no_overlap_and_dropped_by_no_outage(kv: KvClient, gap: Gap) -> None:
    bench = await bench_with_a_death(kv, gap, overlap=OverlapPolicy.OVERLAP_POLICY_SKIP)
    bench.manual.advance(1000 * SECOND)
    await bench.look()
    assert (await bench.outcomes())[0] == (1, "published")
    assert [each.trigger.schedule.tick for each in await bench.run()] == [1]


@pytest.mark.parametrize("gap", [Gap.CLAIMED, Gap.PUBLISHED])
async def test_a_tick_that_may_not_be_repeated_tells_what_became_of_it(kv: KvClient, gap: Gap) -> None:
    bench = await bench_with_a_death(kv, gap)
    await kv.call("HDEL", keys.aliases(TENANT, SPACE, "tickfn"), "live")
    await bench.look()
    assert await bench.outcomes() == [(1, "refused" if gap is Gap.CLAIMED else "published")]
    (activation,) = await bench.run()
    states = ActivationStatus.ACTIVATION_STATUS_CANCELLED, ActivationStatus.ACTIVATION_STATUS_QUEUED
    assert activation.status == states[gap is Gap.PUBLISHED]


async def _update(bench: Bench) -> None:
    request = UpdateScheduleRequest(tenant=TENANT, namespace=SPACE, schedule="beat")
    request.update_mask.paths.append("spec.interval")
    request.spec.interval.FromSeconds(10)
    await bench.schedules.update(request, ADA)


CHANGES: dict[str, Callable[[Bench], Awaitable[object]]] = {
    "pause": lambda bench: bench.schedules.pause(*NAME, ADA),
    "delete": lambda bench: bench.schedules.delete(*NAME, ADA),
    "update": _update,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("gap", list(Gap))
async def test_a_change_after_a_death_leaves_no_tick_in_between(kv: KvClient, gap: Gap, change: str) -> None:
    bench = await bench_with_a_death(kv, gap)
    uid = (await bench.get()).uid
    await CHANGES[change](bench)
    await bench.pass_time(8 * SECOND)
    runnable = [each for each in await bench.run() if each.status == ActivationStatus.ACTIVATION_STATUS_QUEUED]
    before = int(gap in (Gap.PUBLISHED, Gap.ADVANCED))
    assert len(runnable) == before
    if change == "delete":
        with pytest.raises(NotFoundError):
            await bench.get()
        assert await kv.call("TTL", keys.shard_schedule(bench.shards.shard(uid), uid)) > 0
    else:
        status = (await bench.get()).status
        # Claimed, and overtaken before it was published: it is counted.
        assert (status.published_ticks, status.dropped_ticks) == (before, int(gap is Gap.CLAIMED))
        assert (await bench.placed()).claim == ""
    if change == "update":
        await bench.pass_time(3 * SECOND)
        assert len(await bench.run()) == before + int(gap is Gap.CLAIMED) + 1


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_leader_that_wakes_up_after_its_tick_was_settled_publishes_nothing_that_runs(
    kv: KvClient, monkeypatch: pytest.MonkeyPatch, guarded: bool
) -> None:
    """Where a tick that was not published is not withheld, a late leader publishes it: the control run."""

    async def nothing(*_arguments: object) -> bool:
        return False

    if not guarded:
        monkeypatch.setattr(runs.Runs, "withhold_tick", nothing)
    bench = await bench_with_a_death(kv, Gap.CLAIMED)
    schedule = await bench.get()
    version = await bench.runs.admit(schedule)
    await bench.schedules.pause(*NAME, ADA)
    await bench.look()
    if not guarded:
        await bench.runs.publish_tick(schedule, version, 1, 0)
        assert await bench.messages() == 1
        return
    with pytest.raises(ConflictError):
        await bench.runs.publish_tick(schedule, version, 1, 0)
    assert await bench.messages() == 0
    (activation,) = await bench.run()
    assert activation.status == ActivationStatus.ACTIVATION_STATUS_CANCELLED


@pytest.mark.parametrize("change", ["pause", "delete"])
@pytest.mark.parametrize("guarded", [True, False])
async def test_a_pause_waits_for_the_tick_that_is_being_published(
    kv: KvClient, monkeypatch: pytest.MonkeyPatch, change: str, guarded: bool
) -> None:
    """Where it does not wait, a tick is published after the call has returned: the control run."""
    await put_function(kv)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(at: Gap, _uid: str) -> None:
        if at is Gap.CLAIMED:
            arrived.set()
            await go_on.wait()

    async def nothing(_self: Placing, _uid: str) -> None:
        return None

    if not guarded:
        monkeypatch.setattr(Placing, "settled", nothing)
    bench = Bench(kv, at_gap=hold, lease=60.0)
    await bench.create(every=1, overlap=PARALLEL)
    await bench.scheduler.leading.balance()
    bench.manual.advance(SECOND)
    looking = asyncio.create_task(bench.scheduler.ticking.look())
    await arrived.wait()
    changing = asyncio.ensure_future(CHANGES[change](bench))
    done, _ = await asyncio.wait([changing], timeout=0.5)
    assert bool(done) is not guarded
    assert await bench.run() == []
    go_on.set()
    await asyncio.gather(looking, changing)
    assert len(await bench.run()) == 1
    await bench.pass_time(5 * SECOND)
    assert len(await bench.run()) == 1


async def test_a_store_that_goes_away_between_two_steps_costs_no_tick(
    kv: KvClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_function(kv)
    bench = Bench(kv, lease=60.0)
    await bench.create(every=1, overlap=PARALLEL)
    advance, failures = bench.scheduler.ticking._shards.advance, iter([True])

    async def fail_once(*arguments: Any) -> bool:
        if next(failures, False):
            raise UnavailableError("CS_STORE_UNAVAILABLE", "away")
        return await advance(*arguments)

    monkeypatch.setattr(bench.scheduler.ticking._shards, "advance", fail_once)
    await bench.pass_time(SECOND)
    assert (await bench.placed()).claim
    await bench.pass_time(2 * SECOND)
    await check_exactly_once(bench, 3)


@pytest.mark.parametrize("change", ["pause", "delete"])
async def test_a_tick_that_was_looked_at_and_not_claimed_is_not_published_after_a_pause(
    kv: KvClient, change: str
) -> None:
    await put_function(kv)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(at: Gap, _uid: str) -> None:
        if at is Gap.LOOKED:
            arrived.set()
            await go_on.wait()

    bench = Bench(kv, at_gap=hold, lease=60.0)
    await bench.create(every=1, overlap=PARALLEL)
    await bench.scheduler.leading.balance()
    bench.manual.advance(SECOND)
    looking = asyncio.create_task(bench.scheduler.ticking.look())
    await arrived.wait()
    await CHANGES[change](bench)
    go_on.set()
    await looking
    await bench.pass_time(5 * SECOND)
    assert await bench.run() == []


async def test_a_pause_says_so_when_a_tick_does_not_come_to_its_end(
    kv: KvClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_function(kv)
    arrived = asyncio.Event()

    async def hold(at: Gap, _uid: str) -> None:
        if at is Gap.CLAIMED:
            arrived.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(placing, "_SETTLE_WITHIN", 0.2)
    bench = Bench(kv, at_gap=hold, clock=SystemClock(), lease=60.0)
    await bench.create(every=1, overlap=PARALLEL)
    await bench.scheduler.leading.balance()
    looking = asyncio.create_task(bench.scheduler.ticking.run())
    await arrived.wait()
    with pytest.raises(UnavailableError, match="still being published"):
        await bench.schedules.pause(*NAME, ADA)
    assert (await bench.get()).status.state == ScheduleState.SCHEDULE_STATE_PAUSED
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
