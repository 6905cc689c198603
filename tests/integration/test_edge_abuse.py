"""Abuse at the real Envoy: it costs the abuser, and a neighbour's call succeeds meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio
from codesous.gateway.v1.web_service_pb2 import HandleResponse
from google.api.httpbody_pb2 import HttpBody

from tests.support.edge import HOST, MIB, Call, Context, Edge, empty, running_edge
from tests.support.raw_h2 import (
    CONTINUATION,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    block,
    frame,
    raw_h2,
    request,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTIONS = "/v1/tenants/t_alpha0/namespaces/default/functions"
WEB = "/v1/web/t_alpha0/default/hello/live"
ABUSERS = 30
IN_TIME = 25.0
"""Seconds, generously: without the guards, these last for hours."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Edge]:
    async with running_edge(request_headers_timeout="1s", request_timeout="2s") as edge:
        yield edge


@pytest.fixture
def edge(started: Edge) -> Edge:
    started.answer_with(empty)
    return started


async def neighbours_call(edge: Edge) -> None:
    """Somebody else's request is answered."""
    answer = await asyncio.wait_for(edge.http("GET", FUNCTIONS), IN_TIME)
    assert answer.status == 200


@asynccontextmanager
async def trickling(edge: Edge, start: bytes, drop: bytes) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """Connections that send a start and then a drop at a time, and read until they are cut off."""

    async def client() -> bytes:
        reader, writer = await asyncio.open_connection(HOST, edge.port)
        writer.write(start)
        told = bytearray()
        try:
            # The end may be a reset, since the edge is still sent to when it hangs up.
            with suppress(ConnectionError):
                while not reader.at_eof():
                    writer.write(drop)
                    with suppress(TimeoutError):
                        told += await asyncio.wait_for(reader.read(4096), 0.2)
            return bytes(told)
        finally:
            writer.close()

    clients = [asyncio.create_task(client()) for _ in range(ABUSERS)]
    try:
        yield clients
    finally:
        for task in clients:
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (f"GET {FUNCTIONS} HTTP/1.1\r\nhost: h\r\nx-slow: ".encode(), b"a"),
        (f"POST {WEB} HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n".encode(), b"a"),
        (f"POST {WEB} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".encode(), b"1\r\na\r\n"),
    ],
    ids=["headers", "body", "chunks"],
)
async def test_who_sends_a_byte_at_a_time_is_cut_off(edge: Edge, start: bytes, drop: bytes) -> None:
    async with trickling(edge, start, drop) as clients:
        await neighbours_call(edge)
        answers = await asyncio.wait_for(asyncio.gather(*clients), IN_TIME)
    assert {answer.partition(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b"CS_" in answer for answer in answers)
    assert [call.method for recorder in edge.recorders.values() for call, _ in recorder.seen] == ["ListFunctions"]


async def test_who_does_not_read_holds_up_nobody_else(edge: Edge) -> None:
    async def large(call: Call, _request: Any, _context: Context) -> Any:
        if call.method != "Handle":
            return call.output()
        return HandleResponse(body=HttpBody(content_type="application/octet-stream", data=bytes(4 * MIB)))

    edge.answer_with(large)
    async with AsyncExitStack() as stack:
        for _ in range(ABUSERS):
            _, writer = await asyncio.open_connection(HOST, edge.port, limit=1024)
            stack.callback(writer.close)
            writer.write(f"GET {WEB} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        await wait_until(lambda: len(edge.recorders["gateway"].seen) == ABUSERS)
        await neighbours_call(edge)


async def test_a_flood_of_streams_reaches_the_services_a_hundred_at_a_time(edge: Edge) -> None:
    release = asyncio.Event()

    async def slow(call: Call, _request: Any, _context: Context) -> Any:
        if call.method == "Handle":
            await release.wait()
        return call.output()

    edge.answer_with(slow)
    seen = edge.recorders["gateway"].seen
    async with raw_h2(edge.port) as abuser:
        await abuser.send(b"".join(request(2 * number + 1, WEB) for number in range(400)))
        await wait_until(lambda: abuser.ended or abuser.count(RST_STREAM) + len(seen) >= 400)
        assert len(seen) <= 100
        await neighbours_call(edge)
        release.set()


async def test_who_resets_what_it_begins_is_cut_off(edge: Edge) -> None:
    """By the proxy's own count of early resets, and without it by its codec's."""
    await cut_off(
        edge, lambda number: request(2 * number + 1, WEB) + frame(RST_STREAM, 0, 2 * number + 1, b"\0\0\0\x08")
    )
    assert len(edge.recorders["gateway"].seen) <= 100, "the services paid for it"


@pytest.mark.parametrize("part", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0)], ids=["pings", "settings"])
async def test_who_makes_the_edge_answer_without_end_holds_up_nobody_else(edge: Edge, part: bytes) -> None:
    async with raw_h2(edge.port) as abuser:
        for _ in range(50):
            await asyncio.wait_for(abuser.send(part * 400), IN_TIME)
        await neighbours_call(edge)


