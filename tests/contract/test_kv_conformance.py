"""What `cs.kv` promises, for each place where values are kept: the store, and the memory of a local run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import timedelta

import pytest

from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.userkv import KvQuota, UserKvStore
from cs_invoker.host_kv import StoredKeyValues
from cs_sandbox.host.kv import KeyValues
from cs_sandbox.host.memory_kv import MemoryKeyValues
from cs_sandbox.job import HostCallError
from tests.support.waiting import wait_until

TENANT = "t_alpha0"
QUOTA = KvQuota(keys=5, bytes=100)
FULL = "CS_RUNTIME_QUOTA_EXCEEDED"


@pytest.fixture(params=["store", "memory"])
def values(request: pytest.FixtureRequest) -> KeyValues:
    if request.param == "memory":
        return MemoryKeyValues(time.monotonic, QUOTA.keys, QUOTA.bytes)
    client: KvClient = request.getfixturevalue("kv")
    return StoredKeyValues(UserKvStore(client, 1000, QUOTA), TENANT)


async def reason_of(call: Awaitable[object]) -> str:
    with pytest.raises(HostCallError) as caught:
        await call
    return caught.value.reason


async def test_a_value_is_kept_replaced_and_removed(values: KeyValues) -> None:
    assert await values.get("a") is None
    await values.set("a", b"1", None)
    await values.set("a", b'"\xc3\xa9"', None)
    assert await values.get("a") == b'"\xc3\xa9"'
    assert await values.delete("a")
    assert not await values.delete("a")
    assert await values.get("a") is None


async def test_a_counter_begins_at_0_and_stays_exact(values: KeyValues) -> None:
    assert await values.incr("n", 1) == 1
    assert await values.incr("n", -3) == -2
    assert await values.get("n") == b"-2"
    await values.set("big", b"9007199254740990", None)
    assert await values.incr("big", 1) == 2**53 - 1
    assert await reason_of(values.incr("big", 1)) == "CS_VALIDATION_FIELD"
    assert await values.get("big") == b"9007199254740991"


@pytest.mark.parametrize("stored", [b'"1"', b"1.5", b"null", b"[1]", b"99999999999999999999"])
async def test_what_is_no_integer_is_not_counted(values: KeyValues, stored: bytes) -> None:
    await values.set("a", stored, None)
    assert await reason_of(values.incr("a", 1)) == "CS_VALIDATION_FIELD"
    assert await values.get("a") == stored


async def test_keys_are_listed_in_the_order_of_their_bytes_from_behind_a_key_on(values: KeyValues) -> None:
    for key in ("b/2", "a", "b/é", "b/1", "b0"):
        await values.set(key, b"1", None)
    assert await values.list_keys("b/", after="", limit=10) == ["b/1", "b/2", "b/é"]
    assert await values.list_keys("b/", after="b/1", limit=1) == ["b/2"]
    assert await values.list_keys("b/", after="b/é", limit=10) == []
    assert await values.list_keys("", after="", limit=2) == ["a", "b/1"]


async def test_a_value_goes_when_its_time_has_passed_and_a_counter_keeps_its_time(values: KeyValues) -> None:
    await values.set("a", b"1", timedelta(milliseconds=150))
    await values.set("b", b"1", timedelta(milliseconds=150))
    await values.set("b", b"2", None)
    assert await values.incr("a", 1) == 2

    async def gone() -> bool:
        return await values.get("a") is None

    await wait_until(gone)
    assert await values.list_keys("", after="", limit=10) == ["b"]
    assert await values.incr("a", 5) == 5


async def test_there_is_room_for_so_many_keys(values: KeyValues) -> None:
    for number in range(5):
        await values.set(f"k{number}", b"1", None)
    assert await reason_of(values.set("k5", b"1", None)) == FULL
    assert await reason_of(values.incr("k5", 1)) == FULL
    await values.set("k0", b"2", None)
    assert await values.incr("k0", 1) == 3
    await values.delete("k1")
    await values.set("k5", b"1", None)


async def test_there_is_room_for_so_many_bytes_of_keys_and_values(values: KeyValues) -> None:
    await values.set("aaaaaaaaaa", b"x" * 80, None)
    assert await reason_of(values.set("b", b"x" * 10, None)) == FULL
    assert await values.get("b") is None
    await values.set("b", b"x" * 9, None)
    assert await reason_of(values.set("aaaaaaaaaa", b"x" * 81, None)) == FULL
    await values.set("aaaaaaaaaa", b"x" * 10, None)
    await values.set("b", b"x" * 79, None)


async def test_what_has_expired_leaves_its_room(values: KeyValues) -> None:
    for number in range(5):
        await values.set(f"k{number}", b"x" * 15, timedelta(milliseconds=100))

    async def stored() -> bool:
        try:
            await values.set("new", b"x" * 90, None)
        except HostCallError as error:
            assert error.reason == FULL
            return False
        return True

    await wait_until(stored)
    assert await values.list_keys("", after="", limit=10) == ["new"]


async def test_quotas_hold_when_many_write_at_once(kv: KvClient) -> None:
    store = UserKvStore(kv, 1000, KvQuota(keys=20, bytes=100_000))

    async def write(number: int) -> bool:
        try:
            await StoredKeyValues(store, TENANT).set(f"k{number}", b"1", None)
        except HostCallError:
            return False
        return True

    written = await asyncio.gather(*(write(number) for number in range(100)))
    assert sum(written) == 20
    assert await store.usage(TENANT) == KvQuota(20, sum(len(f"k{n}") + 1 for n in range(100) if written[n]))


async def test_the_books_of_the_store_are_right_after_any_history(kv: KvClient) -> None:
    import random

    store, source = UserKvStore(kv, 1000, KvQuota(keys=8, bytes=200)), random.Random(7)
    values = StoredKeyValues(store, TENANT)
    for _ in range(400):
        key = f"k{source.randrange(12)}"
        try:
            match source.randrange(4):
                case 0:
                    await values.delete(key)
                case 1:
                    await values.incr(key, source.randrange(-50, 5000))
                case _:
                    ttl = source.choice([None, timedelta(milliseconds=3)])
                    await values.set(key, b"%d" % source.randrange(10 ** source.randrange(1, 15)), ttl)
        except HostCallError as error:
            assert error.reason == FULL
    for number in range(12):
        await values.delete(f"k{number}")
    assert await store.usage(TENANT) == KvQuota(0, 0)
    left = [key for key in (await kv.call("KEYS", "*")) if b":kv:" in key]
    assert left == []


async def test_another_tenant_has_room_of_its_own(kv: KvClient) -> None:
    store = UserKvStore(kv, 1000, KvQuota(keys=1, bytes=100))
    await store.set(TENANT, "a", b"1")
    await store.set("t_beta00", "a", b"2")
    assert await store.get(TENANT, "a") == b"1"
    assert await kv.call("EXISTS", keys.user_value(TENANT, "b")) == 0
