"""The relay over a real store and a real ledger: nothing missing, nothing twice, order kept, whoever dies where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from codesous.control.v1.function_service_pb2 import CreateFunctionRequest
from codesous.type.v1.principal_pb2 import Principal
from prometheus_client import CollectorRegistry

from cs_control.functions import Functions
from cs_control.mutations import Actor
from cs_core.audit.contract import NOTHING, Ledger, LedgerEntry
from cs_core.audit.metrics import RelayMetrics
from cs_core.audit.no_ledger import NoLedger
from cs_core.audit.relay import Gap, Relay, pass_gap
from cs_core.clock import ManualClock, SystemClock
from cs_core.config import AuditSettings
from cs_core.errors import ExpiredError
from cs_core.store import keys
from cs_core.store import relay as relay_module
from cs_core.store.client import KvClient
from cs_core.store.functions import FunctionStore
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.mutations import OLDEST, MutationLog
from cs_core.store.relay import FencedError, Listing, RelayStore, list_for_relay
from tests.support.ledgers import TENANTS, KeptInFiles
from tests.support.waiting import wait_until

TENANT = TENANTS[0]
FAST = {"lease": 1.0, "poll_interval": 0.1, "batch": 3}


class DiedError(Exception):
    """What a relay that dies in a gap raises."""


async def create(client: KvClient, count: int, tenant: str = TENANT, start: int = 0) -> None:
    functions = Functions(FunctionStore(client), SystemClock())
    actor = Actor(Principal(subject="ada", tenant=tenant), "")
    for number in range(start, start + count):
        request = CreateFunctionRequest(tenant=tenant, namespace="default", function=f"fn-{number}")
        await functions.create(request, actor)


async def logged(client: KvClient, tenant: str = TENANT) -> list[str]:
    """The mutation ids in a tenant's log."""
    return [mutation.mutation_id for _, mutation in await MutationLog(client).read(tenant, after="", limit=10_000)]


class Relays:
    """Starts relays over one store and one ledger."""

    def __init__(self, client: KvClient, folder: Path) -> None:
        self.client = client
        self.kept = KeptInFiles(folder / "ledger", 4096)
        self.store = RelayStore(client)
        self.registry = CollectorRegistry()

    @asynccontextmanager
    async def running(
        self, instance: str = "control-1", *, ledger: Ledger | None = None, at_gap: Any = pass_gap, **settings: Any
    ) -> AsyncIterator[Relay]:
        bell = MutationBell(self.client.url)
        self.registry = CollectorRegistry()
        clock = SystemClock()
        relay = Relay(
            self.store,
            ledger or self.kept.ledger(),
            bell,
            AuditSettings(**{**FAST, **settings}),
            clock,
            RelayMetrics(self.registry, clock),
            instance,
            at_gap,
        )
        async with bell.running(), relay.running():
            yield relay

    async def read(self, tenant: str = TENANT) -> list[str]:
        """The mutation ids of a tenant that the ledger has."""
        if not self.kept.folder.exists():
            return []
        return [e.mutation.mutation_id for e in self.kept.entries() if e.mutation.tenant == tenant]

    async def idle(self) -> bool:
        """Whether nothing is listed as waiting."""
        return await self.store.listed() == []

    def value(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, labels)
        assert value is not None
        return value


@pytest.fixture
def relays(kv: KvClient, tmp_path: Path) -> Relays:
    return Relays(kv, tmp_path)


async def test_what_was_and_what_comes_is_relayed_in_order_and_idle_tenants_are_not_listed(relays: Relays) -> None:
    await create(relays.client, 7)
    await create(relays.client, 4, TENANTS[1])
    assert {listing.tenant for listing in await relays.store.listed()} == set(TENANTS)
    async with relays.running():
        await wait_until(relays.idle)
        await create(relays.client, 5, start=7)
        await wait_until(relays.idle)
        for tenant, count in zip(TENANTS, (12, 4), strict=True):
            found = await relays.read(tenant)
            assert len(found) == count
            assert found == await logged(relays.client, tenant)
        assert relays.value("cs_audit_relayed_total") == 16
        assert relays.value("cs_audit_relay_lag_seconds") == 0
        assert relays.value("cs_audit_relay_leader") == 1
    head = await relays.store.head("main")
    assert head is not None
    found = await relays.kept.ledger().verify(head)
    assert (found.entries, found.head, found.faults) == (16, head, ())


async def test_the_bell_wakes_the_relay_long_before_its_slow_poll(relays: Relays) -> None:
    async with relays.running(poll_interval=60):
        await create(relays.client, 1)
        await wait_until(relays.idle)
        await create(relays.client, 1, start=1)
        await wait_until(relays.idle)
    assert len(await relays.read()) == 2


