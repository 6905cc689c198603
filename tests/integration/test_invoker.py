"""The invoker over a real store, queue and cells: every request ends once, with the status that its run deserves."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.type.v1.capabilities_pb2 import Capabilities, KvCapability, KvOperation
from prometheus_client import CollectorRegistry

from cs_core.codeq.contract import INVOKE
from cs_core.codeq.kv import KvResultChannel
from cs_core.store import keys
from cs_core.store.client import KvClient
from cs_core.store.mutation_bell import MutationBell
from cs_sandbox import CellPool, PoolSettings
from cs_sandbox.job import SandboxError
from tests.support.invocations import Ingress, status_of
from tests.support.invokers import make_settings, running_invoker
from tests.support.waiting import wait_until

HELLO = "export default async function handle(event, ctx) { return { hello: event.name, attempt: ctx.attempt }; }"


@pytest.fixture
def ingress(kv: KvClient) -> Ingress:
    return Ingress(kv)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def invoker(redis_url: str, registry: CollectorRegistry) -> AsyncIterator[None]:
    async with running_invoker(make_settings(redis_url), registry=registry):
        yield


async def test_a_request_runs_and_its_result_is_stored(ingress: Ingress, invoker: None) -> None:
    ref = await ingress.put_version("hello", HELLO)
    record = await ingress.ended(await ingress.invoke(ref, {"name": "world"}))
    assert status_of(record) == "SUCCESS"
    assert json.loads(record.response.body) == {"hello": "world", "attempt": 1}
    assert record.attempt == 1
    await ingress.emptied()


async def test_runs_are_no_mutations(ingress: Ingress, kv: KvClient, invoker: None) -> None:
    """Whatever becomes of an activation, the audit of the control plane does not hear of it."""
    good = await ingress.put_version("good", HELLO)
    bad = await ingress.put_version("bad", "export default () => { throw new Error('no'); }")
    rung: list[str | None] = []
    bell = MutationBell(kv.url)
    with bell.telling(rung.append):
        async with bell.running():
            await wait_until(lambda: rung == [None])
            ended = [await ingress.ended(await ingress.invoke(ref, {"name": "x"})) for ref in (good, bad)]
            assert [status_of(record) for record in ended] == ["SUCCESS", "ERROR"]
            await ingress.emptied()
            assert rung == [None]
    assert await kv.call("EXISTS", keys.mutations(ingress.tenant), keys.relay_tenants()) == 0


async def test_the_result_is_pushed_to_whoever_waits(ingress: Ingress, kv: KvClient, invoker: None) -> None:
    ref = await ingress.put_version("hello", HELLO)
    pushed: asyncio.Queue[Envelope] = asyncio.Queue()
    ready = asyncio.Event()
    async with KvResultChannel(kv).listen("gateway-1", pushed.put_nowait, ready.set):
        await ready.wait()
        request = ingress.make_request(ref, {"name": "you"}, reply_to="gateway-1")
        await ingress.submit(request)
        envelope = await asyncio.wait_for(pushed.get(), 10)
    result = envelope.invocation_result
    assert (result.request_id, result.activation_id) == (request.request_id, request.activation_id)
    assert result == await ingress.activations.get_result(ingress.tenant, request.activation_id)


async def test_the_handler_sees_its_context(ingress: Ingress, invoker: None) -> None:
    source = "export default (event, ctx) => ({ ...ctx, mode: cs.env.get('MODE') })"
    ref = await ingress.put_version("ctx", source, env={"MODE": "m"})
    request = ingress.make_request(ref)
    record = await ingress.ended(await ingress.submit(request))
    seen = json.loads(record.response.body)
    assert (seen["activation_id"], seen["tenant"], seen["function"]) == (request.activation_id, ingress.tenant, "ctx")
    assert (seen["version"], seen["ref"], seen["namespace"], seen["attempt"]) == (1, "live", "default", 1)
    assert seen["principal"]["subject"] == "tester"
    assert seen["trigger"]["kind"] == "api"
    assert seen["mode"] == "m"
    assert seen["deadline_ms"] > datetime.now(UTC).timestamp() * 1000 - 60_000


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("export default () => { throw new TypeError('no') }", "ERROR", "CS_RUNTIME_EXCEPTION"),
        ("export default () => { retrn 1 }}", "ERROR", "CS_RUNTIME_EXCEPTION"),
        ("export const nothing = 1", "ERROR", "CS_RUNTIME_EXCEPTION"),
        ("export default () => { for (;;) {} }", "TIMEOUT", "CS_RUNTIME_TIMEOUT"),
        (
            "export default () => { for (const a = [];;) a.push(Array(9999).fill(1)) }",
            "ERROR",
            "CS_RUNTIME_MEMORY_LIMIT",
        ),
        ("export default () => 'x'.repeat(300000)", "ERROR", "CS_RUNTIME_RESULT_TOO_LARGE"),
    ],
    ids=["throws", "syntax error", "no handler", "endless loop", "memory", "large result"],
)
async def test_a_failing_function_has_its_status_and_reason(
    ingress: Ingress, invoker: None, source: str, status: str, reason: str
) -> None:
    limit = timedelta(seconds=0.5) if status == "TIMEOUT" else timedelta(seconds=10)
    ref = await ingress.put_version("bad", source, timeout=limit, memory_mb=32)
    record = await ingress.ended(await ingress.invoke(ref))
    assert (status_of(record), record.error.reason) == (status, reason)
    await ingress.emptied()


async def test_logs_are_stored_with_the_result(ingress: Ingress, invoker: None) -> None:
    source = "export default () => { console.log('one'); cs.log.error('two'); return 1 }"
    ref = await ingress.put_version("talk", source)
    activation = await ingress.invoke(ref)
    await ingress.ended(activation)
    lines = await ingress.activations.logs(ingress.tenant, activation, 0, 10)
    assert [(line.message, line.attempt) for line in lines] == [("one", 1), ("two", 1)]


async def test_a_request_past_its_deadline_ends_without_a_run(ingress: Ingress, invoker: None) -> None:
    ref = await ingress.put_version("hello", HELLO)
    record = await ingress.ended(await ingress.invoke(ref, deadline=datetime.now(UTC) - timedelta(seconds=1)))
    assert (status_of(record), record.error.reason) == ("TIMEOUT", "CS_RUNTIME_TIMEOUT")
    assert record.attempt == 0
    assert not record.HasField("start_time")
    await ingress.emptied()


async def test_the_deadline_cuts_a_run_short_and_keeps_its_logs(ingress: Ingress, invoker: None) -> None:
    source = "export default async () => { console.log('begun'); await new Promise((end) => setTimeout(end, 20000)) }"
    ref = await ingress.put_version("slow", source, timeout=timedelta(seconds=30))
    activation = await ingress.invoke(ref, deadline=datetime.now(UTC) + timedelta(seconds=1))
    record = await ingress.ended(activation, within=10)
    assert (status_of(record), record.error.reason) == ("TIMEOUT", "CS_RUNTIME_TIMEOUT")
    lines = await ingress.activations.logs(ingress.tenant, activation, 0, 10)
    assert [line.message for line in lines] == ["begun"]


async def test_a_version_that_is_gone_is_an_error(ingress: Ingress, kv: KvClient, invoker: None) -> None:
    ref = await ingress.put_version("gone", HELLO)
    await kv.call("DEL", keys.version(ingress.tenant, "default", "gone", 1))
    record = await ingress.ended(await ingress.invoke(ref))
    assert (status_of(record), record.error.reason) == ("ERROR", "CS_NOT_FOUND_VERSION")


async def test_code_that_is_gone_or_damaged_is_an_error(ingress: Ingress, kv: KvClient, invoker: None) -> None:
    for name, bundle in (("gone", None), ("damaged", b"not a tar")):
        ref = await ingress.put_version(name, HELLO + f"// {name}")
        for key in await kv.call("KEYS", "cs:*:bundle:*"):
            await (kv.call("DEL", key) if bundle is None else kv.call("SET", key, bundle))
        record = await ingress.ended(await ingress.invoke(ref))
        assert status_of(record) == "ERROR"
        assert record.error.reason in {"CS_NOT_FOUND_VERSION", "CS_RUNTIME_EXCEPTION"}
        assert "Traceback" not in record.error.message


async def test_a_duplicate_message_gives_the_stored_result_and_no_second_run(ingress: Ingress, invoker: None) -> None:
    ref = await ingress.put_version("hello", HELLO)
    request = ingress.make_request(ref, {"name": "once"})
    first = await ingress.ended(await ingress.submit(request))
    await ingress.publish(request)
    await ingress.emptied()
    assert await ingress.activations.get(ingress.tenant, request.activation_id) == first


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff", b"\x0a\x05hello"], ids=["empty", "noise", "no request"])
async def test_bytes_that_are_no_request_become_a_dead_letter(
    ingress: Ingress, kv: KvClient, invoker: None, body: bytes
) -> None:
    await kv.call("HSET", keys.queue(0, INVOKE, "bodies"), "1bad", body)
    await kv.call("RPUSH", keys.queue(0, INVOKE, "ready1"), "1bad")
    dead = await wait_until(lambda: ingress.queue.list_dead_letters(INVOKE, limit=10))
    assert [letter.envelope.dead_letter.reason for letter in dead] == ["CS_VALIDATION_MALFORMED"]
    ref = await ingress.put_version("hello", HELLO)
    assert status_of(await ingress.ended(await ingress.invoke(ref, {"name": "after"}))) == "SUCCESS"
    await ingress.emptied()


async def test_a_message_without_a_record_becomes_a_dead_letter(ingress: Ingress, invoker: None) -> None:
    ref = await ingress.put_version("hello", HELLO)
    await ingress.publish(ingress.make_request(ref))
    dead = await wait_until(lambda: ingress.queue.list_dead_letters(INVOKE, limit=10))
    assert [letter.envelope.dead_letter.reason for letter in dead] == ["CS_NOT_FOUND_ACTIVATION"]
    await ingress.emptied()


async def test_a_cancelled_activation_in_the_queue_does_not_run(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("hello", HELLO)
    activation = await ingress.invoke(ref, {"name": "x"})
    await ingress.activations.cancel(ingress.tenant, activation, "not wanted")
    async with running_invoker(make_settings(redis_url)):
        await ingress.emptied()
    record = await ingress.ended(activation)
    assert (status_of(record), record.attempt) == ("CANCELLED", 0)


async def test_a_cancel_that_nobody_was_told_of_stops_the_run_at_the_next_renewal(
    ingress: Ingress, invoker: None
) -> None:
    forever = "export default async () => { await new Promise((end) => setTimeout(end, 60000)) }"
    ref = await ingress.put_version("forever", forever, timeout=timedelta(seconds=60))
    activation = await ingress.invoke(ref)

    async def running() -> bool:
        record = await ingress.activations.get(ingress.tenant, activation)
        return record is not None and status_of(record) == "RUNNING"

    await wait_until(running)
    assert (await ingress.activations.cancel(ingress.tenant, activation, "enough")).kind == "running"
    record = await ingress.ended(activation)
    assert (status_of(record), record.error.reason) == ("CANCELLED", "CS_RUNTIME_CANCELLED")


async def test_what_was_cancelled_while_a_dead_owner_had_it_is_not_run(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("hello", HELLO)
    activation = await ingress.invoke(ref, {"name": "x"})
    await ingress.activations.begin(ingress.tenant, activation, "dead/1", timedelta(milliseconds=50))
    await ingress.activations.cancel(ingress.tenant, activation, "enough")
    async with running_invoker(make_settings(redis_url)):
        record = await ingress.ended(activation)
        await ingress.emptied()
    assert (status_of(record), record.error.message, record.attempt) == ("CANCELLED", "enough", 2)
    assert not record.HasField("response")


async def test_a_record_that_comes_after_its_message_is_run(ingress: Ingress, invoker: None) -> None:
    ref = await ingress.put_version("hello", HELLO)
    request = ingress.make_request(ref, {"name": "late"})
    await ingress.publish(request)

    async def put_back() -> bool:
        return any(part.delayed for part in (await ingress.queue.depth(INVOKE)).partitions.values())

    await wait_until(put_back)
    await ingress.activations.submit(request, hashlib.sha256(request.event).digest())
    assert status_of(await ingress.ended(request.activation_id)) == "SUCCESS"


async def test_keys_are_shared_between_activations_within_the_capabilities(ingress: Ingress, invoker: None) -> None:
    operations = [KvOperation.KV_OPERATION_GET, KvOperation.KV_OPERATION_SET, KvOperation.KV_OPERATION_INCR]
    capabilities = Capabilities(kv=KvCapability(prefixes=["cart/"], operations=operations))
    source = """
    export default async (event) => {
      const before = await cs.kv.get("cart/last");
      await cs.kv.set("cart/last", event);
      const count = await cs.kv.incr("cart/count", 2);
      const denied = await cs.kv.get("order/1").catch((error) => error.code + " " + error.message);
      return { before: before ?? null, count, denied };
    }"""
    ref = await ingress.put_version("cart", source, capabilities=capabilities)
    first = json.loads((await ingress.ended(await ingress.invoke(ref, {"a": [1]}))).response.body)
    second = json.loads((await ingress.ended(await ingress.invoke(ref, "later"))).response.body)
    assert (first["before"], first["count"]) == (None, 2)
    assert (second["before"], second["count"]) == ({"a": [1]}, 4)
    assert "CS_RUNTIME_CAPABILITY_DENIED" in first["denied"]
    assert "order/1" in first["denied"]


async def test_a_denial_that_is_not_caught_is_the_reason_of_the_error(ingress: Ingress, invoker: None) -> None:
    ref = await ingress.put_version("thief", "export default () => cs.secrets.get('api-key')")
    record = await ingress.ended(await ingress.invoke(ref))
    assert (status_of(record), record.error.reason) == ("ERROR", "CS_RUNTIME_CAPABILITY_DENIED")
    assert "api-key" in record.error.message


async def test_what_happens_is_measured(ingress: Ingress, invoker: None, registry: CollectorRegistry) -> None:
    good = await ingress.put_version("hello", HELLO)
    bad = await ingress.put_version("bad", "export default () => { throw 1 }")
    for ref in (good, good, bad):
        await ingress.ended(await ingress.invoke(ref, {"name": "x"}))
    await ingress.emptied()

    def sample(name: str, **labels: str) -> float:
        return registry.get_sample_value(name, labels) or 0.0

    assert sample("cs_invocations_total", status="success") == 2
    assert sample("cs_invocations_total", status="error") == 1
    assert sample("cs_invocation_duration_seconds_count") == 3
    assert sample("cs_invoker_queue_lag_seconds_count") == 3
    assert sample("cs_invoker_cold_starts_total") >= 1
    assert sample("cs_invoker_bundle_cache_lookups_total", outcome="miss") == 2
    assert sample("cs_invoker_bundle_cache_lookups_total", outcome="hit") == 1
    assert sample("cs_invoker_inflight") == 0


@pytest.mark.parametrize("begun", [False, True])
async def test_an_activation_without_a_message_is_ended_a_minute_after_its_deadline(
    ingress: Ingress, redis_url: str, begun: bool
) -> None:
    ref = await ingress.put_version("hello", HELLO)
    soon, past = (datetime.now(UTC) - timedelta(seconds=seconds) for seconds in (50, 70))
    waits, overdue = (ingress.make_request(ref, deadline=deadline) for deadline in (soon, past))
    for request in (waits, overdue):
        await ingress.activations.submit(request, b"digest")
    if begun:
        await ingress.activations.begin(ingress.tenant, overdue.activation_id, "dead/1", timedelta(0))
    async with running_invoker(make_settings(redis_url)) as invoker:
        assert await invoker.overdue.sweep() == 1
        assert await invoker.overdue.sweep() == 0
    record = await ingress.ended(overdue.activation_id)
    assert (status_of(record), record.error.reason) == ("TIMEOUT", "CS_RUNTIME_TIMEOUT")
    left = await ingress.activations.get(ingress.tenant, waits.activation_id)
    assert left is not None
    assert status_of(left) == "QUEUED"


async def test_an_overdue_activation_that_a_living_owner_runs_is_left_alone(ingress: Ingress, redis_url: str) -> None:
    ref = await ingress.put_version("hello", HELLO)
    request = ingress.make_request(ref, deadline=datetime.now(UTC) - timedelta(seconds=70))
    await ingress.activations.submit(request, b"digest")
    await ingress.activations.begin(ingress.tenant, request.activation_id, "alive/1", timedelta(seconds=60))
    async with running_invoker(make_settings(redis_url)) as invoker:
        assert await invoker.overdue.sweep() == 0


async def test_a_sandbox_that_cannot_run_anything_is_no_crash_of_what_it_did_not_run(
    ingress: Ingress, redis_url: str
) -> None:
    pool = CellPool(PoolSettings(cells_max=2, cells_per_tenant=2))
    await pool.start()
    run, refusals = pool.run, 0

    async def refuse(*arguments: Any, **named: Any) -> Any:
        nonlocal refusals
        refusals += 1
        if refusals <= 4:
            raise SandboxError("no cell could be had")
        return await run(*arguments, **named)

    pool.run = refuse  # type: ignore[method-assign]
    ref = await ingress.put_version("hello", HELLO)
    try:
        async with running_invoker(make_settings(redis_url), pool=pool):
            record = await ingress.ended(await ingress.invoke(ref, {"name": "x"}))
    finally:
        await pool.close()
    assert (status_of(record), record.attempt) == ("SUCCESS", 5)
