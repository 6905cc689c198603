"""The schema of the store: who opens it, who refuses it, and what brings it to this release's."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.storage.v1.schema_pb2 import SchemaRecord
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cs_core.clock import ManualClock, SystemClock
from cs_core.errors import ConflictError, StoreSchemaError, UnavailableError
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.leases import LeaseStore
from cs_core.store.migrations.migrator import STEPS, Migrator, StepOutcome
from cs_core.store.overdue import OverdueStore
from cs_core.store.relay import RelayStore
from cs_core.store.schema import READABLE_FROM, VERSION, SchemaStore, judge
from cs_core.store.userkv import UserKvStore
from tests.support.old_store import unpack_old_store
from tests.support.redis_server import RedisServer
from tests.support.services import free_ports
from tests.support.waiting import wait_until

CLOCK = SystemClock()
QUICK = [(f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, without a record."""
    server = RedisServer(durable=True, fsync="no", schema=False)
    server.start()
    yield server
    server.close()


@pytest.fixture
async def bare(server: RedisServer) -> AsyncIterator[KvClient]:
    client = KvClient(server.url)
    yield client
    await client.close()


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[tuple[KvClient, dict[str, Any], str]]:
    """The store of the earlier commit, what is known of it, and its address."""
    known = unpack_old_store(tmp_path)
    server = RedisServer(durable=True, fsync="no", schema=False)
    shutil.copy(tmp_path / "store" / "appendonly.aof", server.folder)
    server.start()
    client = KvClient(server.url)
    yield client, known, server.url
    await client.close()
    server.close()


async def content(client: KvClient) -> dict[bytes, Any]:
    """What the store holds but for what tells of migrations."""
    commands: dict[bytes, tuple[str, ...]] = {
        b"string": ("GET", "{}"),
        b"hash": ("HGETALL", "{}"),
        b"zset": ("ZRANGE", "{}", "0", "-1", "WITHSCORES"),
        b"list": ("LRANGE", "{}", "0", "-1"),
        b"stream": ("XRANGE", "{}", "-", "+"),
    }
    values = {}
    async for page in client.scan("cs:"):
        for key in page:
            if not key.startswith(b"cs:{schema}"):
                kind = await client.call("TYPE", key)
                value = await client.call(*(key if part == "{}" else part for part in commands[kind]))
                # A server lists the fields of a hash in any order.
                values[key] = sorted(zip(value[::2], value[1::2], strict=True)) if kind == b"hash" else value
    return values


def process(url: str, folder: Path, package: str = "cs_scheduler", port: int = 0) -> list[str]:
    section = {"cs_scheduler": "scheduler", "cs_invoker": "invoker"}[package]
    config = folder / f"{package}.toml"
    config.write_text(f'[store]\nurl = "{url}"\ntimeout = 0.5\n[{section}]\nport = {port}\n')
    return [sys.executable, "-m", package, "--config", str(config)]


def test_the_version_is_that_of_the_last_step_and_each_follows_the_one_before() -> None:
    assert [step.version for step in STEPS] == list(range(1, VERSION + 1))
    assert max(step.readable_from for step in STEPS) == READABLE_FROM


@pytest.mark.parametrize(
    ("version", "readable_from", "fits"),
    [(3, 0, True), (2, 0, False), (0, 0, False), (4, 0, True), (4, 3, True), (4, 4, False), (9, 5, False)],
)
def test_a_store_fits_who_knows_its_schema_or_may_read_a_newer_one(
    version: int, readable_from: int, fits: bool
) -> None:
    record = SchemaRecord(version=version, readable_from=readable_from, release="9.9")
    if fits:
        judge(record, known=3)
    else:
        with pytest.raises(StoreSchemaError, match=f"schema {version}"):
            judge(record, known=3)


async def test_whoever_opens_an_empty_store_first_makes_its_schema(bare: KvClient) -> None:
    schema = SchemaStore(bare, CLOCK)
    assert await schema.read() is None
    opened = await asyncio.gather(*(SchemaStore(bare, CLOCK).open() for _ in range(5)))
    assert {record.version for record in opened} == {VERSION}
    stored = await schema.read()
    assert stored is not None
    assert all(record == stored for record in opened)
    assert (stored.readable_from, stored.release != "") == (READABLE_FROM, True)