@pytest.mark.parametrize("gap", list(Gap))
@pytest.mark.parametrize("batches", [1, 2])
async def test_a_crash_in_any_gap_loses_nothing_and_doubles_nothing(relays: Relays, gap: Gap, batches: int) -> None:
    await create(relays.client, 8)
    passed, died = 0, asyncio.Event()

    async def die(here: Gap) -> None:
        nonlocal passed
        passed += here is gap
        if passed >= batches:
            died.set()
            await asyncio.Event().wait()

    async with relays.running(at_gap=die):
        await died.wait()
    async with relays.running("control-2"):
        await wait_until(relays.idle)
    assert await relays.read() == await logged(relays.client)
    assert (await relays.kept.ledger().verify(await relays.store.head("main") or "")).sound


async def test_of_several_processes_one_relays_and_another_follows_when_it_is_gone(relays: Relays) -> None:
    passing: list[str] = []

    def noting(name: str) -> Any:
        async def note(_gap: Gap) -> None:
            passing.append(name)

        return note

    async with relays.running("control-2", at_gap=noting("second")):
        await create(relays.client, 4)
        await wait_until(relays.idle)
        async with relays.running("control-1", at_gap=noting("first")):
            await create(relays.client, 4, start=4)
            await wait_until(relays.idle)
            assert set(passing) == {"second"}
    async with relays.running("control-1", at_gap=noting("first")):
        await create(relays.client, 4, start=8)
        await wait_until(relays.idle)
    assert set(passing) == {"first", "second"}
    assert await relays.read() == await logged(relays.client)


async def test_a_relay_that_wakes_after_its_lease_ended_changes_nothing(relays: Relays) -> None:
    await create(relays.client, 8)
    old = RelayStore(relays.client)
    token = await old.lease("control-old", timedelta(milliseconds=1))
    assert token > 0
    (listing,), waiting = await old.listed(), await old.waiting(TENANT, 3)
    async with relays.running("control-new"):
        await wait_until(relays.idle)
    cursor = await relays.client.call("HGET", keys.relay_state(TENANT), "cursor")
    with pytest.raises(FencedError):
        await old.advance(TENANT, waiting[0][0], datetime.now(UTC), token)
    with pytest.raises(FencedError):
        await old.set_head("main", "1:" + "0" * 64, token)
    with pytest.raises(FencedError):
        await old.unlist(listing, token)
    assert await relays.client.call("HGET", keys.relay_state(TENANT), "cursor") == cursor
    assert await relays.read() == await logged(relays.client)


async def test_a_lease_is_one_holders_until_it_ends_or_is_released(relays: Relays) -> None:
    store, long = relays.store, timedelta(seconds=60)
    first = await store.lease("a", long)
    assert (first, await store.lease("a", long), await store.lease("b", long)) == (1, 1, 0)
    await store.release(first + 1)
    assert await store.lease("b", long) == 0
    await store.release(first)
    assert await store.lease("b", timedelta(milliseconds=20)) == 2
    await wait_until(lambda: store.lease("a", long))
    assert await store.lease("a", long) == 3


async def test_while_the_ledger_is_away_mutations_wait_and_the_lag_tells_it(relays: Relays) -> None:
    await create(relays.client, 3)
    async with relays.running():
        await wait_until(relays.idle)
        folder = relays.kept.folder
        folder.rename(folder.with_name("away"))
        await create(relays.client, 5, start=3)
        await wait_until(lambda: relays.value("cs_audit_ledger_failures_total", kind="unavailable") > 0)
        await wait_until(lambda: relays.value("cs_audit_relay_lag_seconds") > 0)
        assert not folder.exists()
        folder.with_name("away").rename(folder)
        await wait_until(relays.idle)
        await wait_until(lambda: relays.value("cs_audit_relay_lag_seconds") == 0)
    assert await relays.read() == await logged(relays.client)


