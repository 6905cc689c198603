"""The bundle cache: bounded by count and bytes, one load per key, nothing kept of a failed load."""

from __future__ import annotations

import asyncio

import pytest

from cs_invoker.bundle_cache import BundleCache
from cs_sandbox.job import Bundle


class Source:
    """Loads bundles of a given size and counts the loads."""

    def __init__(self, size: int = 10) -> None:
        self.size = size
        self.loads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def load(self, sha256: str):
        async def load() -> Bundle:
            self.loads.append(sha256)
            await self.gate.wait()
            return Bundle(sha256, "a", {"a": b"x" * (self.size - 1)})

        return load

    async def get(self, cache: BundleCache, sha256: str) -> Bundle:
        return await cache.get(sha256, "a", self.load(sha256))


async def test_a_bundle_is_loaded_once() -> None:
    cache, source, lookups = BundleCache(10, 1000), Source(), []
    cache = BundleCache(10, 1000, lookups.append)
    first, second = await source.get(cache, "s1"), await source.get(cache, "s1")
    assert first is second
    assert source.loads == ["s1"]
    assert lookups == [False, True]


async def test_the_least_recently_used_goes_first_when_there_are_too_many() -> None:
    cache, source = BundleCache(2, 1000), Source()
    for sha in ("s1", "s2", "s1", "s3", "s1", "s2"):
        await source.get(cache, sha)
    assert source.loads == ["s1", "s2", "s3", "s2"]
    assert len(cache) == 2


async def test_bytes_are_bounded() -> None:
    cache, source = BundleCache(100, 25), Source(10)
    for number in range(6):
        await source.get(cache, f"s{number}")
        assert cache.size <= 25
    assert len(cache) == 2


async def test_a_bundle_larger_than_the_cache_is_served_and_not_kept() -> None:
    cache, small, large = BundleCache(100, 25), Source(10), Source(100)
    await small.get(cache, "s1")
    await large.get(cache, "big")
    await small.get(cache, "s1")
    assert small.loads == ["s1"]
    assert (len(cache), cache.size) == (1, 10)


async def test_many_at_once_share_one_load() -> None:
    cache, source = BundleCache(10, 1000), Source()
    source.gate.clear()
    waiting = [asyncio.ensure_future(source.get(cache, "s1")) for _ in range(20)]
    await asyncio.sleep(0)
    source.gate.set()
    assert len({id(bundle) for bundle in await asyncio.gather(*waiting)}) == 1
    assert source.loads == ["s1"]


async def test_a_cancelled_waiter_does_not_take_the_load_from_the_others() -> None:
    cache, source = BundleCache(10, 1000), Source()
    source.gate.clear()
    first, second = (asyncio.ensure_future(source.get(cache, "s1")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert (await second).sha256 == "s1"
    assert source.loads == ["s1"]


async def test_a_failed_load_reaches_all_who_wait_and_is_tried_again_by_the_next() -> None:
    cache = BundleCache(10, 1000)
    calls = 0

    async def fail() -> Bundle:
        nonlocal calls
        calls += 1
        raise LookupError("gone")

    outcomes = await asyncio.gather(*(cache.get("s1", "a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
    with pytest.raises(LookupError):
        await cache.get("s1", "a", fail)
    assert calls == 2
    assert (len(cache), cache.size) == (0, 0)
