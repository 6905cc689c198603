"""Who leads which shard: fair shares, and a leader that was replaced and does not know it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from codesous.control.v1.schedule_pb2 import OverlapPolicy, ScheduleTick, TickOutcome

from cs_core.clock import SystemClock
from cs_core.store import shards as shard_store
from cs_core.store.client import KvClient
from cs_core.store.scripts import Script
from cs_core.store.shards import Advance, LeadLostError
from cs_scheduler.assembly import Scheduler
from cs_scheduler.gaps import Gap
from tests.support.schedules import SECOND, SHARDS, Bench, put_function
from tests.support.waiting import wait_until

PARALLEL = OverlapPolicy.OVERLAP_POLICY_PARALLEL
LONG = {"lease": 60.0}


def shares(*schedulers: Scheduler) -> list[int]:
    return [len(scheduler.leading.held()) for scheduler in schedulers]


async def settle(*schedulers: Scheduler) -> None:
    """Let everybody see what the others did."""
    for _ in range(4):
        for scheduler in schedulers:
            await scheduler.leading.balance()


async def test_each_takes_its_fair_share_when_others_come_and_go(kv: KvClient) -> None:
    bench = Bench(kv, **LONG)
    first, second, third = (bench.scheduler_named(f"scheduler-{number}") for number in (1, 2, 3))
    await settle(first)
    assert shares(first) == [SHARDS]
    await settle(first, second)
    assert shares(first, second) == [2, 2]
    await settle(first, second, third)
    assert sorted(shares(first, second, third)) == [1, 1, 2]
    held = Counter(each.lead.shard for one in (first, second, third) for each in one.leading.held())
    assert held == dict.fromkeys(range(SHARDS), 1)
    await first.leading.leave()
    await settle(second, third)
    assert shares(first, second, third) == [0, 2, 2]


async def test_a_dead_leaders_shards_go_to_the_living_within_the_lease_and_two_seconds(kv: KvClient) -> None:
    bench = Bench(kv, clock=SystemClock(), lease=1.0)
    dead, living = bench.scheduler_named("scheduler-1"), bench.scheduler_named("scheduler-2")
    await dead.leading.balance()
    assert shares(dead) == [SHARDS]
    died = time.monotonic()
    keeping = asyncio.create_task(living.leading.run())
    await wait_until(lambda: shares(living) == [SHARDS])
    took = time.monotonic() - died
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert took < 1.0 + 2.0
    # The dead one would know by its own clock.
    assert shares(dead) == [0]


async def replaced(bench: Bench, first: Scheduler, second: Scheduler) -> None:
    """Let the second lead everything, without the first one's knowing."""
    lease = f"cs:{{s{await one_shard(bench)}}}:lease"
    for shard in range(SHARDS):
        await bench.client.call("HDEL", f"cs:{{s{shard}}}:lease", "owner")
    held = list(first.leading.held())
    await bench.client.call("DEL", "cs:{m:cs-scheduler}:members")
    await second.leading.balance()
    assert await bench.client.call("HGET", lease, "owner") == b"scheduler-2"
    assert len(first.leading.held()) == len(held) == SHARDS


async def one_shard(bench: Bench) -> int:
    return bench.shards.shard((await bench.get()).uid)


def step_of(uid: str, tick: int, generation: int, claim: str = "") -> Advance:
    return Advance(
        uid=uid,
        generation=generation,
        claim=claim,
        entry=ScheduleTick(tick=tick, outcome=TickOutcome.TICK_OUTCOME_SKIPPED),
        count="skipped_ticks",
        next_tick=tick + 1,
        next_ms=0,
        look_ms=0,
    )