async def test_a_store_with_data_and_no_record_is_of_version_0(bare: KvClient) -> None:
    await bare.call("SET", "cs:{t_before1}:function:default/greet", b"")
    with pytest.raises(StoreSchemaError, match="schema 0 and this release needs"):
        await SchemaStore(bare, CLOCK).open()
    assert await bare.call("GET", keys.schema()) is None
    assert await Migrator(bare, CLOCK).version() == 0


async def test_what_others_keep_in_the_same_server_is_no_data(bare: KvClient) -> None:
    await bare.call("SET", "session:1", b"theirs")
    assert (await SchemaStore(bare, CLOCK).open()).version == VERSION


async def test_a_running_process_learns_that_its_store_was_migrated_past_it_or_emptied(bare: KvClient) -> None:
    schema = SchemaStore(bare, CLOCK)
    await schema.open()
    await bare.call("FLUSHALL")
    await schema.probe()
    assert await schema.advance(VERSION + 1, 0)
    await schema.probe()
    assert await schema.advance(VERSION + 2, VERSION + 2)
    with pytest.raises(StoreSchemaError, match=f"run one that knows schema {VERSION + 2}"):
        await schema.probe()


async def test_the_version_goes_up_by_one_from_the_one_before(bare: KvClient) -> None:
    schema = SchemaStore(bare, CLOCK)
    assert not await schema.advance(2, 0)
    assert await schema.advance(1, 0)
    assert not await schema.advance(1, 0)
    assert (await asyncio.gather(*(schema.advance(2, 0) for _ in range(5)))).count(True) == 1


async def test_a_process_refuses_a_store_of_another_schema(
    old: tuple[KvClient, dict[str, Any], str], tmp_path: Path
) -> None:
    before = await content(old[0])

    def run(url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(process(url, tmp_path), capture_output=True, text=True, timeout=60, check=False)

    ended = await asyncio.to_thread(run, old[2])
    assert (ended.returncode, ended.stderr) == (
        3,
        f"cs-scheduler: CS_STORE_SCHEMA: the store has schema 0 and this release needs {VERSION}; `cs store migrate`"
        " brings it there\n",
    )
    assert await content(old[0]) == before


async def test_a_process_waits_for_a_store_that_is_away_and_says_so(server: RedisServer, tmp_path: Path) -> None:
    server.kill()
    (port,) = free_ports({"scheduler": "x"}).values()
    running = subprocess.Popen(process(server.url, tmp_path, port=port), stdout=subprocess.DEVNULL)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=QUICK) as channel:

            async def health() -> int | None:
                assert running.poll() is None
                try:
                    stub: Any = health_pb2_grpc.HealthStub(channel)
                    return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)).status)
                except grpc.aio.AioRpcError:
                    return None

            async def says(status: int) -> bool:
                return await health() == status

            await wait_until(lambda: says(health_pb2.HealthCheckResponse.NOT_SERVING), within=60)
            server.start()
            await wait_until(lambda: says(health_pb2.HealthCheckResponse.SERVING), within=60)
        running.terminate()
        assert await asyncio.to_thread(running.wait, 30) == 0
    finally:
        running.kill()
        running.wait()


