"""Handling dead letters over a real store, with a real invoker behind: found, redriven with lineage, purged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.dead_letter_pb2 import DeadLetterFilter
from codesous.control.v1.version_pb2 import Version
from codesous.runtime.v1.version_config_pb2 import RetryPolicy
from codesous.storage.v1.records_pb2 import VersionRecord

from cs_core.clock import SystemClock
from cs_core.codeq.contract import INVOKE
from cs_core.config import LimitSettings, Settings
from cs_core.errors import ConflictError, NotFoundError, ValidationError
from cs_core.rpc.admin import AdminServicer, Process
from cs_core.rpc.interceptors.intake import Intake
from cs_core.rpc.readiness import Readiness
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.versions import VersionStore
from cs_gateway.dead_letters import DeadLetters
from tests.support.invocations import Ingress, status_of
from tests.support.invokers import make_settings, running_invoker

FAILS = 'export default () => { throw new Error("broken"); };'
NONE = DeadLetterFilter()


@pytest.fixture
async def ingress(kv: KvClient) -> AsyncIterator[Ingress]:
    """What a gateway does before the queue."""
    made = Ingress(kv)
    yield made
    await made.queue.close()


@pytest.fixture
def desk(ingress: Ingress) -> DeadLetters:
    """Under test."""
    return DeadLetters(ingress.queue, ingress.activations, VersionStore(ingress.client), LimitSettings(), SystemClock())


@pytest.fixture
def admin(desk: DeadLetters) -> Any:
    """The service that operators call."""
    process = Process("cs-http-gateway", "gateway-1", SystemClock().now(), Settings(), dead_letters=desk)
    clock = SystemClock()
    readiness = Readiness({}, [], 1.0, clock)
    return AdminServicer(process, readiness, Intake(), tuple, clock)


async def _given_up(ingress: Ingress, redis_url: str, names: list[str]) -> list[str]:
    """Activations of functions that fail until their policy is exhausted."""
    policy = RetryPolicy(max_attempts=2)
    policy.initial_backoff.FromMilliseconds(1)
    given_up = []
    async with running_invoker(make_settings(redis_url)):
        for name in names:
            ref = await ingress.put_version(name, FAILS, retry=policy)
            activation = await ingress.invoke(ref, {"name": name}, background=True)
            await ingress.ended(activation)
            given_up.append(activation)
        await ingress.emptied()
    return given_up


async def _fix(ingress: Ingress, name: str) -> None:
    """Make version 2, of code that works."""
    await ingress.put_version("fixed", "export default (event, ctx) => event.name + ctx.version;")
    stored = await ingress.client.call("GET", keys.version(ingress.tenant, "default", "fixed", 1))
    version: Version = VersionRecord.FromString(stored).version
    version.function, version.version = name, 2
    record = VersionRecord(version=version).SerializeToString()
    await ingress.client.call("SET", keys.version(ingress.tenant, "default", name, 2), record)


async def test_a_redrive_runs_a_new_activation_and_both_sides_name_each_other(
    ingress: Ingress, desk: DeadLetters, redis_url: str
) -> None:
    (activation,) = await _given_up(ingress, redis_url, ["broken"])
    await _fix(ingress, "broken")
    (letter,), _ = await desk.find(NONE, after=None, limit=10)
    (redrive,) = await desk.redrive([letter.id], NONE, version=2, rate=10, dry_run=False)
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(redrive.activation_id)
        await ingress.emptied()
    assert (status_of(record), record.response.body) == ("SUCCESS", '"broken2"')
    assert (record.redrive_of.dead_letter_id, record.redrive_of.activation_id) == (letter.id, activation)
    assert (await desk.get(letter.id)).redrives == (redrive.activation_id,)
    first = await ingress.activations.get(ingress.tenant, activation)
    assert first is not None
    assert status_of(first) == "ERROR"


async def test_a_filter_redrives_what_nobody_redrove_and_an_id_always(
    ingress: Ingress, desk: DeadLetters, redis_url: str
) -> None:
    await _given_up(ingress, redis_url, ["one", "two", "three"])
    dry = await desk.redrive([], NONE, version=0, rate=1000, dry_run=True)
    assert [redrive.activation_id for redrive in dry] == ["", "", ""]
    assert (await ingress.queue.depth(INVOKE)).total == 0
    only = await desk.redrive([], DeadLetterFilter(function="two"), version=0, rate=1000, dry_run=False)
    assert len(only) == 1
    rest = await desk.redrive([], NONE, version=0, rate=1000, dry_run=False)
    assert len(rest) == 2
    assert await desk.redrive([], NONE, version=0, rate=1000, dry_run=False) == []
    again = await desk.redrive([only[0].dead_letter_id], NONE, version=0, rate=1000, dry_run=False)
    assert again[0].activation_id != only[0].activation_id
    assert (await ingress.queue.depth(INVOKE)).total == 4


async def test_a_redrive_that_broke_off_meets_its_own_activation(
    ingress: Ingress, desk: DeadLetters, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _given_up(ingress, redis_url, ["broken"])

    async def die(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingress.queue, "note_redrive", die)
        with pytest.raises(KeyboardInterrupt):
            await desk.redrive([], NONE, version=0, rate=1000, dry_run=False)
    (redrive,) = await desk.redrive([], NONE, version=0, rate=1000, dry_run=False)
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(redrive.activation_id)
        await ingress.emptied()
    assert record.attempt == 2  # the policy's two runs, once
    assert len(await ingress.client.call("KEYS", "cs:*:activation:*")) == 2


async def test_a_mistake_in_the_call_redrives_nothing(ingress: Ingress, desk: DeadLetters, redis_url: str) -> None:
    await _given_up(ingress, redis_url, ["one", "two"])
    (first, _), _ = await desk.find(NONE, after=None, limit=10)
    with pytest.raises(NotFoundError):
        await desk.redrive([first.id, "0.nothing"], NONE, version=0, rate=1000, dry_run=False)
    with pytest.raises(NotFoundError):
        await desk.redrive([], NONE, version=9, rate=1000, dry_run=False)
    assert (await ingress.queue.depth(INVOKE)).total == 0
    await ingress.client.call("HSET", keys.queue(0, INVOKE, "bodies"), "1bad", b"\xff")
    await ingress.client.call("RPUSH", keys.queue(0, INVOKE, "ready1"), "1bad")
    (delivery,) = await ingress.queue.receive(INVOKE, limit=1, wait=timedelta(seconds=2))
    await ingress.queue.dead_letter(delivery, "CS_VALIDATION_MALFORMED")
    with pytest.raises(ConflictError):
        await desk.redrive([f"0.{'1bad'}"], NONE, version=0, rate=1000, dry_run=False)
    assert len(await desk.redrive([], NONE, version=0, rate=1000, dry_run=True)) == 2


async def test_filters_pages_and_purge(ingress: Ingress, desk: DeadLetters, admin: Any, redis_url: str) -> None:
    await _given_up(ingress, redis_url, ["one", "two", "three"])
    found, last = await desk.find(NONE, after=None, limit=2)
    rest, end = await desk.find(NONE, after=last, limit=2)
    names = [letter.envelope.invocation_request.function.function for letter in (*found, *rest)]
    assert (names, end) == (["one", "two", "three"], None)
    assert (await desk.find(DeadLetterFilter(tenant="t_other00"), after=None, limit=9))[0] == []
    assert (await desk.find(DeadLetterFilter(reason="CS_RUNTIME_CRASH"), after=None, limit=9))[0] == []
    later = DeadLetterFilter()
    later.start_time.FromMilliseconds(found[1].time_ms)
    assert len((await desk.find(later, after=None, limit=9))[0]) == 2
    page = await admin.ListDeadLetters(pb.ListDeadLettersRequest(page_size=2), None)
    following = pb.ListDeadLettersRequest(page_size=2, page_token=page.next_page_token)
    assert [letter.function.function for letter in (await admin.ListDeadLetters(following, None)).dead_letters] == [
        "three"
    ]
    foreign = pb.ListDeadLettersRequest(filter=later, page_token=page.next_page_token)
    with pytest.raises(ValidationError):
        await admin.ListDeadLetters(foreign, None)
    assert await desk.purge([], DeadLetterFilter(function="one"), dry_run=True) == 1
    assert await desk.purge([], DeadLetterFilter(function="one"), dry_run=False) == 1
    assert await desk.purge([], NONE, dry_run=False) == 2
    assert (await desk.find(NONE, after=None, limit=9))[0] == []


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetDeadLetter", pb.GetDeadLetterRequest()),
        ("GetDeadLetter", pb.GetDeadLetterRequest(dead_letter_id="x" * 129)),
        ("RedriveDeadLetters", pb.RedriveDeadLettersRequest(rate_per_second=1001)),
        ("RedriveDeadLetters", pb.RedriveDeadLettersRequest(dead_letter_ids=["x"] * 1001)),
        ("PurgeDeadLetters", pb.PurgeDeadLettersRequest(dead_letter_ids=[""])),
    ],
)
async def test_bad_requests_are_refused(admin: Any, method: str, request_: Any) -> None:
    with pytest.raises(ValidationError):
        await getattr(admin, method)(request_, None)


async def test_a_moment_that_is_none_is_refused(admin: Any) -> None:
    request = pb.ListDeadLettersRequest()
    request.filter.start_time.seconds = 10**15
    with pytest.raises(ValidationError):
        await admin.ListDeadLetters(request, None)


async def test_the_oldest_dead_letters_go_when_their_life_is_over(ingress: Ingress, redis_url: str) -> None:
    (activation,) = await _given_up(ingress, redis_url, ["old"])
    partition = ingress.activations.partition(ingress.tenant, activation)
    order = keys.queue(partition, "cs.dlq.invoke", "order")
    (member,) = await ingress.client.call("ZRANGE", order, 0, -1)
    await ingress.client.call("ZADD", order, 1, member)
    store = ActivationStore(ingress.client, 4, SystemClock(), timedelta(days=7))
    while True:
        request = ingress.make_request(await ingress.put_version("new", FAILS))
        if store.partition(ingress.tenant, request.activation_id) == partition:
            break
    await ingress.publish(request)
    (delivery,) = await ingress.queue.receive(INVOKE, limit=1, wait=timedelta(seconds=2))
    await ingress.queue.dead_letter(delivery, "CS_RUNTIME_CRASH")
    (left,) = await ingress.queue.list_dead_letters(INVOKE, limit=10)
    assert left.envelope.invocation_request.activation_id == request.activation_id
