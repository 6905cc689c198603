"""Every process's gRPC server: who gets in, what goes out, and how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from codesous.admin.v1 import admin_service_pb2, admin_service_pb2_grpc
from codesous.control.v1 import function_service_pb2 as pb
from codesous.control.v1.function_pb2 import Function
from codesous.control.v1.function_service_pb2_grpc import (
    FunctionServiceServicer,
    FunctionServiceStub,
    add_FunctionServiceServicer_to_server,
)
from google.rpc import error_details_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from cs_core.errors import NotFoundError, UnavailableError
from cs_core.rpc.context import current
from cs_core.rpc.server import Service
from tests.support.rpc import TENANT, Served, serving
from tests.support.waiting import wait_until

Answer = Callable[[pb.GetFunctionRequest], Awaitable[pb.GetFunctionResponse]]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Fake(FunctionServiceServicer):
    """Answers GetFunction as the test says; the other methods are the generated defaults."""

    def __init__(self) -> None:
        self.answer: Answer = self._echo

    async def _echo(self, request: pb.GetFunctionRequest) -> pb.GetFunctionResponse:
        return pb.GetFunctionResponse(function=Function(function=request.function, creator=current().caller.subject))

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Any) -> pb.GetFunctionResponse:
        return await self.answer(request)


def service(fake: Any) -> Service:
    return Service("codesous.control.v1.FunctionService", add_FunctionServiceServicer_to_server, fake)


@pytest.fixture
def fake() -> Any:
    return Fake()  # type: ignore[abstract]


@pytest.fixture
async def served(tmp_path: Path, fake: Any) -> AsyncIterator[Served]:
    async with serving(tmp_path, [service(fake)]) as served:
        yield served


def get(served: Served, tenant: str = TENANT, **call: Any) -> Any:
    stub: Any = FunctionServiceStub(served.channel)
    return stub.GetFunction(pb.GetFunctionRequest(tenant=tenant, namespace="default", function="hello"), **call)


def details(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason, dict(error.trailing_metadata() or ())  # type: ignore[arg-type]


async def refusal(call: Any) -> tuple[grpc.StatusCode, str, dict[str, str], str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    reason, trailers = details(caught.value)
    return caught.value.code(), reason, trailers, caught.value.details() or ""


async def test_a_caller_gets_an_answer_and_a_request_id(served: Served) -> None:
    call = get(served, metadata=served.bearer())
    assert (await call).function.creator == "dev"
    assert dict(await call.initial_metadata())["x-request-id"].startswith("req_")


async def test_a_request_id_of_ours_is_kept_and_any_other_is_not(served: Served) -> None:
    ours = "req_01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for given, kept in ((ours, True), ("req_x", False), ("', drop table", False)):
        call = get(served, metadata=(*served.bearer(), ("x-request-id", given)))
        await call
        assert (dict(await call.initial_metadata())["x-request-id"] == given) is kept


async def test_without_a_token_nobody_gets_in(served: Served, fake: Any) -> None:
    async def never(_request: Any) -> Any:
        raise AssertionError("the servicer was reached")

    fake.answer = never
    code, reason, trailers, _ = await refusal(get(served))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CS_AUTHN_TOKEN_MISSING")
    assert trailers["x-request-id"].startswith("req_")
    code, reason, _, _ = await refusal(get(served, metadata=(("authorization", "Bearer a.b.c"),)))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CS_AUTHN_TOKEN_INVALID")
    code, reason, _, _ = await refusal(get(served, metadata=served.bearer(tenant="t_beta00")))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "CS_AUTHZ_TENANT_MISMATCH")
    code, reason, _, _ = await refusal(get(served, tenant="", metadata=served.bearer()))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CS_VALIDATION_FIELD")
    code, reason, _, text = await refusal(get(served, metadata=served.bearer("nobody")))
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "CS_AUTHZ_ACTION_DENIED")
    assert f"cs:function:read on cs:{TENANT}:default:function/hello" in text


async def test_a_token_of_another_issuer_is_refused(served: Served, tmp_path: Path) -> None:
    from cs_core.iam.dev_issuer import DevIssuer

    foreign = DevIssuer(tmp_path / "foreign")
    foreign.ensure()
    token = foreign.mint(TENANT, ["admin"])
    code, reason, _, _ = await refusal(get(served, metadata=(("authorization", f"Bearer {token}"),)))
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "CS_AUTHN_TOKEN_INVALID")


async def test_a_domain_error_is_told_as_it_is(served: Served, fake: Any) -> None:
    async def missing(_request: Any) -> Any:
        raise NotFoundError("function", "default/hello")

    fake.answer = missing
    code, reason, trailers, text = await refusal(get(served, metadata=served.bearer()))
    assert (code, reason, text) == (
        grpc.StatusCode.NOT_FOUND,
        "CS_NOT_FOUND_FUNCTION",
        "no such function: default/hello",
    )
    assert "x-cs-http-status" not in trailers  # the proxy finds 404 by itself


async def test_what_can_be_tried_again_says_when(served: Served, fake: Any) -> None:
    async def away(_request: Any) -> Any:
        raise UnavailableError("CS_STORE_UNAVAILABLE", "the store does not answer")

    fake.answer = away
    _, reason, trailers, _ = await refusal(get(served, metadata=served.bearer()))
    assert (reason, trailers["retry-after"]) == ("CS_STORE_UNAVAILABLE", "1")


async def test_an_unknown_exception_tells_nothing(served: Served, fake: Any, capsys: Any) -> None:
    async def broken(_request: Any) -> Any:
        raise RuntimeError("password=hunter2")

    fake.answer = broken
    code, reason, trailers, text = await refusal(get(served, metadata=served.bearer()))
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "CS_INTERNAL")
    assert text == f"internal error; request {trailers['x-request-id']}"
    # And the server goes on.
    fake.answer = fake._echo
    assert (await get(served, metadata=served.bearer())).function.function == "hello"


async def test_bytes_that_are_no_request_are_a_typed_error(served: Served) -> None:
    raw = served.channel.unary_unary("/codesous.control.v1.FunctionService/GetFunction")
    code, reason, _, text = await refusal(raw(b"\xff\xff\xff", metadata=served.bearer()))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CS_VALIDATION_MALFORMED")
    assert text == "the request could not be decoded"


async def test_what_is_declared_and_not_there_says_so(served: Served) -> None:
    stub: Any = FunctionServiceStub(served.channel)
    code, reason, _, text = await refusal(
        stub.ListFunctions(pb.ListFunctionsRequest(tenant=TENANT), metadata=served.bearer())
    )
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "CS_UNIMPLEMENTED")
    assert "ListFunctions" in text


async def test_an_unknown_method_is_a_typed_error(served: Served) -> None:
    raw = served.channel.unary_unary("/codesous.control.v1.FunctionService/Nothing")
    code, reason, _, _ = await refusal(raw(b"", metadata=served.bearer()))
    assert (code, reason) == (grpc.StatusCode.UNIMPLEMENTED, "CS_NOT_FOUND_METHOD")


async def test_large_headers_and_messages_pass(served: Served, fake: Any) -> None:
    async def large(_request: Any) -> Any:
        return pb.GetFunctionResponse(function=Function(description="x" * (24 * 1024 * 1024)))

    fake.answer = large
    metadata = (*served.bearer(), ("x-large", "a" * 64 * 1024))
    answer = await get(served, metadata=metadata)
    assert len(answer.function.description) == 24 * 1024 * 1024


async def test_health_follows_the_probes_and_is_watchable(tmp_path: Path, fake: Any) -> None:
    there = True

    async def probe() -> None:
        if not there:
            raise UnavailableError("CS_STORE_UNAVAILABLE", "the store does not answer")

    async with serving(tmp_path, [service(fake)], probes={"store": probe}) as served:
        health: Any = health_pb2_grpc.HealthStub(served.channel)
        seen: list[int] = []

        async def watch() -> None:
            async for answer in health.Watch(health_pb2.HealthCheckRequest()):
                seen.append(answer.status)

        watching = asyncio.create_task(watch())
        await wait_until(lambda: seen == [SERVING])
        there = False
        await wait_until(lambda: seen == [SERVING, NOT_SERVING])
        named = health_pb2.HealthCheckRequest(service="codesous.control.v1.FunctionService")
        assert (await health.Check(named)).status == NOT_SERVING
        admin: Any = admin_service_pb2_grpc.AdminServiceStub(served.channel)
        readiness = await admin.GetReadiness(admin_service_pb2.GetReadinessRequest())
        assert [(c.name, c.ready, c.message) for c in readiness.checks] == [
            ("store", False, "the store does not answer")
        ]
        away_since = readiness.checks[0].since_time.ToDatetime()
        assert readiness.checks[0].last_error_time.ToDatetime() >= away_since
        there = True
        await wait_until(lambda: seen == [SERVING, NOT_SERVING, SERVING])
        # What was wrong is still told, and from when on it has been right.
        readiness = await admin.GetReadiness(admin_service_pb2.GetReadinessRequest())
        (check,) = readiness.checks
        assert (check.ready, check.message, check.last_error) == (True, "", "the store does not answer")
        assert away_since <= check.last_error_time.ToDatetime() <= check.since_time.ToDatetime()
        assert readiness.since_time.ToDatetime() >= check.since_time.ToDatetime()
        watching.cancel()


async def test_reflection_and_channelz_answer(served: Served) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = await anext(aiter(stub.ServerReflectionInfo(iter([request]))))
    names = {found.name for found in answer.list_services_response.service}
    assert {"codesous.control.v1.FunctionService", "codesous.admin.v1.AdminService", "grpc.health.v1.Health"} <= names
    channelz: Any = channelz_pb2_grpc.ChannelzStub(served.channel)
    servers = await channelz.GetServers(channelz_pb2.GetServersRequest())
    assert servers.server


async def test_drain_and_undrain_by_the_admin_service(served: Served) -> None:
    admin: Any = admin_service_pb2_grpc.AdminServiceStub(served.channel)
    health: Any = health_pb2_grpc.HealthStub(served.channel)
    assert (await admin.Drain(admin_service_pb2.DrainRequest())).inflight == 0
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING
    assert (await admin.GetReadiness(admin_service_pb2.GetReadinessRequest())).draining
    await admin.Undrain(admin_service_pb2.UndrainRequest())
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING


async def test_a_stop_lets_what_is_in_flight_end(served: Served, fake: Any) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_request: Any) -> Any:
        entered.set()
        await leave.wait()
        return pb.GetFunctionResponse()

    fake.answer = slow
    call = asyncio.ensure_future(get(served, metadata=served.bearer()))
    await entered.wait()
    served.stopping.set()

    async def refused() -> bool:
        try:
            await get(served, metadata=served.bearer(), timeout=0.2)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False

    await wait_until(refused)
    leave.set()
    assert await call == pb.GetFunctionResponse()


async def test_calls_are_counted_and_timed(served: Served) -> None:
    await get(served, metadata=served.bearer())
    await refusal(get(served))
    labels = {"method": "/codesous.control.v1.FunctionService/GetFunction"}
    count = served.registry.get_sample_value
    assert count("cs_api_requests_total", {**labels, "code": "OK"}) == 1
    assert count("cs_api_requests_total", {**labels, "code": "UNAUTHENTICATED"}) == 1
    assert count("cs_api_request_duration_seconds_count", labels) == 2


async def test_a_service_whose_rpcs_have_no_rule_does_not_start(tmp_path: Path) -> None:
    from cs_core.iam.access import AccessRuleError

    health = Service("grpc.health.v1.Health", health_pb2_grpc.add_HealthServicer_to_server, object())
    with pytest.raises(AccessRuleError, match="access is not set"):
        async with serving(tmp_path, [health]):
            pass


async def test_a_drain_that_waits_for_no_lawful_time_is_refused_and_drains_nothing(served: Served) -> None:
    admin: Any = admin_service_pb2_grpc.AdminServiceStub(served.channel)
    for seconds, nanos in ((2**63 - 1, 0), (-(2**63), 0), (3_600, 1), (0, -1)):
        request = admin_service_pb2.DrainRequest()
        request.timeout.seconds, request.timeout.nanos = seconds, nanos
        code, reason, _, _ = await refusal(admin.Drain(request))
        assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CS_VALIDATION_FIELD")
    assert not (await admin.GetReadiness(admin_service_pb2.GetReadinessRequest())).draining
