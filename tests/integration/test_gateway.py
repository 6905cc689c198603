"""Accepting, correlating, and what happens when a part of it fails. The function is a stand-in: the store is real."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from codesous.control.v1.alias_pb2 import Alias
from codesous.control.v1.function_pb2 import Function, FunctionState
from codesous.control.v1.version_pb2 import Version
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.runtime.v1.version_config_pb2 import VersionConfig
from codesous.storage.v1.records_pb2 import AliasRecord, FunctionRecord, VersionRecord
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import ApiTrigger, Trigger

from cs_core.cancellation import Cancellation
from cs_core.clock import SystemClock, to_timestamp
from cs_core.codeq.contract import INVOKE, Delivery
from cs_core.codeq.kv import KvQueue, KvResultChannel
from cs_core.config import LimitSettings
from cs_core.errors import AuthorizationError, ConflictError, CorrelationTimeoutError, LimitError, NotFoundError
from cs_core.store import keys
from cs_core.store.activations import ActivationStore
from cs_core.store.client import KvClient
from cs_core.store.members import MemberStore
from cs_core.store.resolve import Resolver
from cs_core.trace_context import parse
from cs_core.waiters import Waiters
from cs_gateway.activations import Activations
from cs_gateway.gate import Gate
from cs_gateway.ingress import Ingress, Invocation, Target
from cs_gateway.invocations import Invocations
from cs_gateway.peers import Peers
from cs_gateway.queue_depths import QueueDepths
from cs_gateway.rate_limits import RateLimits
from tests.support.waiting import wait_until

TENANT, SPACE, NAME = "t_alpha0", "default", "hello"
PARTITIONS = 4
TRACE = parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "vendor=1")
assert TRACE is not None
PRINCIPAL = Principal(subject="ada", tenant=TENANT, roles=["admin"])
SLACK = timedelta(milliseconds=250)


class Gateway:
    """The core of a gateway, and a hand that plays the invoker."""

    def __init__(
        self, client: KvClient, *, recheck: float = 0.1, limits: LimitSettings | None = None, gate: Gate | None = None
    ) -> None:
        self.client = client
        clock = SystemClock()
        self.queue = KvQueue(client, PARTITIONS, timedelta(seconds=5), timedelta(milliseconds=50))
        self.channel = KvResultChannel(client)
        self.store = ActivationStore(client, PARTITIONS, clock, timedelta(days=7))
        self.waiters = Waiters(self.store, self.channel, "gateway-1", recheck)
        ingress = Ingress(
            Resolver(client),
            self.store,
            self.queue,
            limits or LimitSettings(),
            clock,
            "gateway-1",
        )
        self.invocations = Invocations(ingress, self.waiters, self.store, SLACK, gate)
        self.activations = Activations(self.store, self.waiters, Cancellation(self.store, self.channel, clock))

    async def deploy(self, timeout: float = 5.0, roles: tuple[str, ...] = ("admin",)) -> None:
        config = VersionConfig(invoke_http_roles=roles)
        config.timeout.FromTimedelta(timedelta(seconds=timeout))
        function = Function(function=NAME, state=FunctionState.FUNCTION_STATE_ACTIVE, latest_version=1)
        version = Version(tenant=TENANT, namespace=SPACE, function=NAME, version=1, config=config)
        alias = Alias(alias="live", version=1)
        call = self.client.call
        await call("SET", keys.function(TENANT, SPACE, NAME), FunctionRecord(function=function).SerializeToString())
        await call("SET", keys.version(TENANT, SPACE, NAME, 1), VersionRecord(version=version).SerializeToString())
        await call("HSET", keys.aliases(TENANT, SPACE, NAME), "live", AliasRecord(alias=alias).SerializeToString())

    async def invoke(self, *, ref: str = "live", **fields: Any) -> Activation:
        return await self.invocations.invoke(
            Invocation(
                target=Target(TENANT, SPACE, NAME, ref),
                principal=PRINCIPAL,
                request_id="req_1",
                trigger=Trigger(api=ApiTrigger()),
                event=fields.pop("event", b"1"),
                trace=fields.pop("trace", TRACE),
                **fields,
            )
        )

    async def receive(self) -> tuple[Delivery, InvocationRequest]:
        (delivery,) = await self.queue.receive(INVOKE, limit=1, wait=timedelta(seconds=10))
        return delivery, delivery.envelope().invocation_request

    async def run(self, request: InvocationRequest, *, push: bool = True) -> None:
        """Do what an invoker does: begin, run, finish, push."""
        await self.store.begin(TENANT, request.activation_id, "invoker-1/a", timedelta(seconds=5))
        result = InvocationResult(
            request_id=request.request_id,
            activation_id=request.activation_id,
            tenant=TENANT,
            status=ActivationStatus.ACTIVATION_STATUS_SUCCESS,
            response=FunctionResponse(status_code=200, body=request.event.decode()),
            end_time=to_timestamp(SystemClock().now()),
            attempt=1,
        )
        await self.store.finish(result, "invoker-1/a")
        if push:
            await self.channel.push(request.reply_to, Envelope(invocation_result=result))


@pytest.fixture
async def gateway(kv: KvClient) -> AsyncIterator[Gateway]:
    gateway = Gateway(kv)
    await gateway.deploy()
    async with gateway.waiters.running():
        yield gateway
    await gateway.queue.close()


async def test_a_result_that_is_pushed_wakes_the_caller(gateway: Gateway) -> None:
    calling = asyncio.create_task(gateway.invoke(event=b'"hi"'))
    _, request = await gateway.receive()
    assert request.reply_to == "gateway-1"
    assert request.deadline.seconds - request.accept_time.seconds == 5
    assert (request.function.version, request.function.ref) == (1, "live")
    await gateway.run(request)
    activation = await calling
    assert (activation.status, activation.response.body) == (ActivationStatus.ACTIVATION_STATUS_SUCCESS, '"hi"')
    assert gateway.waiters.count == 0


async def test_a_result_whose_push_is_lost_is_found_in_the_record(gateway: Gateway) -> None:
    calling = asyncio.create_task(gateway.invoke())
    _, request = await gateway.receive()
    await gateway.run(request, push=False)
    assert (await calling).status == ActivationStatus.ACTIVATION_STATUS_SUCCESS


async def test_a_wait_ends_a_little_after_the_timeout_and_names_the_activation(gateway: Gateway) -> None:
    await gateway.deploy(timeout=0.05)
    gateway.invocations._ingress._resolver = Resolver(gateway.client)
    with pytest.raises(CorrelationTimeoutError) as caught:
        await gateway.invoke()
    _, request = await gateway.receive()
    assert caught.value.metadata == {"activation_id": request.activation_id}
    # It may still finish, and then it can be read.
    await gateway.run(request)
    found = await gateway.activations.get(TENANT, request.activation_id)
    assert found.status == ActivationStatus.ACTIVATION_STATUS_SUCCESS


async def test_a_caller_that_goes_away_ends_what_has_not_started(gateway: Gateway) -> None:
    calling = asyncio.create_task(gateway.invoke())
    await wait_until(lambda: gateway.waiters.count == 1)
    _, request = await gateway.receive()
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling
    found = await gateway.activations.get(TENANT, request.activation_id)
    assert found.status == ActivationStatus.ACTIVATION_STATUS_CANCELLED
    begun = await gateway.store.begin(TENANT, request.activation_id, "invoker-1/a", timedelta(seconds=5))
    assert begun.kind == "done"


async def test_a_caller_that_goes_away_does_not_stop_what_runs(gateway: Gateway) -> None:
    calling = asyncio.create_task(gateway.invoke())
    _, request = await gateway.receive()
    await gateway.store.begin(TENANT, request.activation_id, "invoker-1/a", timedelta(seconds=5))
    calling.cancel()
    with suppress(asyncio.CancelledError):
        await calling
    found = await gateway.activations.get(TENANT, request.activation_id)
    assert found.status == ActivationStatus.ACTIVATION_STATUS_RUNNING


async def test_an_asynchronous_caller_gets_the_queued_activation_at_once(gateway: Gateway) -> None:
    activation = await gateway.invoke(asynchronous=True)
    assert activation.status == ActivationStatus.ACTIVATION_STATUS_QUEUED
    assert (await gateway.activations.get(TENANT, activation.activation_id)).status == activation.status
    depth = await gateway.queue.depth(INVOKE)
    assert sum(sum(part.ready.values()) for part in depth.partitions.values()) == 1


async def test_a_repeat_under_one_key_attaches_while_it_runs_and_after(gateway: Gateway) -> None:
    first = asyncio.create_task(gateway.invoke(idempotency_key="k"))
    _, request = await gateway.receive()
    await gateway.store.begin(TENANT, request.activation_id, "invoker-1/a", timedelta(seconds=5))
    second = asyncio.create_task(gateway.invoke(idempotency_key="k"))
    await wait_until(lambda: len(gateway.waiters._waiting.get((TENANT, request.activation_id), ())) == 2)
    await gateway.run(request)
    answers = await asyncio.gather(first, second)
    third = await gateway.invoke(idempotency_key="k")
    assert {answer.activation_id for answer in (*answers, third)} == {request.activation_id}
    assert {answer.response.body for answer in (*answers, third)} == {"1"}


async def test_one_key_with_another_body_is_a_conflict_and_never_reaches_the_queue(gateway: Gateway) -> None:
    await gateway.invoke(idempotency_key="k", asynchronous=True, event=b"1")
    with pytest.raises(ConflictError) as caught:
        await gateway.invoke(idempotency_key="k", asynchronous=True, event=b"2")
    assert caught.value.reason == "CS_CONFLICT_IDEMPOTENCY"
    _, request = await gateway.receive()
    assert request.event == b"1"
    assert await gateway.queue.receive(INVOKE, limit=1, wait=timedelta(milliseconds=100)) == []


async def test_a_key_whose_first_publisher_died_is_published_by_the_repeat(gateway: Gateway) -> None:
    """The record is there and no message: what a gateway leaves that dies between the two."""
    prepared = gateway.invocations._ingress.prepare(
        Invocation(
            Target(TENANT, SPACE, NAME, "live"), PRINCIPAL, "req_1", Trigger(), b"1", TRACE, idempotency_key="k"
        ),
        await Resolver(gateway.client).resolve(TENANT, SPACE, NAME, "live"),
    )
    await gateway.store.submit(prepared.request, hashlib.sha256(b"1").digest())
    repeat = asyncio.create_task(gateway.invoke(idempotency_key="k"))
    _, request = await gateway.receive()
    assert request.activation_id == prepared.activation_id
    await gateway.run(request)
    assert (await repeat).status == ActivationStatus.ACTIVATION_STATUS_SUCCESS


async def test_keys_of_other_functions_and_refs_do_not_meet(gateway: Gateway) -> None:
    by_alias = await gateway.invoke(idempotency_key="k", asynchronous=True)
    by_version = await gateway.invoke(idempotency_key="k", asynchronous=True, ref="1")
    assert by_alias.activation_id != by_version.activation_id


async def test_who_is_not_on_the_list_leaves_no_trace(gateway: Gateway) -> None:
    await gateway.deploy(roles=("billing",))
    before = await gateway.client.call("DBSIZE")
    gateway.invocations._ingress._resolver = Resolver(gateway.client)
    with pytest.raises(AuthorizationError):
        await gateway.invoke()
    with pytest.raises(NotFoundError):
        await gateway.invoke(ref="nope")
    assert await gateway.client.call("DBSIZE") == before


async def test_wait_returns_when_it_ends_and_after_its_time(gateway: Gateway) -> None:
    activation = await gateway.invoke(asynchronous=True)
    early = await gateway.activations.wait(TENANT, activation.activation_id, timedelta(milliseconds=20))
    assert early.status == ActivationStatus.ACTIVATION_STATUS_QUEUED
    waiting = asyncio.create_task(gateway.activations.wait(TENANT, activation.activation_id, timedelta(seconds=20)))
    _, request = await gateway.receive()
    await gateway.run(request)
    assert (await waiting).status == ActivationStatus.ACTIVATION_STATUS_SUCCESS


async def test_cancel_ends_a_queued_activation_and_tells_the_owner_of_a_running_one(gateway: Gateway) -> None:
    queued = await gateway.invoke(asynchronous=True)
    ended = await gateway.activations.cancel(TENANT, queued.activation_id)
    assert (ended.status, ended.error.reason) == (
        ActivationStatus.ACTIVATION_STATUS_CANCELLED,
        "CS_RUNTIME_CANCELLED",
    )
    assert await gateway.activations.cancel(TENANT, queued.activation_id) == ended
    told: list[Envelope] = []
    running = await gateway.invoke(asynchronous=True)
    await gateway.store.begin(TENANT, running.activation_id, "invoker-1/a", timedelta(seconds=5))
    async with gateway.channel.listen("invoker-1", told.append, lambda: None) as listener:
        await listener.subscribed.wait()  # type: ignore[attr-defined]
        await gateway.activations.cancel(TENANT, running.activation_id)
        await wait_until(lambda: told)
    assert told[0].cancel_request.owner == "invoker-1/a"
    with pytest.raises(NotFoundError):
        await gateway.activations.cancel(TENANT, "00000000-0000-4000-8000-000000000000")


async def test_another_tenant_finds_nothing(gateway: Gateway) -> None:
    activation = await gateway.invoke(asynchronous=True)
    with pytest.raises(NotFoundError):
        await gateway.activations.get("t_beta00", activation.activation_id)
    with pytest.raises(NotFoundError):
        await gateway.activations.cancel("t_beta00", activation.activation_id)


async def test_a_tenant_with_as_much_in_flight_as_it_may_is_refused_until_something_ends(kv: KvClient) -> None:
    gateway = Gateway(kv, limits=LimitSettings(tenant_inflight=3))
    await gateway.deploy()
    for _ in range(3):
        await gateway.invoke(asynchronous=True)
    with pytest.raises(LimitError) as refused:
        await gateway.invoke(asynchronous=True)
    assert (refused.value.reason, refused.value.retry_after) == ("CS_TENANT_INFLIGHT_LIMIT", timedelta(seconds=1))
    assert (await gateway.queue.depth(INVOKE)).total == 3
    _, request = await gateway.receive()
    await gateway.run(request)
    await gateway.invoke(asynchronous=True)


async def test_what_the_gate_refuses_reaches_neither_record_nor_queue(kv: KvClient) -> None:
    def gate(*, rps: int = 1000, seats: int = 256, depth: int = 50_000) -> tuple[Gate, QueueDepths]:
        depths = QueueDepths(
            KvQueue(kv, PARTITIONS, timedelta(seconds=5), timedelta(milliseconds=50)), PARTITIONS, depth
        )
        rates = RateLimits(rps, SystemClock(), lambda: 1)
        return Gate(rates, depths, tenant_waiting=seats, waiting=seats, gateways=lambda: 1), depths

    async def refuses(gateway: Gateway, reason: str, *, asynchronous: bool) -> None:
        before = (await gateway.queue.depth(INVOKE)).total, await gateway.store.count_open(TENANT)
        with pytest.raises(LimitError) as refused:
            await gateway.invoke(asynchronous=asynchronous)
        assert refused.value.reason == reason
        assert before == ((await gateway.queue.depth(INVOKE)).total, await gateway.store.count_open(TENANT))

    slow = Gateway(kv, gate=gate(rps=1)[0])
    await slow.deploy()
    await slow.invoke(asynchronous=True)
    await refuses(slow, "CS_RATE_LIMITED", asynchronous=True)

    full_gate, depths = gate(depth=1)
    full = Gateway(kv, gate=full_gate)
    while len((await full.queue.depth(INVOKE)).partitions) < len(keys.tenant_partitions(TENANT, PARTITIONS)):
        await full.invoke(asynchronous=True)
    await depths.read()
    await refuses(full, "CS_QUEUE_FULL", asynchronous=True)

    seats, _ = gate(seats=1)
    narrow = Gateway(kv, gate=seats)
    waiting = asyncio.create_task(narrow.invoke())

    async def seated() -> bool:
        return seats.seated == 1 and narrow.waiters.count == 1

    await wait_until(seated)
    await refuses(narrow, "CS_TENANT_INFLIGHT_LIMIT", asynchronous=False)
    # A caller that does not wait needs no seat, and one that went away gives its own back.
    await narrow.invoke(asynchronous=True)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert seats.seated == 0


async def test_gateways_count_each_other_while_they_live(kv: KvClient) -> None:
    members = MemberStore(kv, "cs-http-gateway")
    first, second = Peers(members, "gateway-1"), Peers(members, "gateway-2")
    await first.beat()
    await second.beat()
    assert (first.count(), second.count()) == (1, 2)
    await first.beat()
    assert first.count() == 2
    running = asyncio.create_task(second.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await first.beat()
    assert first.count() == 1