async def test_an_old_store_is_migrated_step_by_step(old: tuple[KvClient, dict[str, Any], str]) -> None:
    client, known, _ = old
    tenant = known["tenant"]
    partitions = 16
    ends = OverdueStore(client)
    far = datetime.now(UTC) + timedelta(days=365 * 200)
    assert await RelayStore(client).listed() == []
    assert [await ends.find(number, far, 100) for number in range(partitions)] == [[]] * partitions
    assert (await UserKvStore(client, 1000).usage(tenant)).bytes == 0
    before = await content(client)

    planned: list[StepOutcome] = []
    await Migrator(client, CLOCK).plan(planned.append)
    assert await content(client) == before
    assert await Migrator(client, CLOCK).version() == 0

    done: list[StepOutcome] = []
    await Migrator(client, CLOCK).migrate(done.append)
    assert done == planned
    assert [outcome.step.version for outcome in done] == [1, 2, 3]
    assert all(outcome.changed for outcome in done)
    record = await SchemaStore(client, CLOCK).open()
    assert record.version == VERSION
    assert [listing.tenant for listing in await RelayStore(client).listed()] == [tenant]
    noted = {
        request.activation_id: number for number in range(partitions) for request in await ends.find(number, far, 100)
    }
    assert {known["lost"], known["waiting"], known["running"]} <= noted.keys()
    assert known["done"] not in noted
    overdue = [each for number in range(partitions) for each in await ends.find(number, datetime.now(UTC), 100)]
    assert [request.activation_id for request in overdue] == [known["lost"]]
    usage = await UserKvStore(client, 1000).usage(tenant)
    assert (usage.keys, usage.bytes) == (2, len("cart/last" + '{"item":7}' + "cart/count" + "1"))

    # Again, whoever runs it: there is nothing left, and nothing changes.
    after = await content(client)
    await client.call("DEL", keys.schema())
    again: list[StepOutcome] = []
    await Migrator(client, CLOCK).migrate(again.append)
    assert [outcome.changed for outcome in again] == [0, 0, 0]
    assert await content(client) == after


@pytest.mark.parametrize("step", range(3))
async def test_a_migration_that_dies_half_way_is_begun_again(
    old: tuple[KvClient, dict[str, Any], str], step: int
) -> None:
    client, _, _ = old

    async def dying(client: KvClient, key: str, *, dry: bool) -> int:
        changed = await STEPS[step].change(client, key, dry=dry)
        if changed and not dry:
            raise UnavailableError("CS_STORE_UNAVAILABLE", "the migrator died here")
        return changed

    broken = [replace(each, change=dying) if each is STEPS[step] else each for each in STEPS]
    with pytest.raises(UnavailableError, match="died here"):
        await Migrator(client, CLOCK, broken).migrate(lambda _: None)
    assert await Migrator(client, CLOCK).version() == step
    with pytest.raises(StoreSchemaError):
        await SchemaStore(client, CLOCK).open()
    done: list[StepOutcome] = []
    await Migrator(client, CLOCK).migrate(done.append)
    assert [outcome.step.version for outcome in done] == list(range(step + 1, VERSION + 1))
    again: list[StepOutcome] = []
    await client.call("DEL", keys.schema())
    await Migrator(client, CLOCK).plan(again.append)
    assert [outcome.changed for outcome in again] == [0, 0, 0]


async def test_one_migrator_works_and_the_others_find_it_done(old: tuple[KvClient, dict[str, Any], str]) -> None:
    client, _, _ = old
    done: list[StepOutcome] = []
    await asyncio.gather(*(Migrator(client, CLOCK).migrate(done.append) for _ in range(4)))
    assert [outcome.step.version for outcome in done] == [1, 2, 3]


async def test_a_migrator_gives_up_when_another_goes_on_for_too_long(
    old: tuple[KvClient, dict[str, Any], str],
) -> None:
    client, _, _ = old
    fence = await LeaseStore(client).take(keys.schema_lease(), "another", timedelta(seconds=15))
    with pytest.raises(ConflictError, match="being migrated by another"):
        await Migrator(client, ManualClock(datetime.now(UTC)), wait=timedelta(0)).migrate(lambda _: None)
    assert fence is not None
    await LeaseStore(client).release(keys.schema_lease(), "another", fence)
    await Migrator(client, CLOCK).migrate(lambda _: None)


async def test_a_store_that_is_newer_is_not_migrated(bare: KvClient) -> None:
    newer = SchemaRecord(version=VERSION + 2, readable_from=VERSION + 1, release="9.9")
    await bare.call("SET", keys.schema(), newer.SerializeToString())
    with pytest.raises(StoreSchemaError, match="by release 9"):
        await Migrator(bare, CLOCK).migrate(lambda _: None)