async def test_headers_that_never_end_are_cut_off(edge: Edge) -> None:
    def part(number: int) -> bytes:
        kind = HEADERS if number == 0 else CONTINUATION
        return frame(kind, 0, 1, block((f"x-{number}-{each}", "y" * 1000) for each in range(8)))

    await cut_off(edge, part)
    assert {call.method for recorder in edge.recorders.values() for call, _ in recorder.seen} == {"ListFunctions"}


async def test_empty_frames_without_end_are_cut_off(edge: Edge) -> None:
    def part(number: int) -> bytes:
        return request(1, WEB, method="POST", ends=False) if number == 0 else frame(0, 0, 1) * 20

    await cut_off(edge, part)


async def cut_off(edge: Edge, part: Callable[[int], bytes], *, parts: int = 5_000) -> None:
    """Send parts until the connection is ended from the other side; a neighbour calls in the midst of it."""
    async with raw_h2(edge.port) as abuser:
        neighbour: Awaitable[None] | None = None
        for number in range(parts):
            if abuser.ended:
                break
            await asyncio.wait_for(abuser.send(part(number)), IN_TIME)
            await asyncio.sleep(0)
            if number == 20:
                neighbour = asyncio.create_task(neighbours_call(edge))
        await wait_until(lambda: abuser.ended, within=IN_TIME)
        await (neighbour or neighbours_call(edge))
        await neighbours_call(edge)


INTERNAL = "/codesous.admin.v1.AdminService/GetInfo"


@pytest.mark.parametrize(
    "path",
    [
        INTERNAL,
        f"/{INTERNAL}",
        f"/.{INTERNAL}",
        f"/codesous.gateway.v1.InvocationService/..{INTERNAL}",
        f"/codesous.gateway.v1.InvocationService/..%2f{INTERNAL[1:]}",
        f"/codesous.gateway.v1.InvocationService/Invoke#{INTERNAL}",
        INTERNAL.replace("admin", "%61dmin"),
        INTERNAL.upper(),
        f"{INTERNAL}?x=/codesous.gateway.v1.InvocationService/Invoke",
        f"{INTERNAL};/codesous.gateway.v1.",
        "/grpc.channelz.v1.Channelz/GetServers",
        "/grpc.health.v1.Health/../../codesous.admin.v1.AdminService/GetInfo",
        f"http://h{INTERNAL}",
        "*",
    ],
)
async def test_no_path_leads_to_a_service_that_is_internal(edge: Edge, path: str) -> None:
    grpc_like = (("content-type", "application/grpc"), ("te", "trailers"), ("x-cs-transcoded", "1"))
    async with raw_h2(edge.port) as stranger:
        message = frame(0, 1, 1, bytes(5))
        await stranger.send(request(1, path, *grpc_like, method="POST", ends=False) + message)
        await wait_until(lambda: stranger.ended or any(stream == 1 for _, stream in stranger.received))
    # The fake services take whatever reaches them for a call, so what is refused was refused by the edge.
    assert {call.method for recorder in edge.recorders.values() for call, _ in recorder.seen} <= {"Invoke"}
    assert not [call for recorder in edge.recorders.values() for call, _ in recorder.seen if call.method == "GetInfo"]
    await neighbours_call(edge)


