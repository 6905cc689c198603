"""The HTTP event, the HTTP response, and events as JSON."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from codesous.gateway.v1.invocation_service_pb2 import InvokeRequest
from codesous.gateway.v1.web_service_pb2 import HandleRequest
from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.principal_pb2 import Principal
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from cs_core.config import LimitSettings
from cs_core.errors import RuntimeFailure, TooLargeError, ValidationError
from cs_gateway.event_json import event_of
from cs_gateway.http_event import read_request, to_event
from cs_gateway.http_response import to_web

LIMITS = LimitSettings()
NOW = datetime(2026, 1, 2, tzinfo=UTC)
PRINCIPAL = Principal(subject="ada", tenant="t_alpha0", roles=["admin"])
EDGE = (
    ("x-envoy-original-method", "PATCH"),
    ("x-cs-raw-path", "/v1/web/t_alpha0/default/hello/live/a%2Fb//c"),
    ("x-cs-raw-query", "q=1&q=2&empty=&%C3%A9=%20"),
    ("x-cs-protocol", "HTTP/2"),
    ("x-cs-authority", "api.example"),
    ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
)


def event(*metadata: tuple[str, str | bytes], **request: Any) -> dict[str, Any]:
    web = read_request(HandleRequest(**request), metadata, LIMITS)
    found: dict[str, Any] = json.loads(to_event(web, PRINCIPAL, "req_1", NOW))
    return found


def test_the_event_has_the_shape_of_function_urls() -> None:
    found = event(*EDGE, ("user-agent", "x/1"), ("cookie", "a=1; b=2"), ("cookie", "c=3"), body=HttpBody(data=b"\0"))
    assert found == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/a%2Fb//c",
        "rawQueryString": "q=1&q=2&empty=&%C3%A9=%20",
        "queryStringParameters": {"q": "1,2", "empty": "", "é": " "},
        "headers": {"user-agent": "x/1", "x-forwarded-for": "1.2.3.4, 5.6.7.8", "host": "api.example"},
        "cookies": ["a=1", "b=2", "c=3"],
        "requestContext": {
            "http": {
                "method": "PATCH",
                "path": "/a%2Fb//c",
                "protocol": "HTTP/2",
                "sourceIp": "5.6.7.8",
                "userAgent": "x/1",
            },
            "requestId": "req_1",
            "principal": {"subject": "ada", "tenant": "t_alpha0", "roles": ["admin"], "scopes": []},
            "timeEpoch": 1767312000000,
        },
        "body": base64.b64encode(b"\0").decode(),
        "isBase64Encoded": True,
    }


@pytest.mark.parametrize(
    "name", ["authorization", "proxy-authorization", "x-cs-anything", "x-envoy-original-path", "grpc-timeout", "te"]
)
def test_what_is_not_the_functions_is_not_in_the_event(name: str) -> None:
    assert name not in event((name, "secret"))["headers"]
    assert "secret" not in json.dumps(event((name, "secret")))


def test_headers_that_are_repeated_are_joined() -> None:
    assert event(("accept", "a"), ("accept", "b"))["headers"]["accept"] == "a,b"


def test_a_caller_by_grpc_gives_the_path_as_a_field() -> None:
    found = event(proxy_path="a b/é?x")
    assert (found["rawPath"], found["requestContext"]["http"]["method"]) == ("/a%20b/%C3%A9%3Fx", "POST")
    assert event()["rawPath"] == "/"


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/v1/web/t/n/f/live", "/"),
        ("/v1/web/t/n/f/live/", "/"),
        ("/v1/web/t/n/f/live//", "//"),
        ("/v1/web/t/n/f/live/a:invoke", "/a:invoke"),
        ("/v1/web/t/n/f/live/../x", "/../x"),
    ],
)
def test_the_path_is_what_follows_the_ref(written: str, path: str) -> None:
    assert event(("x-cs-raw-path", written))["rawPath"] == path


@pytest.mark.parametrize(
    ("metadata", "data"),
    [
        ((), b"x" * (6 * 1024 * 1024 + 1)),
        ((("x-a", "y" * 64 * 1024),), b""),
        ((("x-cs-raw-query", "q" * (16 * 1024 + 1)),), b""),
    ],
    ids=["body", "headers", "query"],
)
def test_what_is_over_its_limit_is_refused(metadata: Any, data: bytes) -> None:
    with pytest.raises(TooLargeError):
        read_request(HandleRequest(body=HttpBody(data=data)), metadata, LIMITS)


@given(st.binary(max_size=64), st.text(max_size=32), st.text(max_size=32))
def test_any_bytes_make_an_event(data: bytes, query: str, value: str) -> None:
    found = event(("x-cs-raw-query", query), ("x-any", value), body=HttpBody(data=data, content_type=value))
    assert base64.b64decode(found["body"]) == data
    assert found["rawQueryString"] == query


def test_two_requests_have_the_same_digest_only_when_they_are_the_same() -> None:
    def digest(method: str = "GET", path: str = "/v1/web/a/b/c/d/e", query: str = "q", body: bytes = b"x") -> bytes:
        metadata = (("x-envoy-original-method", method), ("x-cs-raw-path", path), ("x-cs-raw-query", query))
        return read_request(HandleRequest(body=HttpBody(data=body)), metadata, LIMITS).digest()

    assert digest() == digest()
    others = [digest("PUT"), digest(path="/v1/web/a/b/c/d/f"), digest(query="r"), digest(body=b"y")]
    assert len({digest(), *others}) == 5


def test_a_response_becomes_an_answer() -> None:
    answer = to_web(
        FunctionResponse(
            status_code=404,
            headers={"X-Kind": " a\tb ", "Content-Type": "text/x", "Content-Length": "999"},
            body="AP8=",
            is_base64_encoded=True,
            cookies=["a=1", " b=2;\tSecure "],
        ),
        "id",
    )
    assert (answer.status, answer.content_type, answer.body) == (404, "text/x", b"\0\xff")
    assert answer.headers == (("x-kind", "a b"), ("set-cookie", "a=1"), ("set-cookie", "b=2; Secure"))


@pytest.mark.parametrize(
    ("encoded", "kind"), [(False, "text/plain; charset=utf-8"), (True, "application/octet-stream")]
)
def test_without_a_content_type_there_is_one_all_the_same(encoded: bool, kind: str) -> None:
    assert to_web(FunctionResponse(status_code=200, is_base64_encoded=encoded), "id").content_type == kind


@pytest.mark.parametrize(
    ("response", "field"),
    [
        ({"status_code": 199}, "statusCode"),
        ({"status_code": 600}, "statusCode"),
        ({"headers": {"x-a": "b\r\nc"}}, "headers.x-a"),
        ({"headers": {"x-a": "b\0"}}, "headers.x-a"),
        ({"headers": {"x-a": "é"}}, "headers.x-a"),
        ({"headers": {"x a": "b"}}, "headers"),
        ({"headers": {"": "b"}}, "headers"),
        ({"headers": {":status": "200"}}, "headers"),
        ({"headers": {"x!y": "b"}}, "headers.x!y"),
        ({"headers": {"Connection": "close"}}, "headers.Connection"),
        ({"headers": {"transfer-encoding": "chunked"}}, "headers.transfer-encoding"),
        ({"headers": {"grpc-status": "0"}}, "headers.grpc-status"),
        ({"headers": {"x-cs-http-status": "200"}}, "headers.x-cs-http-status"),
        ({"headers": {"data-bin": "AA"}}, "headers.data-bin"),
        ({"headers": {f"x-{n}": "y" * 5000 for n in range(10)}}, "headers"),
        ({"cookies": ["a\r\nb"]}, "cookies"),
        ({"body": "%%%", "is_base64_encoded": True}, "body"),
    ],
)
def test_a_bad_response_names_its_field(response: dict[str, Any], field: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        to_web(FunctionResponse(**{"status_code": 200, **response}), "id")
    assert caught.value.reason == "CS_RUNTIME_BAD_RESPONSE"
    assert caught.value.message.startswith(field)
    assert caught.value.metadata == {"activation_id": "id"}


def value(data: Any) -> Value:
    return json_format.ParseDict(data, Value())


@pytest.mark.parametrize("data", [None, True, 0, 1.5, "é\u2028", [], {}, {"a": [1, {"b": None}]}])
def test_a_value_becomes_its_json(data: Any) -> None:
    assert json.loads(event_of(InvokeRequest(event=value(data)), LIMITS)) == data


def test_json_passes_untouched_and_nothing_is_null() -> None:
    text = b' {"a" : 1e400, "b": 12345678901234567890, "a": "\\ud800"} '
    assert event_of(InvokeRequest(event_json=text), LIMITS) == text
    assert event_of(InvokeRequest(), LIMITS) == b"null"


@pytest.mark.parametrize(
    "text", [b"", b"{", b"NaN", b"[Infinity]", b"'a'", b"\xff", b"1 2", b"[" * 100_000, b'{"a":' * 50_000]
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValidationError) as caught:
        event_of(InvokeRequest(event_json=text), LIMITS)
    assert caught.value.violations[0].field == "event_json"


def test_very_long_numbers_are_json() -> None:
    assert event_of(InvokeRequest(event_json=b"9" * 10_000), LIMITS) == b"9" * 10_000


def test_numbers_that_json_cannot_write_are_refused() -> None:
    with pytest.raises(ValidationError):
        event_of(InvokeRequest(event=Value(number_value=float("nan"))), LIMITS)


def test_an_event_over_its_limit_is_refused() -> None:
    with pytest.raises(TooLargeError):
        event_of(InvokeRequest(event_json=b'"' + b"x" * 6 * 1024 * 1024 + b'"'), LIMITS)
    with pytest.raises(TooLargeError):
        event_of(InvokeRequest(event=Value(string_value="x" * 6 * 1024 * 1024)), LIMITS)