@contextmanager
def without_fence(name: str) -> Iterator[None]:
    """Let a script not look at the fence."""
    text = getattr(shard_store, name).text
    open_text = text.replace("lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2]", "false")
    assert open_text != text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_store, name, Script(open_text, "0" * 40))
        yield


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("step", ["claim", "advance"])
async def test_a_stale_leader_neither_claims_nor_advances(kv: KvClient, step: str, guarded: bool) -> None:
    """Where the fence is not looked at, it does: the control run."""
    await put_function(kv)
    bench = Bench(kv, **LONG)
    first, second = bench.scheduler_named("scheduler-1"), bench.scheduler_named("scheduler-2")
    uid = (await bench.create(every=1, overlap=PARALLEL)).uid
    await first.leading.balance()
    await replaced(bench, first, second)
    placed = await bench.placed()
    stale = next(held.lead for held in first.leading.held() if held.lead.shard == bench.shards.shard(uid))

    async def attempt() -> object:
        if step == "claim":
            return await bench.shards.claim(stale, placed)
        return await bench.shards.advance(stale, step_of(uid, placed.tick, placed.generation))

    if guarded:
        with pytest.raises(LeadLostError):
            await attempt()
        assert await bench.placed() == placed
    else:
        with without_fence(f"_{step.upper()}"):
            assert await attempt()
        assert await bench.placed() != placed


@pytest.mark.parametrize("gap", [Gap.LOOKED, Gap.CLAIMED, Gap.PUBLISHED])
async def test_a_leader_that_is_replaced_in_the_middle_of_a_tick_doubles_nothing(kv: KvClient, gap: Gap) -> None:
    await put_function(kv)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(at: Gap, _uid: str) -> None:
        if at is gap and not arrived.is_set():
            arrived.set()
            await go_on.wait()

    bench = Bench(kv, **LONG)
    stale, other = bench.scheduler_named("scheduler-1", hold), bench.scheduler_named("scheduler-2")
    await bench.create(every=1, overlap=PARALLEL)
    await stale.leading.balance()
    bench.manual.advance(SECOND)
    looking = asyncio.create_task(stale.ticking.look())
    await arrived.wait()
    await replaced(bench, stale, other)
    while await other.ticking.look():
        pass
    assert await bench.outcomes() == [(1, "published")]
    bench.manual.advance(SECOND)
    while await other.ticking.look():
        pass
    go_on.set()
    await looking
    assert await bench.outcomes() == [(1, "published"), (2, "published")]
    assert [each.trigger.schedule.tick for each in await bench.run()] == [1, 2]
    assert (await bench.get()).status.published_ticks == 2


async def test_by_its_own_clock_a_leader_stops_before_another_can_begin(kv: KvClient) -> None:
    await put_function(kv)
    bench = Bench(kv, lease=5.0)
    await bench.create(every=1, overlap=PARALLEL)
    await bench.scheduler.leading.balance()
    (held, *_) = bench.scheduler.leading.held()
    bench.manual.advance(6 * SECOND)
    assert bench.scheduler.leading.held() == []
    with pytest.raises(LeadLostError):
        bench.scheduler.leading.check(held.lead)
    assert await bench.scheduler.ticking.look() == 0
    assert await bench.run() == []


async def test_a_shard_is_handed_back_when_its_work_is_done(kv: KvClient) -> None:
    await put_function(kv)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(at: Gap, _uid: str) -> None:
        if at is Gap.CLAIMED:
            arrived.set()
            await go_on.wait()

    bench = Bench(kv, at_gap=hold, **LONG)
    await bench.create(every=1, overlap=PARALLEL)
    await bench.scheduler.leading.balance()
    bench.manual.advance(SECOND)
    looking = asyncio.create_task(bench.scheduler.ticking.look())
    await arrived.wait()
    leaving = asyncio.create_task(bench.scheduler.leading.leave())
    await asyncio.sleep(0)
    shard = await one_shard(bench)
    assert await bench.shards.leader(shard) is not None
    go_on.set()
    await asyncio.gather(looking, leaving)
    assert await bench.shards.leader(shard) is None
    assert await bench.outcomes() == [(1, "published")]


async def test_a_drained_scheduler_leads_nothing_until_it_is_undrained(kv: KvClient) -> None:
    bench = Bench(kv, **LONG)
    first, second = bench.scheduler_named("scheduler-1"), bench.scheduler_named("scheduler-2")
    await settle(first, second)
    assert [(lease.shard, lease.fence, lease.tenant) for lease in first.leading.leases()] == [
        (held.lead.shard, held.lead.fence, "") for held in first.leading.held()
    ]
    await first.leading.drain(True)
    await settle(first, second)
    assert shares(first, second) == [0, SHARDS]
    await first.leading.drain(False)
    await settle(first, second)
    assert shares(first, second) == [2, 2]
