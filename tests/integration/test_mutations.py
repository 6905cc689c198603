"""Reading the mutation log over a real store: pages, filters, and a watch that misses nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.control.v1 import mutation_service_pb2 as pb
from codesous.control.v1.function_service_pb2 import CreateFunctionRequest
from codesous.control.v1.mutation_service_pb2_grpc import (
    MutationServiceStub,
    add_MutationServiceServicer_to_server,
)
from codesous.type.v1.principal_pb2 import Principal

from cs_control import mutation_reader
from cs_control.functions import Functions
from cs_control.mutation_reader import MutationReader, Watched
from cs_control.mutations import Actor
from cs_control.servicers.mutations import MutationServicer
from cs_core.changes import MutationFilter
from cs_core.clock import ManualClock, SystemClock, to_timestamp
from cs_core.config import LimitSettings
from cs_core.errors import LimitError, ValidationError
from cs_core.rpc.server import Service
from cs_core.store.client import KvClient
from cs_core.store.functions import FunctionStore
from cs_core.store.mutation_bell import MutationBell
from cs_core.store.mutations import OLDEST, MutationLog
from tests.support.rpc import TENANT, Served, serving
from tests.support.waiting import wait_until

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Changes:
    """Makes functions, a minute apart."""

    def __init__(self, client: KvClient) -> None:
        self.clock = ManualClock(START)
        self._functions = Functions(FunctionStore(client), self.clock)

    async def create(self, name: str, *, namespace: str = "default", by: str = "ada", tenant: str = TENANT) -> None:
        actor = Actor(Principal(subject=by, tenant=tenant, roles=["admin"]), "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")
        self.clock.advance(timedelta(minutes=1))
        await self._functions.create(CreateFunctionRequest(tenant=tenant, namespace=namespace, function=name), actor)

    async def delete(self, name: str) -> None:
        actor = Actor(Principal(subject="ada", tenant=TENANT), "")
        await self._functions.delete(TENANT, "default", name, actor)


@pytest.fixture
def changes(kv: KvClient) -> Changes:
    return Changes(kv)


@pytest.fixture
async def bell(kv: KvClient) -> AsyncIterator[MutationBell]:
    bell = MutationBell(kv.url)
    async with bell.running():
        yield bell


def reader_of(kv: KvClient, bell: MutationBell, **limits: Any) -> MutationReader:
    return MutationReader(MutationLog(kv), bell, LimitSettings(**limits), SystemClock())


async def names(reader: MutationReader, limit: int = 100, **wanted: Any) -> list[str]:
    found, after = await reader.list_oldest_first(TENANT, MutationFilter(**wanted), after="", limit=limit)
    assert after is None
    return [mutation.function_created.function.function for mutation in found]


async def heard(watch: AsyncIterator[Watched], count: int) -> list[str]:
    """The names of the next mutations."""
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            mutation = (await anext(watch)).mutation
            assert mutation is not None
            found.append(mutation.function_created.function.function)
    return found


async def test_pages_hold_every_mutation_once_in_order(kv: KvClient, bell: MutationBell, changes: Changes) -> None:
    made = [f"fn-{number:02}" for number in range(7)]
    for name in made:
        await changes.create(name)
    reader = reader_of(kv, bell)
    for limit in (1, 3, 7, 8):
        found: list[str] = []
        after: str | None = ""
        pages = 0
        while after is not None:
            page, after = await reader.list_oldest_first(TENANT, MutationFilter(), after=after, limit=limit)
            assert 0 < len(page) <= limit
            found += [mutation.function_created.function.function for mutation in page]
            pages += 1
        assert (found, pages) == (made, -(-7 // limit))


@pytest.mark.parametrize("after", ["hello", "1", "-", "1-", "99999999999999999999-0", "*"])
async def test_a_position_that_is_none_is_refused(kv: KvClient, bell: MutationBell, after: str) -> None:
    with pytest.raises(ValidationError) as caught:
        await reader_of(kv, bell).list_oldest_first(TENANT, MutationFilter(), after=after, limit=1)
    assert caught.value.reason == "CS_VALIDATION_PAGE_TOKEN"


async def test_filters_choose_by_resource_subject_and_time(kv: KvClient, bell: MutationBell, changes: Changes) -> None:
    await changes.create("one", by="ada")
    await changes.create("two", by="bob")
    await changes.create("one", namespace="other", by="bob")
    reader = reader_of(kv, bell)
    assert await names(reader, resource="default") == ["one", "two"]
    assert await names(reader, resource="default/one") == ["one"]
    assert await names(reader, subject="bob") == ["two", "one"]
    assert await names(reader, resource="default", subject="bob") == ["two"]
    minute = timedelta(minutes=1)
    assert await names(reader, start=START + 2 * minute) == ["two", "one"]
    assert await names(reader, end=START + 2 * minute) == ["one"]
    assert await names(reader, start=START + 2 * minute, end=START + 3 * minute) == ["two"]
    for wrong in ("Default", "default/", "default/One", "default/one/two", "/one"):
        with pytest.raises(ValidationError):
            await names(reader, resource=wrong)


async def test_a_filter_that_fits_nothing_reads_a_bounded_part_and_names_the_next_page(
    kv: KvClient, bell: MutationBell, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutation_reader, "LOOKED_AT", 2)
    monkeypatch.setattr(mutation_reader, "_BATCH", 2)
    for number in range(5):
        await changes.create(f"fn-{number}")
    reader = reader_of(kv, bell)
    wanted = MutationFilter(resource="default/fn-4")
    after: str | None = ""
    pages = []
    while after is not None:
        page, after = await reader.list_oldest_first(TENANT, wanted, after=after, limit=10)
        pages.append(len(page))
    assert pages == [0, 0, 1]


async def test_a_watch_from_now_on_tells_its_cursor_first_and_then_what_comes(
    kv: KvClient, bell: MutationBell, changes: Changes
) -> None:
    await changes.create("before")
    watch = reader_of(kv, bell).watch(TENANT, "")
    first = await anext(watch)
    assert first.mutation is None
    for name in ("one", "two"):
        await changes.create(name)
    assert await heard(watch, 2) == ["one", "two"]
    # What came after that first cursor is found again from it.
    assert await heard(reader_of(kv, bell).watch(TENANT, first.cursor), 2) == ["one", "two"]


async def test_every_cursor_goes_on_behind_its_mutation(kv: KvClient, bell: MutationBell, changes: Changes) -> None:
    made = [f"fn-{number}" for number in range(5)]
    for name in made:
        await changes.create(name)
    reader = reader_of(kv, bell)
    watch = reader.watch(TENANT, OLDEST)
    cursors = [(await anext(watch)).cursor for _ in made]
    for index, cursor in enumerate(cursors[:-1]):
        assert await heard(reader.watch(TENANT, cursor), 4 - index) == made[index + 1 :]


async def test_the_bell_wakes_a_watch_long_before_its_slow_poll(
    kv: KvClient, bell: MutationBell, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutation_reader, "SLOW_POLL", 3600.0)
    watch = reader_of(kv, bell).watch(TENANT, "")
    await anext(watch)
    coming = asyncio.create_task(heard(watch, 1))
    await wait_until(lambda: bell.count(TENANT) == 1)
    await changes.create("foreign", tenant="t_other00")
    await changes.create("ours")
    assert await coming == ["ours"]


async def test_without_a_bell_the_slow_poll_finds_it(
    kv: KvClient, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutation_reader, "SLOW_POLL", 0.05)
    watch = reader_of(kv, MutationBell(kv.url)).watch(TENANT, "")  # it does not listen
    await anext(watch)
    await changes.create("quiet")
    assert await heard(watch, 1) == ["quiet"]


async def test_after_a_gap_all_are_told(kv: KvClient) -> None:
    bell, told = MutationBell(kv.url), []
    with bell.telling(told.append), bell.following(TENANT) as event:
        async with bell.running():
            await wait_until(event.is_set)
            event.clear()
            assert told == [None]
            await Changes(kv).create("one")
            await wait_until(event.is_set)
            assert told == [None, TENANT]
            await kv.call("CLIENT", "KILL", "TYPE", "pubsub")
            await wait_until(lambda: told == [None, TENANT, None])


async def test_a_watch_ends_when_the_process_stops_or_after_its_length(kv: KvClient) -> None:
    stopping, bell = asyncio.Event(), MutationBell(kv.url)
    async with bell.running(stopping):
        watch = reader_of(kv, bell).watch(TENANT, "")
        await anext(watch)
        ended = asyncio.create_task(_rest(watch))
        await wait_until(lambda: bell.count(TENANT) == 1)
        stopping.set()
        async with asyncio.timeout(10):
            assert await ended == 0
    short = reader_of(kv, MutationBell(kv.url), watch_length=0.05).watch(TENANT, "")
    async with asyncio.timeout(10):
        assert await _rest(short) == 1


async def _rest(watch: AsyncIterator[Watched]) -> int:
    return len([watched async for watched in watch])


async def test_a_tenant_has_only_so_many_watches_and_another_has_its_own(kv: KvClient, bell: MutationBell) -> None:
    reader = reader_of(kv, bell, tenant_watches=2)
    watches = [reader.watch(TENANT, "") for _ in range(2)]
    for watch in watches:
        await anext(watch)
    with pytest.raises(LimitError) as caught:
        await anext(reader.watch(TENANT, ""))
    assert caught.value.reason == "CS_RATE_LIMITED"
    await anext(reader.watch("t_other00", ""))
    await watches[0].aclose()  # type: ignore[attr-defined]
    await anext(reader.watch(TENANT, ""))


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "01-0", "1-0-0", "1-0\n", "１-０", "99999999999999999-0"])
async def test_a_foreign_cursor_is_refused(kv: KvClient, bell: MutationBell, cursor: str) -> None:
    with pytest.raises(ValidationError):
        await anext(reader_of(kv, bell).watch(TENANT, cursor))


@pytest.fixture
async def served(kv: KvClient, bell: MutationBell, tmp_path: Path) -> AsyncIterator[Served]:
    servicer = MutationServicer(reader_of(kv, bell))
    service = Service("codesous.control.v1.MutationService", add_MutationServiceServicer_to_server, servicer)
    async with serving(tmp_path, [service]) as served:
        yield served


async def test_by_grpc_a_token_of_another_filter_is_refused_and_odd_times_too(served: Served, changes: Changes) -> None:
    stub: Any = MutationServiceStub(served.channel)
    for name in ("one", "two"):
        await changes.create(name)
    metadata = served.bearer("viewer")
    request = pb.ListMutationsRequest(tenant=TENANT, page_size=1, subject="ada")
    request.start_time.CopyFrom(to_timestamp(START))
    page = await stub.ListMutations(request, metadata=metadata)
    assert [mutation.function_created.function.function for mutation in page.mutations] == ["one"]
    request.page_token = page.next_page_token
    page = await stub.ListMutations(request, metadata=metadata)
    assert [mutation.function_created.function.function for mutation in page.mutations] == ["two"]
    assert page.next_page_token == ""
    request.subject = "bob"
    for change in ({"subject": "bob"}, {"page_token": "", "start_time": {"seconds": 2**60}}):
        other = pb.ListMutationsRequest()
        other.CopyFrom(request)
        other.MergeFrom(pb.ListMutationsRequest(**change))
        if "page_token" in change:
            other.page_token = ""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListMutations(other, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_by_grpc_and_as_events_a_watch_goes_on_where_it_was(served: Served, changes: Changes) -> None:
    stub: Any = MutationServiceStub(served.channel)
    metadata = served.bearer("admin")
    watch = stub.WatchMutations(pb.WatchMutationsRequest(tenant=TENANT), metadata=metadata)
    first = await watch.read()
    assert not first.HasField("mutation")
    await changes.create("one")
    told = await watch.read()
    assert told.mutation.function_created.function.function == "one"
    watch.cancel()
    await changes.delete("one")
    events = stub.WatchMutationEvents(
        pb.WatchMutationEventsRequest(tenant=TENANT), metadata=(*metadata, ("last-event-id", told.cursor))
    )
    chunk = (await events.read()).chunk
    head, kind, data, *rest = chunk.data.decode().split("\n")
    assert (chunk.content_type, kind, rest) == ("text/event-stream", "event: mutation", ["", ""])
    assert head > f"id: {told.cursor}"
    assert json.loads(data.removeprefix("data: "))["function_deleted"] == {"function": "one"}
    events.cancel()


async def test_whoever_may_not_read_mutations_watches_nothing(served: Served) -> None:
    stub: Any = MutationServiceStub(served.channel)
    watch = stub.WatchMutations(pb.WatchMutationsRequest(tenant="t_other00"), metadata=served.bearer("admin"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
