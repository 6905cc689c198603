"""How a change of a schedule reaches its shard, whoever dies on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from codesous.control.v1.schedule_pb2 import OverlapPolicy
from codesous.storage.v1.records_pb2 import ScheduleIntent, ScheduleRecord

from cs_core.schedules import placing
from cs_core.store import keys
from cs_core.store import shards as shard_store
from cs_core.store.client import KvClient
from cs_core.store.scripts import Script
from tests.support.schedules import ADA, SECOND, SPACE, TENANT, Bench, put_function
from tests.support.waiting import wait_until

NAME = (TENANT, SPACE, "beat")
PARALLEL = OverlapPolicy.OVERLAP_POLICY_PARALLEL


class Died(BaseException):
    """The process that made a change is gone."""


@pytest.fixture
async def bench(kv: KvClient, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(placing, "INTENT_AGE", timedelta(0))
    await put_function(kv)
    return Bench(kv)


def die_before(monkeypatch: pytest.MonkeyPatch, holder: object, name: str) -> None:
    async def die(*_arguments: object) -> None:
        raise Died

    monkeypatch.setattr(holder, name, die)


async def sweep(bench: Bench) -> int:
    return sum([await bench.placing.sweep(shard) for shard in range(bench.shards.shards)])


async def intents(bench: Bench) -> list[ScheduleIntent]:
    return [
        intent
        for shard in range(bench.shards.shards)
        for intent, _ in await bench.shards.intents(shard, timedelta(0), 100)
    ]


Change = Callable[[Bench], Awaitable[object]]
CHANGES: dict[str, Change] = {
    "create": lambda bench: bench.create("new", every=1, overlap=PARALLEL),
    "pause": lambda bench: bench.schedules.pause(*NAME, ADA),
    "delete": lambda bench: bench.schedules.delete(*NAME, ADA),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("step", ["change", "place", "withdraw"])
async def test_a_change_is_made_whole_or_not_at_all(bench: Bench, name: str, step: str) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    with pytest.MonkeyPatch.context() as patch:
        die_before(patch, bench.store if step == "change" else bench.shards, step)
        with pytest.raises(Died):
            await CHANGES[name](bench)
    assert len(await intents(bench)) == 1
    assert await sweep(bench) == 1
    await bench.pass_time(3 * SECOND)
    made = step != "change"
    beats = {each.trigger.schedule.schedule for each in await bench.run()}
    assert beats == {"create": {"beat", "new"} if made else {"beat"}}.get(name, set() if made else {"beat"})


async def test_without_an_intent_the_change_would_be_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control run of the test above."""

    async def nothing(_intent: ScheduleIntent) -> None:
        return None

    monkeypatch.setattr(bench.shards, "announce", nothing)
    with pytest.MonkeyPatch.context() as patch:
        die_before(patch, bench.shards, "place")
        with pytest.raises(Died):
            await bench.create(every=1, overlap=PARALLEL)
    assert await sweep(bench) == 0
    await bench.pass_time(3 * SECOND)
    assert await bench.run() == []


async def test_an_intent_whose_change_is_not_made_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die_before(patch, bench.store, "change")
        with pytest.raises(Died):
            await bench.create(every=1)
    assert await sweep(bench) == 1
    # Its maker may be slow rather than dead.
    assert await sweep(bench) == 1
    monkeypatch.setattr(placing, "INTENT_LIFE", timedelta(0))

    async def gone() -> bool:
        await sweep(bench)
        return await intents(bench) == []

    await wait_until(gone)
    assert await bench.client.call("KEYS", "cs:{s*}:schedule:*") == []


async def test_a_maker_that_is_too_slow_makes_no_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    change = bench.store.change

    async def slow(*arguments: object) -> object:
        bench.manual.advance(timedelta(seconds=31))
        return await change(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.store, "change", slow)
    with pytest.raises(Exception, match="too slow"):
        await bench.create(every=1)
    assert await bench.store.get(*NAME) is None


