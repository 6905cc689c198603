"""Limits, time, and services that go away, at the real Envoy."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import stat
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from codesous.gateway.v1 import invocation_service_pb2
from codesous.gateway.v1.invocation_service_pb2_grpc import InvocationServiceStub
from codesous.gateway.v1.web_service_pb2 import HandleResponse
from google.api.httpbody_pb2 import HttpBody

from tests.support.edge import MIB, Call, Context, Edge, Response, running_edge
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEB = "/v1/web/t_alpha0/default/hello/live"
FUNCTION = "/v1/tenants/t_alpha0/namespaces/default/functions/hello"
ACTIVATION = "/v1/tenants/t_alpha0/activations/abc"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        yield edge


@pytest.fixture
def edge(started: Edge) -> Edge:
    started.answer_with(echo)
    return started


async def echo(call: Call, request: Any, _context: Context) -> Any:
    """A web request's body comes back; other calls answer empty messages."""
    if call.method != "Handle":
        return call.output()
    return HandleResponse(body=HttpBody(content_type="application/octet-stream", data=request.body.data))


def slow(seconds: float) -> Any:
    async def answer(call: Call, _request: Any, _context: Context) -> Any:
        await asyncio.sleep(seconds)
        return call.output()

    return answer


def as_base64(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


async def test_a_body_of_6_mib_gets_through_and_back(edge: Edge) -> None:
    body = bytes(range(256)) * (6 * MIB // 256)
    answer = await edge.http("POST", WEB, body=body)
    assert answer.status == 200
    assert answer.body == body


async def test_one_byte_more_is_for_the_service_to_refuse(edge: Edge) -> None:
    answer = await edge.http("POST", WEB, body=bytes(6 * MIB + 1))
    assert answer.status == 200
    assert len(edge.seen()[1].body.data) == 6 * MIB + 1


async def test_an_event_of_6_mib_in_base64_gets_through(edge: Edge) -> None:
    answer = await edge.http("POST", f"{FUNCTION}:invoke", json_body={"ref": "a", "event_json": as_base64(6 * MIB)})
    assert answer.status == 200
    assert len(edge.seen()[1].event_json) == 6 * MIB


async def test_a_draft_of_16_mib_in_base64_gets_through(edge: Edge) -> None:
    answer = await edge.http("PUT", f"{FUNCTION}/draft", json_body={"files": {"a.js": as_base64(16 * MIB)}})
    assert answer.status == 200
    assert len(edge.seen()[1].files["a.js"]) == 16 * MIB


@pytest.mark.parametrize(
    ("method", "target", "size"),
    [
        ("POST", WEB, 9 * MIB),
        ("POST", f"{FUNCTION}:invoke", 9 * MIB),
        ("PUT", f"{FUNCTION}/draft", 25 * MIB),
        ("PUT", f"{FUNCTION}/draft?tenant=t_evil", 25 * MIB),
    ],
)
async def test_a_body_over_the_limit_is_refused_before_a_service_hears_of_it(
    edge: Edge, method: str, target: str, size: int
) -> None:
    answer = await edge.http(method, target, body=bytes(size))
    assert (answer.status, answer.reason()) == (413, "CS_VALIDATION_TOO_LARGE")
    assert edge.nothing_seen()


async def test_a_body_in_chunks_over_the_limit_is_refused(edge: Edge) -> None:
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    answer = await edge.http("POST", WEB, body=chunk * 9 + b"0\r\n\r\n", headers=[("transfer-encoding", "chunked")])
    assert (answer.status, answer.reason()) == (413, "CS_VALIDATION_TOO_LARGE")
    assert edge.nothing_seen()


async def test_headers_of_64_kib_get_through(edge: Edge) -> None:
    answer = await edge.http("GET", WEB, headers=[("x-large", "a" * 60 * 1024), ("x-more", "b" * 4000)])
    assert answer.status == 200
    assert edge.seen()[0].header("x-large") == "a" * 60 * 1024


@pytest.mark.parametrize("headers", [[("x-large", "a" * 81 * 1024)], [(f"x-{number}", "") for number in range(200)]])
async def test_headers_over_the_limit_are_refused(edge: Edge, headers: list[tuple[str, str]]) -> None:
    answer = await edge.http("GET", WEB, headers=headers)
    assert (answer.status, answer.reason()) == (431, "CS_VALIDATION_TOO_LARGE")
    assert edge.nothing_seen()


@pytest.mark.parametrize(("count", "size"), [(1, 48 * 1024), (900, 40), (9000, 0)])
async def test_a_function_may_answer_with_48_kib_of_headers_many_or_few(edge: Edge, count: int, size: int) -> None:
    async def answer(call: Call, _request: Any, context: Context) -> Any:
        await context.send_initial_metadata(tuple((f"x-own-{number}", "a" * size) for number in range(count)))
        return call.output()

    edge.answer_with(answer)
    call = edge.raw(f"GET {WEB} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
    head = (await call).partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"HTTP/1.1 200 OK"
    assert sum(line.startswith(b"x-own-") and line.endswith(b"a" * size) for line in head) == count


async def test_grpc_messages_and_metadata_are_for_the_service_to_limit(edge: Edge) -> None:
    async with edge.channel() as channel:
        request = invocation_service_pb2.InvokeRequest(event_json=bytes(31 * MIB))
        await InvocationServiceStub(channel).Invoke(request, metadata=(("x-large", "a" * 64 * 1024),))
    call, received = edge.seen()
    assert len(received.event_json) == 31 * MIB
    assert call.header("x-large") == "a" * 64 * 1024


async def test_a_wait_of_seconds_is_no_fault(edge: Edge) -> None:
    edge.answer_with(slow(5))
    assert (await edge.http("GET", f"{ACTIVATION}:wait?timeout=5s")).status == 200


async def test_a_service_that_takes_too_long_is_a_504_by_http_and_no_matter_by_grpc() -> None:
    async with running_edge(route_timeout="0.5s") as edge:
        edge.answer_with(slow(1.5))
        async with edge.channel() as channel:
            by_grpc = InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest())
            answer = await edge.http("GET", f"{ACTIVATION}:wait")
            await by_grpc
    assert (answer.status, answer.reason(), answer.json()["code"]) == (504, "CS_SERVICE_UNAVAILABLE", 4)


async def test_a_service_that_is_away_is_a_503_and_back_at_once_when_it_is_back() -> None:
    async with running_edge() as edge:
        assert (await edge.http("GET", ACTIVATION)).status == 200
        await edge.stop_service("gateway")
        loop = asyncio.get_running_loop()
        before = loop.time()
        answer = await edge.http("GET", ACTIVATION, headers=[("x-request-id", "req_01ARZ3NDEKTSV4RRFFQ69G5FAV")])
        assert loop.time() - before < 1
        assert_away(answer)
        assert answer.header("x-request-id") == "req_01ARZ3NDEKTSV4RRFFQ69G5FAV"
        assert_away(await edge.http("GET", WEB))
        assert (await edge.http("GET", f"{FUNCTION}/versions")).status == 200, "the other service is there"
        async with edge.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await InvocationServiceStub(channel).Invoke(invocation_service_pb2.InvokeRequest())
        assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
        assert raised.value.details() == "the service behind the public port does not answer"
        await edge.start_service("gateway")

        async def is_back() -> bool:
            return (await edge.http("GET", ACTIVATION)).status == 200

        await wait_until(is_back, within=1)


def assert_away(answer: Response) -> None:
    assert (answer.status, answer.reason(), answer.json()["code"]) == (503, "CS_SERVICE_UNAVAILABLE", 14)
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retry_delay": "1s"}
    assert retry in answer.json()["details"]
    assert answer.header("retry-after") == "1"


async def test_a_service_that_dies_within_a_call_is_not_asked_again() -> None:
    async with running_edge() as edge:
        edge.answer_with(slow(60))
        calling = asyncio.create_task(edge.http("POST", f"{FUNCTION}:invoke", json_body={"ref": "live"}))
        await wait_until(lambda: not edge.nothing_seen())
        await edge.stop_service("gateway")
        answer = await calling
        assert answer.status in {499, 503}
        assert "retry-after" not in answer.names, "nobody knows whether it was carried out"
        assert edge.seen()[0].method == "Invoke"


async def test_switching_protocols_and_old_ones_are_refused(edge: Edge) -> None:
    upgrade = await edge.http("GET", WEB, headers=[("connection", "upgrade"), ("upgrade", "websocket")])
    assert (upgrade.status, upgrade.reason()) == (403, "CS_VALIDATION_MALFORMED")
    old = await edge.raw(f"GET {WEB} HTTP/1.0\r\nhost: h\r\n\r\n".encode())
    assert old.startswith(b"HTTP/1.1 426") and b"CS_VALIDATION_MALFORMED" in old
    assert edge.nothing_seen()


async def test_a_tunnel_is_refused(edge: Edge) -> None:
    answer = await edge.raw(b"CONNECT other.example:443 HTTP/1.1\r\nhost: other.example:443\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b"CS_VALIDATION_MALFORMED" in answer
    assert edge.nothing_seen()


async def test_smuggled_lengths_are_refused(edge: Edge) -> None:
    head = f"POST {WEB} HTTP/1.1\r\nhost: h\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = await edge.raw(head.encode() + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and b"CS_VALIDATION_MALFORMED" in answer
    assert edge.nothing_seen()


async def test_the_access_log_is_json_without_queries_and_tokens(edge: Edge) -> None:
    secret = [("authorization", "Bearer s3cret")]
    await edge.http("GET", f"{FUNCTION}?tenant=s3cret", headers=secret)
    await edge.http("GET", f"{WEB}/x?password=s3cret", headers=secret)
    await edge.http("GET", "/v1/marker?password=s3cret", headers=secret)
    lines = await wait_until(lambda: [line for line in read_log(edge) if line["path"] == "/v1/marker"])
    assert (lines[-1]["status"], lines[-1]["method"], lines[-1]["address"]) == (404, "GET", "127.0.0.1")
    assert "s3cret" not in edge.access_log.read_text()
    assert {line["path"] for line in read_log(edge)} >= {FUNCTION, WEB}


def read_log(edge: Edge) -> list[dict[str, Any]]:
    complete = edge.access_log.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in complete.splitlines()]


async def test_the_admin_interface_is_for_the_owner_of_the_process_alone(edge: Edge) -> None:
    mode = edge.admin.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
@pytest.mark.parametrize("arguments", [(), ("-I",), ("-d", "never sent back")])
async def test_http2_without_tls_serves_rest_and_the_web_endpoint(edge: Edge, arguments: tuple[str, ...]) -> None:
    async def answer(_call: Call, request: Any, context: Context) -> Any:
        await context.send_initial_metadata((("x-cs-http-status", "204" if request.body.data else "203"),))
        return HandleResponse(body=HttpBody(content_type="text/plain", data=b"some text"))

    edge.answer_with(answer)
    command = ["curl", "-sS", "-i", "-m", "10", "--http2-prior-knowledge", f"http://127.0.0.1:{edge.port}{WEB}"]
    process = await asyncio.create_subprocess_exec(*command, *arguments, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    assert output.startswith("HTTP/2 204" if "-d" in arguments else "HTTP/2 203")
    assert output.endswith("some text") == (not arguments)
    assert "grpc-" not in output and "x-cs-" not in output
    assert edge.seen()[0].header("x-cs-protocol") == "HTTP/2"
