"""REST through the real Envoy: statuses, errors as JSON, parameters, what is refused, and what never gets through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.support.edge import Call, Context, Edge, empty, running_edge

pytestmark = pytest.mark.asyncio(loop_scope="module")

FUNCTIONS = "/v1/tenants/t_alpha0/namespaces/default/functions"
ACTIVATION = "/v1/tenants/t_alpha0/activations/abc"
REQUEST_ID = "req_01ARZ3NDEKTSV4RRFFQ69G5FAV"
EVIL = "tenant=t_evil&function=f&ref=1&body=x"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Edge]:
    async with running_edge() as edge:
        yield edge


@pytest.fixture
def edge(started: Edge) -> Edge:
    started.answer_with(empty)
    return started


def with_status(status: str) -> Any:
    async def answer(call: Call, _request: Any, context: Context) -> Any:
        await context.send_initial_metadata((("x-cs-http-status", status), ("x-request-id", REQUEST_ID)))
        return call.output()

    return answer


def failing(*trailers: tuple[str, str]) -> Any:
    """Fails as services do: a rich status, and more trailers."""
    status = status_pb2.Status(code=3, message="too large")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="CS_VALIDATION_TOO_LARGE", domain="code-sous"))
    violation = error_details_pb2.BadRequest.FieldViolation(field="event", description="is too large")
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))

    async def answer(_call: Call, _request: Any, context: Context) -> Any:
        rich = rpc_status.to_status(status)
        await context.abort(rich.code, rich.details, (*rich.trailing_metadata, *trailers))

    return answer


@pytest.mark.parametrize(
    ("target", "status"), [(FUNCTIONS, "201"), (f"{FUNCTIONS}/hello:invoke", "202"), (FUNCTIONS, "409")]
)
async def test_the_service_chooses_the_status_of_its_answer(edge: Edge, target: str, status: str) -> None:
    edge.answer_with(with_status(status))
    answer = await edge.http("POST", target, json_body={})
    assert answer.status == int(status)
    assert answer.header("x-request-id") == REQUEST_ID
    assert "x-cs-http-status" not in answer.names


@pytest.mark.parametrize("status", ["100", "199", "600", "999", "20", "2000", "abc"])
async def test_a_status_that_is_none_is_removed_and_not_applied(edge: Edge, status: str) -> None:
    edge.answer_with(with_status(status))
    answer = await edge.http("GET", FUNCTIONS)
    assert answer.status == 200
    assert "x-cs-http-status" not in answer.names


async def test_an_error_is_json_with_its_details_and_keeps_nothing_of_grpc(edge: Edge) -> None:
    edge.answer_with(failing(("x-cs-http-status", "413"), ("retry-after", "3"), ("x-request-id", REQUEST_ID)))
    answer = await edge.http("POST", f"{FUNCTIONS}/hello:invoke", json_body={"ref": "live"})
    assert answer.status == 413
    assert answer.header("content-type") == "application/json"
    assert answer.reason() == "CS_VALIDATION_TOO_LARGE"
    assert answer.json()["code"] == 3
    assert answer.json()["message"] == "too large"
    assert answer.json()["details"][1]["field_violations"][0]["field"] == "event"
    assert (answer.header("retry-after"), answer.header("x-request-id")) == ("3", REQUEST_ID)
    assert not {name for name in answer.names if name.startswith(("grpc-", "x-cs-", "x-envoy-"))}


async def test_an_error_without_a_chosen_status_gets_that_of_its_code(edge: Edge) -> None:
    edge.answer_with(failing())
    assert (await edge.http("GET", FUNCTIONS)).status == 400


@pytest.mark.parametrize(
    "query",
    [
        EVIL,
        "activationId=evil",
        "activation_id=evil",
        "%74enant=evil",
        "activation%5Fid=evil",
        "tenant=a&tenant=b",
        "tenant",
    ],
)
async def test_parameters_that_name_a_field_of_a_path_change_nothing(edge: Edge, query: str) -> None:
    answer = await edge.http("GET", f"{ACTIVATION}:wait?{query}&timeout=3s")
    assert answer.status == 200
    _, request = edge.seen()
    assert (request.tenant, request.activation_id, request.timeout.seconds) == ("t_alpha0", "abc", 3)


async def test_parameters_change_nothing_of_a_request_with_a_body(edge: Edge) -> None:
    answer = await edge.http("POST", f"{FUNCTIONS}/hello:invoke?{EVIL}", json_body={"ref": "live"})
    assert answer.status == 200
    _, request = edge.seen()
    assert (request.tenant, request.namespace, request.function, request.ref) == (
        "t_alpha0",
        "default",
        "hello",
        "live",
    )


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"{FUNCTIONS}?nope=1"),
        ("GET", f"{ACTIVATION}?page_size=3"),
        ("GET", f"{ACTIVATION}:wait?timeout=soon"),
        ("GET", f"{ACTIVATION}:wait?tenant[]=evil"),
        ("POST", f"{FUNCTIONS}?description=x"),
        ("DELETE", f"{FUNCTIONS}/hello?nope=1"),
    ],
)
async def test_a_parameter_that_the_call_does_not_know_is_refused(edge: Edge, method: str, target: str) -> None:
    answer = await edge.http(method, target)
    assert (answer.status, answer.reason()) == (400, "CS_VALIDATION_MALFORMED")
    assert edge.nothing_seen()


@pytest.mark.parametrize(
    "body",
    [
        b'{"function":',
        b"nope",
        b'{"function":"\xff"}',
        b'{"function":1}',
        b'{"tenant":"t_evil"}',
        b"[]",
        b'{"a":1}{"b":2}',
    ],
)
async def test_a_body_that_is_not_the_request_is_refused(edge: Edge, body: bytes) -> None:
    answer = await edge.http("POST", FUNCTIONS, body=body, headers=[("x-request-id", REQUEST_ID)])
    assert (answer.status, answer.reason()) == (400, "CS_VALIDATION_MALFORMED")
    assert answer.json()["code"] == 3
    assert answer.header("x-request-id") == REQUEST_ID
    assert edge.nothing_seen()


@pytest.mark.parametrize("target", ["/v1/tenants/%ff/mutations", "/v1/tenants/t_alpha0/mutations?page_token=%ED%A0%80"])
async def test_paths_and_parameters_that_are_not_utf8_are_refused(edge: Edge, target: str) -> None:
    answer = await edge.http("GET", target)
    assert (answer.status, answer.reason()) == (400, "CS_VALIDATION_MALFORMED")
    assert answer.json()["message"] == "path and query must be UTF-8"
    assert edge.nothing_seen()


async def test_paths_and_parameters_in_utf8_get_through(edge: Edge) -> None:
    await edge.http("GET", "/v1/tenants/t_alpha0/mutations?page_token=%C3%A9%E2%82%AC%F0%9F%8D%B2")
    assert edge.seen()[1].page_token == "é€🍲"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"),
        ("GET", "/v1/nothing"),
        ("GET", "//v1/tenants/t_alpha0/mutations"),
        ("GET", "/v1/tenants/t_alpha0/../t_alpha0/mutations"),
        ("PUT", FUNCTIONS),
        ("HEAD", FUNCTIONS),
        ("GET", "/v1/web/t_alpha0/default/hello"),
        ("POST", "/codesous.admin.v1.AdminService/GetInfo"),
        ("POST", "/codesous.control.v1.FunctionService/GetFunction"),
        ("POST", "/grpc.channelz.v1.Channelz/GetServers"),
        ("GET", "/stats"),
    ],
)
async def test_what_is_no_public_call_is_not_found(edge: Edge, method: str, target: str) -> None:
    answer = await edge.http(method, target)
    assert answer.status == 404
    assert answer.header("content-type") == "application/json"
    if method != "HEAD":
        assert answer.reason() == "CS_NOT_FOUND_METHOD"
    assert edge.nothing_seen()


async def test_headers_that_only_the_edge_may_set_are_dropped(edge: Edge) -> None:
    forged = {
        "x-cs-http-status": "204",
        "x-cs-transcoded": "0",
        "X-Cs-Raw-Path": "/evil",
        "x-cs-nowhere": "gateway",
        "x-envoy-original-path": "/evil",
        "x-envoy-retry-on": "5xx",
        "x-envoy-external-address": "6.6.6.6",
        "x-forwarded-for": "6.6.6.6",
        "grpc-timeout": "1n",
        "grpc-encoding": "gzip",
        "x-trace-bin": "not base64!",
        "x!odd": "1",
    }
    answer = await edge.http("GET", FUNCTIONS, headers=[*forged.items(), ("x-kept", "1"), ("under_score", "1")])
    assert answer.status == 200
    call, _ = edge.seen()
    assert call.header("x-kept") == call.header("under_score") == call.header("x-cs-transcoded") == "1"
    assert (call.header("x-forwarded-for"), call.header("x-envoy-external-address")) == ("127.0.0.1", "127.0.0.1")
    assert call.header("x-envoy-original-path") == FUNCTIONS
    assert not call.names & {"x-cs-http-status", "x-cs-raw-path", "x-cs-nowhere", "x-envoy-retry-on", "x-trace-bin"}
    assert not any("evil" in str(value) or "6.6.6.6" in str(value) for _, value in call.metadata)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (REQUEST_ID, True),
        (REQUEST_ID.lower(), False),
        (REQUEST_ID[:-1], False),
        (f"{REQUEST_ID}0", False),
        ("req_81ARZ3NDEKTSV4RRFFQ69G5FAV", False),
        ("6f1c6b0e-8f0c-4d5e-9d0a-0d2f5a1f9b1c", False),
        (None, False),
    ],
)
async def test_only_a_request_id_of_ours_gets_through_and_the_edge_makes_none(
    edge: Edge, given: str | None, kept: bool
) -> None:
    await edge.http("GET", FUNCTIONS, headers=[] if given is None else [("x-request-id", given)])
    assert edge.seen()[0].header("x-request-id") == (given if kept else None)


async def test_two_request_ids_are_none(edge: Edge) -> None:
    await edge.http("GET", FUNCTIONS, headers=[("x-request-id", REQUEST_ID), ("x-request-id", REQUEST_ID)])
    assert edge.seen()[0].header("x-request-id") is None


async def test_a_watch_is_a_stream_of_events(edge: Edge) -> None:
    async def answer(call: Call, _request: Any, _context: Context) -> Any:
        async def messages() -> AsyncIterator[Any]:
            for number in range(3):
                chunk = HttpBody(content_type="text/event-stream", data=f"id: {number}\n\n".encode())
                yield call.output(chunk=chunk)

        return messages()

    edge.answer_with(answer)
    told = await edge.http("GET", "/v1/tenants/t_alpha0/mutations:watch?cursor=c", headers=[("last-event-id", "7-0")])
    assert (told.header("content-type"), told.body) == ("text/event-stream", b"id: 0\n\nid: 1\n\nid: 2\n\n")
    call, request = edge.seen()
    assert (request.tenant, request.cursor, call.header("last-event-id")) == ("t_alpha0", "c", "7-0")


async def test_fields_keep_their_names_and_defaults(edge: Edge) -> None:
    assert (await edge.http("GET", FUNCTIONS)).json() == {"functions": [], "next_page_token": ""}


async def test_a_browser_may_call_from_any_page(edge: Edge) -> None:
    asked = [("origin", "https://page.example"), ("access-control-request-method", "PUT")]
    answer = await edge.http("OPTIONS", f"{FUNCTIONS}/hello/draft", headers=asked)
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "https://page.example")
    assert "authorization" in str(answer.header("access-control-allow-headers"))
    assert "access-control-allow-credentials" not in answer.names
    assert edge.nothing_seen()
    got = await edge.http("GET", FUNCTIONS, headers=asked[:1])
    assert got.header("access-control-allow-origin") == "https://page.example"


async def test_the_services_answer_hides_what_serves_it(edge: Edge) -> None:
    answer = await edge.http("GET", FUNCTIONS)
    assert answer.header("server") == "code-sous"
    assert not {name for name in answer.names if name.startswith(("x-envoy-", "grpc-"))}


async def test_a_stream_that_fails_before_its_first_message_answers_the_error(edge: Edge) -> None:
    async def answer(_call: Call, _request: Any, context: Context) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "later", (("x-cs-http-status", "501"),))

    edge.answer_with(answer)
    failed = await edge.http("GET", "/v1/tenants/t_alpha0/mutations:watch")
    assert (failed.status, failed.json()["code"]) == (501, 12)
