"""The store is asked now and then, and whenever a tenant would be refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from cs_core.clock import ManualClock
from cs_core.store.activations import ActivationStore
from cs_gateway.open_counts import FRESH, OpenCounts


class Store:
    """Counts what a test says."""

    def __init__(self) -> None:
        self.open = 0
        self.asked = 0
        self.gate: asyncio.Event | None = None

    async def count_open(self, _tenant: str) -> int:
        self.asked += 1
        found = self.open
        if self.gate is not None:
            await self.gate.wait()
        return found


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def counts(store: Store, clock: ManualClock) -> OpenCounts:
    return OpenCounts(cast(ActivationStore, store), clock)


async def test_a_count_is_used_for_a_while(counts: OpenCounts, store: Store, clock: ManualClock) -> None:
    for _ in range(3):
        assert await counts.at_limit("t", 10) == 0
    assert store.asked == 1
    clock.advance(timedelta(seconds=FRESH))
    assert await counts.at_limit("t", 10) == 0
    assert store.asked == 2


async def test_what_is_accepted_here_counts_at_once(counts: OpenCounts, store: Store) -> None:
    store.open = 7
    assert await counts.at_limit("t", 10) == 0
    for _ in range(3):
        counts.add("t")
    store.open = 10
    assert await counts.at_limit("t", 10) == 10
    assert await counts.at_limit("other", 11) == 0


async def test_nobody_is_refused_by_a_count_that_is_old(counts: OpenCounts, store: Store) -> None:
    store.open = 10
    assert await counts.at_limit("t", 10) == 10
    store.open = 9
    assert await counts.at_limit("t", 10) == 0


async def test_at_the_limit_each_request_is_counted_anew(counts: OpenCounts, store: Store) -> None:
    store.open = 10
    assert [await counts.at_limit("t", 10) for _ in range(3)] == [10, 10, 10]
    assert store.asked == 3


async def test_what_is_accepted_while_the_store_counts_is_not_forgotten(counts: OpenCounts, store: Store) -> None:
    assert await counts.at_limit("t", 3) == 0
    store.gate = asyncio.Event()
    counts.add("t")
    counts.add("t")
    counts.add("t")
    # At three of three by what is known: the store is asked, and still says two, and meanwhile one more is accepted.
    store.open = 2
    asking = asyncio.ensure_future(counts.at_limit("t", 3))
    await asyncio.sleep(0)
    counts.add("t")
    store.gate.set()
    assert await asking == 0
    store.gate, store.open = None, 3
    assert await counts.at_limit("t", 3) == 3
