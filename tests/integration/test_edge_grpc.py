"""gRPC and gRPC-Web through the real Envoy, on the port that serves REST too."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from codesous.control.v1 import function_service_pb2, mutation_service_pb2
from codesous.control.v1.function_service_pb2_grpc import FunctionServiceStub
from codesous.control.v1.mutation_service_pb2_grpc import MutationServiceStub
from codesous.gateway.v1 import invocation_service_pb2
from codesous.gateway.v1.invocation_service_pb2_grpc import InvocationServiceStub
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.support.edge import Call, Context, Edge, empty, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

INVOKE = "/codesous.gateway.v1.InvocationService/Invoke"
GRPC_WEB = "application/grpc-web+proto"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        yield edge


@pytest.fixture
def edge(started: Edge) -> Edge:
    started.answer_with(empty)
    return started


async def refuse(_call: Call, _request: Any, context: Context) -> Any:
    """Fails as services do."""
    status = status_pb2.Status(code=9, message="the draft has expired")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="CS_EXPIRED_DRAFT", domain="code-sous"))
    rich = rpc_status.to_status(status)
    await context.abort(rich.code, rich.details, (*rich.trailing_metadata, ("x-cs-http-status", "410"), ("x-own", "1")))


def frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


async def test_calls_go_to_the_service_of_their_package(edge: Edge) -> None:
    async with edge.channel() as channel:
        await FunctionServiceStub(channel).GetFunction(function_service_pb2.GetFunctionRequest(function="hello"))
        await InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest(function="hello"))
    seen = {area: [call.method for call, _ in recorder.seen] for area, recorder in edge.recorders.items()}
    assert seen == {"control": ["GetFunction"], "gateway": ["Invoke"]}


async def test_metadata_of_the_caller_gets_through_and_that_of_the_edge_does_not(edge: Edge) -> None:
    metadata = (
        ("authorization", "Bearer t"),
        ("under_score", "1"),
        ("x-trace-bin", b"\x00\xff"),
        ("x-cs-transcoded", "1"),
        ("x-cs-http-status", "204"),
        ("x-envoy-retry-on", "5xx"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-request-id", "forged"),
    )
    async with edge.channel() as channel:
        await InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest(), metadata=metadata)
    call, _ = edge.seen()
    assert (call.header("authorization"), call.header("under_score")) == ("Bearer t", "1")
    assert ("x-trace-bin", b"\x00\xff") in call.metadata
    assert call.header("x-forwarded-for") == "127.0.0.1"
    assert not {name for name in call.names if name.startswith("x-cs-") or name == "x-request-id"}
    assert "x-envoy-retry-on" not in call.names


async def test_initial_metadata_comes_back_without_what_is_for_the_edge(edge: Edge) -> None:
    async def answer(call: Call, _request: Any, context: Context) -> Any:
        await context.send_initial_metadata((("x-cs-http-status", "404"), ("x-own", "1")))
        return call.output()

    edge.answer_with(answer)
    async with edge.channel() as channel:
        invocation = InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest())
        await invocation
        names = dict(await invocation.initial_metadata())
    assert names["x-own"] == "1"
    assert "x-cs-http-status" not in names


async def test_an_error_stays_a_grpc_status_with_its_details(edge: Edge) -> None:
    edge.answer_with(refuse)
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest())
    error = raised.value
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "the draft has expired")
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info) and info.reason == "CS_EXPIRED_DRAFT"
    assert trailers["x-own"] == "1"
    assert "x-cs-http-status" not in trailers


async def test_a_stream_that_fails_late_keeps_its_status_too(edge: Edge) -> None:
    async def answer(call: Call, request: Any, context: Context) -> Any:
        async def messages() -> AsyncIterator[Any]:
            yield call.output(cursor="1")
            await refuse(call, request, context)

        return messages()

    edge.answer_with(answer)
    received = []
    async with edge.channel() as channel:
        stream = MutationServiceStub(channel).WatchMutations(mutation_service_pb2.WatchMutationsRequest())
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for message in stream:
                received.append(message.cursor)
    assert received == ["1"]
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "x-cs-http-status" not in dict(raised.value.trailing_metadata() or ())


@pytest.mark.parametrize(
    "method",
    [
        "/codesous.admin.v1.AdminService/GetInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/codesous.queue.v1.Nothing/Nothing",
        "/v1/tenants/t_alpha0/mutations",
        "/v1/web/t_alpha0/default/hello/live",
        "/grpc.healthy.v1.Health/Check",
    ],
)
async def test_what_is_not_public_is_unimplemented(edge: Edge, method: str) -> None:
    async with edge.channel() as channel:
        call: Any = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert raised.value.details() == "no such method: the path of this call"


async def test_only_post_is_routed_as_grpc(edge: Edge) -> None:
    for method in ("GET", "OPTIONS", "DELETE"):
        answer = await edge.http(method, INVOKE, headers=[("content-type", "application/grpc")])
        assert answer.header("grpc-status") == "12"
    assert edge.nothing_seen()


async def test_the_callers_deadline_counts(edge: Edge) -> None:
    async def answer(_call: Call, _request: Any, _context: Context) -> Any:
        await asyncio.Event().wait()

    edge.answer_with(answer)
    async with edge.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest(), timeout=0.3)
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert edge.seen()[0].method == "Invoke"


async def test_health_and_reflection_are_there(edge: Edge) -> None:
    async with edge.channel() as channel:
        checks: Any = health_pb2_grpc.HealthStub(channel)
        health = await checks.Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        question: Any = reflection_pb2

        async def ask() -> AsyncIterator[Any]:
            yield question.ServerReflectionRequest(list_services="")

        (answer,) = [answer async for answer in stub.ServerReflectionInfo(ask())]
    assert [service.name for service in answer.list_services_response.service] == [
        "codesous.gateway.v1.InvocationService"
    ]


async def test_grpc_web_gets_its_answer_and_its_status(edge: Edge) -> None:
    request = invocation_service_pb2.InvokeRequest(function="hello").SerializeToString()
    headers = [("content-type", GRPC_WEB), ("x-grpc-web", "1"), ("origin", "https://page.example")]
    answer = await edge.http("POST", INVOKE, body=frame(request), headers=headers)
    assert (answer.status, answer.header("content-type")) == (200, GRPC_WEB)
    assert answer.header("access-control-allow-origin") == "https://page.example"
    assert "grpc-status" in str(answer.header("access-control-expose-headers"))
    assert answer.body.startswith(frame(b"")) and b"grpc-status:0" in answer.body
    assert edge.seen()[1].function == "hello"


async def test_grpc_web_as_text_gets_its_answer_as_text(edge: Edge) -> None:
    headers = [("content-type", "application/grpc-web-text"), ("accept", "application/grpc-web-text")]
    answer = await edge.http("POST", INVOKE, body=base64.b64encode(frame(b"")), headers=headers)
    assert answer.status == 200
    assert b"grpc-status:0" in base64.b64decode(answer.body.partition(b"=")[2])  # each frame is encoded by itself


async def test_an_error_by_grpc_web_keeps_http_200_and_its_details(edge: Edge) -> None:
    edge.answer_with(refuse)
    answer = await edge.http("POST", INVOKE, body=frame(b""), headers=[("content-type", GRPC_WEB)])
    assert (answer.status, answer.header("grpc-status")) == (200, "9")
    assert "grpc-status-details-bin" in answer.names
    assert "x-cs-http-status" not in answer.names


async def test_grpc_web_learns_of_the_edges_own_refusals_by_status(edge: Edge) -> None:
    headers = [("content-type", GRPC_WEB)]
    answer = await edge.http("POST", "/codesous.admin.v1.AdminService/GetInfo", body=frame(b""), headers=headers)
    assert answer.header("grpc-status") == "12"


async def test_a_browser_may_ask_before_a_call_by_grpc_web(edge: Edge) -> None:
    headers = [("origin", "https://page.example"), ("access-control-request-method", "POST")]
    answer = await edge.http("OPTIONS", INVOKE, headers=headers)
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "https://page.example")
    assert "x-grpc-web" in str(answer.header("access-control-allow-headers"))
    assert edge.nothing_seen()
