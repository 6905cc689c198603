"""The web endpoint through the real Envoy: what a caller wrote reaches the service, what it says comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from codesous.gateway.v1.web_service_pb2 import HandleResponse
from google.api.httpbody_pb2 import HttpBody

from tests.support.edge import Call, Context, Edge, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

BASE = "/v1/web/t_alpha0/default/hello/live"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        yield edge


@pytest.fixture
def edge(started: Edge) -> Edge:
    started.answer_with(answering())
    return started


def answering(status: str = "200", *headers: tuple[str, str], body: bytes | None = None) -> Any:
    """Answers with a body, by default that of the request."""

    async def answer(_call: Call, request: Any, context: Context) -> Any:
        await context.send_initial_metadata((("x-cs-http-status", status), *headers))
        data = request.body.data if body is None else body
        return HandleResponse(body=HttpBody(content_type="text/x-test", data=data))

    return answer


def fields(request: Any) -> tuple[str, str, str, str]:
    return request.tenant, request.namespace, request.function, request.ref


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/",
        "//",
        "/a/b/c",
        "/a//b/",
        "/a%2Fb%2f",
        "/%2e%2e/./../..%2f",
        "/caf%C3%A9/%F0%9F%8D%B2",
        "/%ff%00%c0%ae",
        "/100%25",
        "/x:invoke",
        "/x:wait/",
        "/:undelete",
        "/a:b:c",
        "/v1/tenants/t_evil/mutations",
        "/;a=1,b/@me/~x!$&'()*+",
        "/{proxy_path=**}",
        "/" + "x" * 8000,
    ],
)
async def test_the_path_reaches_the_service_as_it_was_written(edge: Edge, rest: str) -> None:
    answer = await edge.http("GET", f"{BASE}{rest}?q=1")
    assert answer.status == 200
    call, request = edge.seen()
    assert call.header("x-cs-raw-path") == f"{BASE}{rest}"
    assert call.header("x-cs-raw-query") == "q=1"
    assert fields(request) == ("t_alpha0", "default", "hello", "live")


@pytest.mark.parametrize(
    "query",
    [
        "tenant=t_evil&function=f&ref=1&body=x",
        "body.data=eA==&body.contentType=x&proxy_path=y&proxyPath=z",
        "a=%ff&a=%C3%A9&b=+%20",
        "?a=?&&=;",
        "nope[]=1",
        "",
    ],
)
async def test_the_query_reaches_the_service_as_it_was_written_and_binds_to_nothing(edge: Edge, query: str) -> None:
    answer = await edge.http("POST", f"{BASE}/x?{query}", body=b"the body")
    assert (answer.status, answer.body) == (200, b"the body")
    call, request = edge.seen()
    assert call.header("x-cs-raw-query") == query
    assert fields(request) == ("t_alpha0", "default", "hello", "live")
    assert request.body.data == b"the body"
    assert request.proxy_path == ""


async def test_without_a_query_there_is_none(edge: Edge) -> None:
    await edge.http("GET", f"{BASE}/x", headers=[("x-cs-raw-query", "forged=1")])
    assert edge.seen()[0].header("x-cs-raw-query") is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "REPORT"])
async def test_any_verb_reaches_the_service_with_a_body(edge: Edge, method: str) -> None:
    answer = await edge.http(method, f"{BASE}/x", body=b"\x00\xffbody")
    assert (answer.status, answer.body) == (200, b"\x00\xffbody")
    assert edge.seen()[0].header("x-envoy-original-method") == method


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "application/x-www-form-urlencoded", "text/plain; charset=latin1", "x/y", ""],
)
async def test_a_body_of_any_type_reaches_the_service_untouched(edge: Edge, content_type: str | None) -> None:
    headers = [] if content_type is None else [("content-type", content_type)]
    await edge.http("POST", BASE, body=b'{"not json', headers=headers)
    _, request = edge.seen()
    assert request.body.data == b'{"not json'
    assert request.body.content_type == (content_type or "")


async def test_a_body_in_chunks_reaches_the_service(edge: Edge) -> None:
    head = f"POST {BASE} HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    answer = await edge.raw(head.encode() + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\nabcde")


async def test_no_body_is_an_empty_body(edge: Edge) -> None:
    answer = await edge.http("DELETE", BASE)
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")
    assert edge.seen()[1].body == HttpBody()


@pytest.mark.parametrize("status", ["200", "201", "302", "404", "418", "500", "503", "599"])
async def test_the_functions_status_headers_and_body_come_back(edge: Edge, status: str) -> None:
    headers = (("location", "/there?a=1"), ("x-own", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
    edge.answer_with(answering(status, *headers, body=b"\x00body"))
    answer = await edge.http("GET", BASE)
    assert (answer.status, answer.body) == (int(status), b"\x00body")
    assert answer.header("content-type") == "text/x-test"
    assert [value for name, value in answer.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert (answer.header("location"), answer.header("x-own")) == ("/there?a=1", "1")
    assert not {name for name in answer.names if name.startswith(("grpc-", "x-cs-", "x-envoy-"))}


@pytest.mark.parametrize("status", ["200", "404", "204", "304"])
async def test_nothing_follows_the_answer_to_head(edge: Edge, status: str) -> None:
    edge.answer_with(answering(status, body=b"never sent"))
    first = f"HEAD {BASE} HTTP/1.1\r\nhost: h\r\n\r\n"
    second = "GET /nothing HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    answers = await edge.raw((first + second).encode())
    head, rest = answers.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 " + status.encode())
    assert (b"content-length: 10" in head) == (status in {"200", "404"})
    assert rest.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert edge.seen()[0].header("x-envoy-original-method") == "HEAD"


@pytest.mark.parametrize("status", ["204", "304"])
async def test_an_answer_that_has_no_body_by_its_status_has_none(edge: Edge, status: str) -> None:
    edge.answer_with(answering(status, ("x-own", "1"), body=b"never sent"))
    answer = await edge.http("GET", BASE)
    assert (answer.status, answer.body, answer.header("x-own")) == (int(status), b"", "1")
    assert not answer.names & {"content-length", "content-type", "transfer-encoding"}


async def test_the_function_answers_preflights_itself(edge: Edge) -> None:
    edge.answer_with(answering("204", ("access-control-allow-origin", "https://mine.example")))
    headers = [("origin", "https://page.example"), ("access-control-request-method", "PUT")]
    answer = await edge.http("OPTIONS", f"{BASE}/x", headers=headers)
    assert (answer.status, answer.header("access-control-allow-origin")) == (204, "https://mine.example")
    call, _ = edge.seen()
    assert (call.header("origin"), call.header("access-control-request-method")) == ("https://page.example", "PUT")


async def test_the_edge_adds_no_cross_origin_headers_to_a_functions_answer(edge: Edge) -> None:
    answer = await edge.http("GET", BASE, headers=[("origin", "https://page.example")])
    assert not {name for name in answer.names if name.startswith("access-control-")}


async def test_headers_reach_the_service_and_those_that_grpc_cannot_carry_fail_nothing(edge: Edge) -> None:
    headers = [
        ("authorization", "Bearer t"),
        ("cookie", "a=1; b=2"),
        ("x-latin", "Jos\xe9"),
        ("x.dotted", "1"),
        ("under_score", "1"),
        ("x-empty", ""),
        ("x-tail-bin", "!"),
        ("grpc-timeout", "1n"),
        ("grpc-accept-encoding", "gzip"),
        ("te", "deflate"),
        ("x!odd", "1"),
        ("content-encoding", "gzip"),
        ("accept-encoding", "gzip"),
    ]
    answer = await edge.http("POST", BASE, body=b"abc", headers=headers)
    assert (answer.status, answer.body) == (200, b"abc")
    call, _ = edge.seen()
    assert call.header("authorization") == "Bearer t"
    assert call.header("cookie") == "a=1; b=2"
    assert call.header("x-latin") is not None
    assert (call.header("x.dotted"), call.header("under_score"), call.header("x-empty")) == ("1", "1", "")
    assert (call.header("content-encoding"), call.header("accept-encoding")) == ("gzip", "gzip")
    assert not call.names & {"x-tail-bin", "grpc-timeout", "grpc-accept-encoding", "x!odd"}


async def test_the_service_learns_protocol_authority_and_address(edge: Edge) -> None:
    request = f"GET {BASE} HTTP/1.1\r\nhost: fn.example:81\r\nx-forwarded-for: 9.9.9.9\r\nconnection: close\r\n\r\n"
    await edge.raw(request.encode())
    call, _ = edge.seen()
    assert call.header("x-cs-protocol") == "HTTP/1.1"
    assert call.header("x-cs-authority") == "fn.example:81"
    assert call.header("x-forwarded-for") == "127.0.0.1"


@pytest.mark.parametrize("path", ["/v1/web/t_alpha0/default/%ff/live/x", "/v1/web/t_alpha0/default/hello/%C3"])
async def test_names_that_are_not_utf8_are_refused(edge: Edge, path: str) -> None:
    answer = await edge.http("GET", path)
    assert (answer.status, answer.reason()) == (400, "CS_VALIDATION_MALFORMED")
    assert edge.nothing_seen()


async def test_a_path_with_bytes_that_http_does_not_allow_is_refused(edge: Edge) -> None:
    answer = await edge.raw(f"GET {BASE}/é HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400") and b"CS_VALIDATION_MALFORMED" in answer
