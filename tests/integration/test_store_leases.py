"""Leases with a fence, over a real store."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from cs_core.store.client import KvClient
from cs_core.store.leases import LeaseStore
from tests.support.waiting import wait_until

KEY = "cs:{s0}:lease"
LONG, SHORT = timedelta(seconds=30), timedelta(milliseconds=50)


async def test_one_holds_a_lease_at_a_time(kv: KvClient) -> None:
    leases = LeaseStore(kv)
    fences = await asyncio.gather(*(leases.take(KEY, f"owner-{number}", LONG) for number in range(8)))
    assert sorted(fence for fence in fences if fence is not None) == [1]
    holder = f"owner-{fences.index(1)}"
    assert await leases.take(KEY, holder, LONG) == 1
    assert await leases.renew(KEY, holder, 1, LONG)
    assert not await leases.renew(KEY, "owner-9", 1, LONG)


async def test_the_fence_grows_with_every_change_of_hands(kv: KvClient) -> None:
    leases = LeaseStore(kv)
    assert await leases.take(KEY, "first", SHORT) == 1
    assert await wait_until(lambda: leases.take(KEY, "second", LONG)) == 2
    # The first one does not know yet: it can neither hold on nor hand back.
    assert not await leases.renew(KEY, "first", 1, LONG)
    assert not await leases.release(KEY, "first", 1)
    assert await leases.release(KEY, "second", 2)
    assert await leases.take(KEY, "first", LONG) == 3


async def test_a_holder_that_lost_time_and_nothing_else_goes_on(kv: KvClient) -> None:
    leases = LeaseStore(kv)
    assert await leases.take(KEY, "first", timedelta(milliseconds=1)) == 1

    async def ended() -> bool:
        time, parts = await kv.call("TIME")
        return int(time) * 1000 + int(parts) // 1000 > int(await kv.call("HGET", KEY, "until"))

    await wait_until(ended)
    assert await leases.renew(KEY, "first", 1, LONG)
    assert await leases.take(KEY, "second", LONG) is None


async def test_a_lease_from_before_the_servers_clock_went_back_does_not_last(kv: KvClient) -> None:
    leases = LeaseStore(kv)
    assert await leases.take(KEY, "first", timedelta(minutes=5)) == 1
    assert await leases.take(KEY, "second", timedelta(seconds=5)) == 2