@pytest.mark.parametrize(
    "lines",
    [
        b"connection: authorization",
        b"connection: x-forwarded-for, x-cs-transcoded",
        b"connection: te, content-type",
        b"transfer-encoding: identity",
        b"content-length: 0\r\ncontent-length: 5",
        b"content-length: +5",
        b"content-length: 5, 5",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding: xchunked",
        b"transfer-encoding : chunked",
        b"x-a: b\r\n c: folded",
        b"x-a: b\nx-b: c",
        b"x-a: b\rx-b: c",
        b"x-a\x00: b",
        b"authorization: Bearer one\r\nauthorization: Bearer two",
    ],
)
async def test_no_second_request_comes_out_of_the_headers_of_one(edge: Edge, lines: bytes) -> None:
    smuggled = b"GET /v1/tenants/t_evil00/namespaces/default/functions HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    head = f"GET {FUNCTIONS} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer mine\r\n".encode() + lines + b"\r\n\r\n"
    answer = await edge.raw(head + b"0\r\n\r\n" + smuggled)
    seen = [(call, asked) for recorder in edge.recorders.values() for call, asked in recorder.seen]
    # The bytes that follow are a request of their own at most, never part of one, and none is answered twice.
    assert len(seen) <= 2
    assert answer.count(b"HTTP/1.1 ") <= 2
    for call, asked in seen:
        assert call.header("x-forwarded-for") == "127.0.0.1"
        assert asked.tenant in ("t_alpha0", "t_evil00")
    await neighbours_call(edge)


@pytest.mark.parametrize(
    "header",
    [
        ("content-length", "1"),
        ("transfer-encoding", "chunked"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("x-cs-http-status", "101"),
        ("x-cs-http-status", "200\u0020OK"),
        ("grpc-status", "13"),
        ("x-envoy-upstream-service-time", "1"),
    ],
)
async def test_no_header_of_an_answer_splits_it(edge: Edge, header: tuple[str, str]) -> None:
    """Even when a gateway let it pass: the edge frames the answer itself."""

    async def answer(call: Call, _request: Any, context: Context) -> Any:
        if call.method == "Handle":
            with suppress(Exception):
                await context.send_initial_metadata((header,))
            return HandleResponse(body=HttpBody(content_type="text/plain", data=b"HTTP/1.1 200 OK\r\n\r\nbody"))
        return call.output()

    edge.answer_with(answer)
    got = await edge.raw(f"GET {WEB} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    lengths = [line for line in lines if line.startswith((b"content-length:", b"transfer-encoding:"))]
    assert len(lengths) <= 1, got
    if lengths and lengths[0].startswith(b"content-length:"):
        assert int(lengths[0].partition(b":")[2]) == len(body)
    assert not lines[0].startswith(b"http/1.1 101")
    assert not [line for line in lines if line.startswith((b"x-cs-", b"upgrade:", b"grpc-"))]
    await neighbours_call(edge)


@pytest.mark.parametrize(
    "kinds",
    [
        ("application/grpc", "text/plain"),
        ("application/grpc", "application/json"),
        ("application/grpc-web", "application/json"),
        ("application/grpcx",),
        ("application/grpc;x=y",),
        ("application/grpc,application/grpc",),
        ("Application/GRPC",),
    ],
)
async def test_what_is_almost_grpc_is_http_in_every_respect(edge: Edge, kinds: tuple[str, ...]) -> None:
    """What the filter took for gRPC and the transcoder for HTTP would pass by all that is done for either."""
    headers = [("content-type", kind) for kind in kinds]
    odd = [("x-bin", "!!!"), ("grpc-timeout", "1n"), ("x-cs-http-status", "204")]
    # The path says whose it is, and a parameter that says otherwise is not looked at.
    answer = await edge.http("GET", f"{FUNCTIONS}?ten%61nt=t_evil00", headers=[*headers, *odd])
    assert answer.status == 200, answer
    call, asked = edge.seen()
    assert (asked.tenant, call.header("x-cs-transcoded")) == ("t_alpha0", "1")
    assert not call.names & {"x-bin", "x-cs-http-status"}
    refused = await edge.http("GET", "/v1/none", headers=headers)
    assert (refused.status, refused.reason()) == (404, "CS_NOT_FOUND_METHOD")


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"])
async def test_what_is_grpc_is_no_http(edge: Edge, kind: str) -> None:
    answer = await edge.http("GET", FUNCTIONS, headers=[("content-type", kind)])
    assert answer.header("content-type") != "application/json"
    assert edge.nothing_seen()
