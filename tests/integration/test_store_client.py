"""The store's client, transactions over it, and the values of functions."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import redis.exceptions

from cs_core.errors import ConflictError, TooLargeError, UnavailableError, ValidationError
from cs_core.store.client import KvClient
from cs_core.store.transaction import StaleError, Transaction, retry_when_stale
from cs_core.store.userkv import UserKvStore
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

A, B = "cs:{t_alpha0}:a", "cs:{t_alpha0}:b"


async def test_replies_belong_to_their_commands_however_many_at_once(kv: KvClient) -> None:
    await asyncio.gather(*(kv.call("SET", f"k{number}", number) for number in range(2000)))
    replies = await asyncio.gather(*(kv.call("GET", f"k{number}") for number in range(2000)))
    assert replies == [str(number).encode() for number in range(2000)]


async def test_one_refused_command_fails_alone(kv: KvClient) -> None:
    good, bad, after = kv.call("SET", "a", 1), kv.call("INCR", "a", "too", "many"), kv.call("GET", "a")
    assert await good == b"OK"
    with pytest.raises(redis.exceptions.ResponseError):
        await bad
    assert await after == b"1"


async def test_a_server_that_is_away_is_a_typed_error_and_the_client_recovers() -> None:
    server = RedisServer(durable=True)
    server.start()
    client = KvClient(server.url, timeout=1.0)
    try:
        await client.call("SET", "a", "kept")
        server.kill()
        with pytest.raises(UnavailableError) as caught:
            await client.call("GET", "a")
        assert caught.value.reason == "CS_STORE_UNAVAILABLE"
        assert caught.value.retry_after is not None
        server.start()

        async def kept() -> bool:
            try:
                return bool(await client.call("GET", "a") == b"kept")
            except UnavailableError:
                return False

        await wait_until(kept)
    finally:
        await client.close()
        server.close()


async def test_a_reply_that_is_late_fails_its_command_and_is_never_anothers() -> None:
    server = RedisServer()
    server.start()
    client = KvClient(server.url, timeout=0.3)
    try:
        await client.call("MSET", "a", "first", "b", "second")
        server.stall()
        late = [client.call("GET", "a") for _ in range(3)]
        for answer in await asyncio.wait_for(asyncio.gather(*late, return_exceptions=True), 20):
            assert isinstance(answer, UnavailableError)
        server.go_on()

        async def second() -> bool:
            try:
                return bool(await client.call("GET", "b") == b"second")
            except UnavailableError:
                return False

        await wait_until(second)
    finally:
        await client.close()
        server.close()


async def test_what_is_small_does_not_wait_behind_much(kv: KvClient) -> None:
    """Beyond what one connection has under way, more are opened; the replies still find their commands."""
    await kv.call("SET", "large", b"x" * 4_000_000)
    replies = await asyncio.gather(
        *(kv.call("GET", "large") for _ in range(8)), *(kv.call("ECHO", f"{number}") for number in range(500))
    )
    again = await asyncio.gather(*(kv.call("ECHO", f"{number}") for number in range(500)))
    assert [len(reply) for reply in replies[:8]] == [4_000_000] * 8
    assert replies[8:] == again == [str(number).encode() for number in range(500)]


async def test_closing_waits_for_what_was_asked(redis_url: str) -> None:
    client = KvClient(redis_url)
    asked = [client.call("SET", "asked", "before"), client.call("GET", "asked")]
    await client.close()
    assert await asyncio.gather(*asked) == [b"OK", b"before"]


async def test_a_caller_that_gives_up_takes_nobody_with_it(kv: KvClient) -> None:
    waiting = [asyncio.ensure_future(_get(kv, "a")) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[3].cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers].count("CancelledError") == 1
    assert await kv.call("PING") in (b"PONG", "PONG")


async def _get(kv: KvClient, key: str) -> object:
    return await kv.call("GET", key)


async def test_a_closed_client_says_so(redis_url: str) -> None:
    client = KvClient(redis_url)
    await client.close()
    with pytest.raises(UnavailableError):
        await client.call("PING")


async def test_a_transaction_is_all_or_nothing(kv: KvClient) -> None:
    await kv.call("SET", A, "1")
    stale = Transaction()
    stale.expect(A, b"0")
    stale.write("SET", A, "2")
    stale.write("SET", B, "2")
    with pytest.raises(StaleError):
        await stale.commit(kv)
    assert (await kv.call("GET", A), await kv.call("GET", B)) == (b"1", None)
    fresh = Transaction()
    fresh.expect(A, b"1")
    fresh.expect(B, None)
    fresh.write("SET", A, "2")
    fresh.write("HSET", B, "field", b"\0\xff")
    await fresh.commit(kv)
    assert (await kv.call("GET", A), await kv.call("HGET", B, "field")) == (b"2", b"\0\xff")


async def test_increments_by_read_compute_commit_lose_none(kv: KvClient) -> None:
    await kv.call("SET", A, "0")

    async def step() -> None:
        seen = await kv.call("GET", A)
        transaction = Transaction()
        transaction.expect(A, seen)
        transaction.write("SET", A, int(seen) + 1)
        await transaction.commit(kv)

    await asyncio.gather(*(retry_when_stale(step, "the counter") for _ in range(24)))
    assert await kv.call("GET", A) == b"24"


async def test_who_always_comes_too_late_is_told(kv: KvClient) -> None:
    async def step() -> None:
        raise StaleError

    with pytest.raises(ConflictError) as caught:
        await retry_when_stale(step, "the counter")
    assert caught.value.reason == "CS_CONFLICT_CONCURRENT"


@pytest.fixture
def values(kv: KvClient) -> UserKvStore:
    return UserKvStore(kv, max_value_bytes=100)


async def test_values_are_the_tenants_own(values: UserKvStore) -> None:
    await values.set("t_alpha0", "k", b"a")
    await values.set("t_beta00", "k", b"b")
    assert (await values.get("t_alpha0", "k"), await values.get("t_beta00", "k")) == (b"a", b"b")
    assert await values.delete("t_alpha0", "k")
    assert not await values.delete("t_alpha0", "k")
    assert await values.get("t_alpha0", "k") is None


async def test_a_value_with_a_time_to_live_goes(values: UserKvStore) -> None:
    await values.set("t_alpha0", "k", b"a", timedelta(milliseconds=50))

    async def gone() -> bool:
        return await values.get("t_alpha0", "k") is None

    await wait_until(gone)
    assert await values.list_keys("t_alpha0", "") == []


async def test_keys_are_listed_in_order_below_their_prefix(values: UserKvStore) -> None:
    for key in ("b", "a/2", "a/1", "a", "é", "a/\U0001f600"):
        await values.set("t_alpha0", key, b"x")
    assert await values.list_keys("t_alpha0", "a/") == ["a/1", "a/2", "a/\U0001f600"]
    assert await values.list_keys("t_alpha0", "a/", after="a/1", limit=1) == ["a/2"]
    assert await values.list_keys("t_alpha0", "") == ["a", "a/1", "a/2", "a/\U0001f600", "b", "é"]


async def test_a_counter_counts_and_refuses_what_is_no_number(values: UserKvStore) -> None:
    results = await asyncio.gather(*(values.incr("t_alpha0", "n", 2) for _ in range(10)))
    assert sorted(results) == list(range(2, 21, 2))
    await values.set("t_alpha0", "text", b"abc")
    with pytest.raises(ValidationError):
        await values.incr("t_alpha0", "text", 1)
    with pytest.raises(ValidationError):
        await values.incr("t_alpha0", "n", 2**63 - 1)


@pytest.mark.parametrize("key", ["", "k" * 513, "é" * 257])
async def test_keys_have_a_size(values: UserKvStore, key: str) -> None:
    with pytest.raises(ValidationError):
        await values.get("t_alpha0", key)


async def test_values_have_a_size(values: UserKvStore) -> None:
    with pytest.raises(TooLargeError):
        await values.set("t_alpha0", "k", b"x" * 101)
    with pytest.raises(ValidationError):
        await values.set("t_alpha0", "k", b"x", timedelta(0))