async def test_a_ledger_whose_end_was_cut_off_takes_nothing_more(relays: Relays) -> None:
    await create(relays.client, 5)
    async with relays.running(file_bytes=1024 * 1024):
        await wait_until(relays.idle)
    path = sorted(relays.kept.folder.glob("*.jsonl"))[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    async with relays.running():
        await create(relays.client, 1, start=5)
        await wait_until(lambda: relays.value("cs_audit_ledger_failures_total", kind="damaged") > 0)
        assert not await relays.idle()
    # Another name begins another ledger, which goes on behind what was relayed.
    other = Relays(relays.client, relays.kept.folder.parent / "other")
    async with other.running(name="second"):
        await wait_until(other.idle)
    assert await other.read() == (await logged(relays.client))[-1:]


async def test_only_what_was_relayed_and_is_past_retention_is_trimmed(relays: Relays) -> None:
    await create(relays.client, 6)
    whole = await logged(relays.client)
    positions = [at for at, _ in await MutationLog(relays.client).read(TENANT, after="", limit=10)]
    token = await relays.store.lease("a", timedelta(minutes=1))
    now, long_ago = datetime.now(UTC) + timedelta(minutes=1), datetime.now(UTC) - timedelta(days=1)
    assert await relays.store.advance(TENANT, positions[1], long_ago, token) == 0
    assert await logged(relays.client) == whole
    # All are past retention here, and only the first four were relayed; the one at the cursor stays.
    assert await relays.store.advance(TENANT, positions[3], now, token) == 3
    assert await logged(relays.client) == whole[3:]
    assert await relays.store.advance(TENANT, positions[3], datetime.fromtimestamp(0, UTC), token) == 0
    log = MutationLog(relays.client)
    for expired in (OLDEST, positions[0], positions[1]):
        with pytest.raises(ExpiredError):
            await log.read(TENANT, after=expired, limit=10)
    assert [at for at, _ in await log.read(TENANT, after=positions[2], limit=10)] == positions[3:]


async def test_without_a_ledger_the_log_is_trimmed_by_retention_alone(relays: Relays) -> None:
    await create(relays.client, 7)
    async with relays.running(ledger=NoLedger(), retention=0):
        await wait_until(relays.idle)
    assert len(await logged(relays.client)) == 1


async def test_a_commit_lists_its_tenant_even_if_the_relay_takes_it_out_at_that_moment(
    relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two steps of a listing the relay uses its generation up; the commit then lists again."""
    token = await relays.store.lease("a", timedelta(minutes=1))
    call, raced = KvClient.script, 0

    async def racing(self: KvClient, script: Any, *arguments: Any) -> Any:
        nonlocal raced
        if script is relay_module._CLAIM and raced < 3:
            raced += 1
            for listing in await relays.store.listed():
                assert await relays.store.unlist(listing, token)
            assert await relays.store.listed() == []
        return await call(self, script, *arguments)

    monkeypatch.setattr(KvClient, "script", racing)
    await create(relays.client, 1)
    assert raced == 3
    assert await relays.store.listed() == [Listing(TENANT, 4)]


async def test_a_tenant_is_not_taken_out_while_something_of_it_waits(relays: Relays) -> None:
    await create(relays.client, 1)
    token = await relays.store.lease("a", timedelta(minutes=1))
    (listing,) = await relays.store.listed()
    assert not await relays.store.unlist(listing, token)
    assert await relays.store.listed() == [listing]
    (waiting,) = await relays.store.waiting(TENANT, 10)
    await relays.store.advance(TENANT, waiting[0], datetime.fromtimestamp(0, UTC), token)
    # Listed anew in between: only the generation that was looked at is taken out.
    await relays.client.call("HDEL", keys.relay_state(TENANT), "listed")
    await list_for_relay(relays.client, TENANT)
    assert await relays.store.unlist(listing, token)
    assert await relays.store.listed() == [Listing(TENANT, 2)]


async def test_a_listing_that_the_store_forgot_is_made_up_for_by_the_bell(relays: Relays) -> None:
    async with relays.running(poll_interval=60):
        await create(relays.client, 1)
        await wait_until(relays.idle)
        await list_for_relay(relays.client, TENANT)
        await relays.client.call("DEL", keys.relay_tenants())
        await create(relays.client, 1, start=1)
        await wait_until(lambda: _has(relays, 2))


async def _has(relays: Relays, count: int) -> bool:
    return len(await relays.read()) == count


async def test_a_relay_goes_on_after_a_failure_that_nobody_thought_of(relays: Relays) -> None:
    failed = False

    async def fail_once(_gap: Gap) -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise DiedError

    await create(relays.client, 4)
    async with relays.running(at_gap=fail_once):
        await wait_until(relays.idle)
    assert await relays.read() == await logged(relays.client)


async def test_a_head_that_was_not_stored_before_a_crash_is_stored_at_the_next_opening(relays: Relays) -> None:
    await create(relays.client, 2)
    ledger = relays.kept.ledger()
    await ledger.open(NOTHING)
    head = await ledger.append([LedgerEntry(*waiting) for waiting in await relays.store.waiting(TENANT, 10)])
    await ledger.close()
    async with relays.running():
        await wait_until(relays.idle)
    assert await relays.store.head("main") == head


def test_the_lag_is_the_age_of_what_waits() -> None:
    clock, registry = ManualClock(datetime(2026, 1, 1, tzinfo=UTC)), CollectorRegistry()
    metrics = RelayMetrics(registry, clock)
    metrics.waits(clock.now() - timedelta(seconds=3))
    clock.advance(timedelta(seconds=2))
    assert registry.get_sample_value("cs_audit_relay_lag_seconds") == 5
    metrics.leads(False)
    assert registry.get_sample_value("cs_audit_relay_lag_seconds") == 0