async def test_a_change_that_is_refused_leaves_no_intent(bench: Bench) -> None:
    await bench.create(every=1)
    with pytest.raises(Exception, match="other content"):
        await bench.create(every=2)
    assert await intents(bench) == []


async def test_an_older_copy_never_replaces_a_newer_one(bench: Bench) -> None:
    made = await bench.create(every=1, overlap=PARALLEL)
    first = await bench.store.get(*NAME)
    await bench.schedules.pause(*NAME, ADA)
    assert first is not None
    await bench.shards.place(made.uid, first, "ACTIVE", 0, 0)
    assert (await bench.placed()).state == "PAUSED"
    await bench.schedules.delete(*NAME, ADA)
    # A change of before the deletion that comes after it does not bring the schedule back.
    first.generation = 99
    await bench.shards.place(made.uid, first, "ACTIVE", 0, 0)
    await bench.pass_time(3 * SECOND)
    assert await bench.run() == []


async def test_what_a_deleted_schedule_leaves_has_an_end(bench: Bench) -> None:
    made = await bench.create(every=1, overlap=PARALLEL)
    await bench.pass_time(2 * SECOND)
    await bench.schedules.delete(*NAME, ADA)
    shard = bench.shards.shard(made.uid)
    left = await bench.client.call("KEYS", f"cs:{{s{shard}}}:*{made.uid}*")
    assert left == [keys.shard_schedule(shard, made.uid).encode()]
    assert 0 < await bench.client.call("TTL", left[0]) <= 86_400
    assert await bench.client.call("ZSCORE", keys.shard_due(shard), made.uid) is None
    assert await bench.client.call("ZCARD", keys.shard_intents(shard)) == 0


async def test_whoever_copies_and_however_often_the_cursor_is_the_same(bench: Bench) -> None:
    made = await bench.create(every=7)
    record = await bench.store.get(*NAME)
    assert record is not None
    before = await bench.placed()
    await bench.client.call("DEL", keys.shard_schedule(bench.shards.shard(made.uid), made.uid))
    bench.manual.advance(timedelta(minutes=5))
    intent = ScheduleIntent(tenant=TENANT, namespace=SPACE, schedule="beat", uid=made.uid, mutation_id="m")
    await bench.shards.announce(intent)
    await asyncio.gather(*(sweep(bench) for _ in range(5)))
    assert await bench.placed() == before


async def test_concurrent_changes_end_in_the_newest_one(bench: Bench) -> None:
    await bench.create(every=1, overlap=PARALLEL)
    calls = [
        bench.schedules.pause(*NAME, ADA) if turn % 2 else bench.schedules.resume(*NAME, ADA) for turn in range(20)
    ]
    await asyncio.gather(*calls)
    record = await bench.store.get(*NAME)
    assert isinstance(record, ScheduleRecord)
    placed = await bench.placed()
    assert placed.generation == record.generation
    assert placed.record == record
    assert await intents(bench) == []


async def test_a_change_that_cannot_be_read_does_not_stop_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        die_before(patch, bench.shards, "place")
        for name in ("bad", "good"):
            with pytest.raises(Died):
                await bench.create(name, every=1, overlap=PARALLEL)
    await bench.client.call("SET", keys.schedule(TENANT, SPACE, "bad"), b"\xff\xff")
    await sweep(bench)
    await bench.pass_time(2 * SECOND)
    assert {each.trigger.schedule.schedule for each in await bench.run()} == {"good"}


async def test_without_generations_an_older_copy_would_replace_a_newer_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control run of what never replaces a newer copy."""
    made = await bench.create(every=1, overlap=PARALLEL)
    first = await bench.store.get(*NAME)
    await bench.schedules.pause(*NAME, ADA)
    guard = "tonumber(stored[1]) >= tonumber(ARGV[1])"
    text = shard_store._PLACE.text
    assert guard in text
    monkeypatch.setattr(shard_store, "_PLACE", Script(text.replace(guard, "false"), "0" * 40))
    assert first is not None
    first.cursor_generation = 9
    await bench.shards.place(made.uid, first, "ACTIVE", 0, 0)
    assert (await bench.placed()).state == "ACTIVE"
