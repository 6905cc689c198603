"""Requests of HTTP/1.1 made from the contracts: odd paths, queries, headers and bodies, and bytes that are no HTTP."""

from __future__ import annotations

import http.client
import json
import random
import socket
from collections.abc import Sequence
from typing import Final

from google.protobuf import json_format

from tests.support.contracts import RestCall, Rpc
from tests.support.fuzzing import SEED, Mutator
from tests.support.odd_requests import TENANT, OddRequests

_SEGMENTS: Final = (
    *(
        "hello",
        "default",
        "live",
        "1",
        "..",
        ".",
        "",
        "%2e%2e",
        "%2F",
        "a%00b",
        "a%0d%0ax:y",
        "%ff%fe",
        "%zz",
        "%",
        "{x}",
    ),
    *(
        "\u00e9".encode().decode("latin-1"),
        "a;b",
        "a:invoke",
        ":invoke",
        "::",
        "a b",
        "*",
        "A" * 3000,
        "%F0%9F%98%80",
        "\\",
    ),
)
_QUERIES: Final = (
    *(
        "",
        "?",
        "?page_size=-1",
        "?page_size=99999999999",
        "?page_token=%00",
        "?tenant=t_other0",
        "?a=b",
        "?page_size=x",
    ),
    *(
        "?mode=99",
        "?filter.x=1",
        "?=",
        "?%zz",
        "?page_size=1&page_size=2",
        "?" + "a=b&" * 3000,
        "?cursor=1.2.3",
        "?\xff",
    ),
)
_HEADERS: Final = (
    *(b"idempotency-key: a", b"idempotency-key: \xff\xfe", b"idempotency-key: " + b"a" * 300, b"x-request-id: req_x"),
    *(b"x-cs-http-status: 200", b"x-cs-raw-path: /etc", b"x-envoy-original-path: /x", b"x-forwarded-for: 1.2.3.4"),
    *(
        b"grpc-timeout: 1n",
        b"grpc-timeout: x",
        b"te: trailers",
        b"accept: text/event-stream",
        b"content-type: text/plain",
    ),
    *(b"content-type: application/grpc", b"last-event-id: \x7f", b"last-event-id: 9.9.9", b"cookie: " + b"a=b;" * 900),
    *(
        b"a_b: c",
        b"x-bin: a",
        b"x-y-bin: !!!",
        b"traceparent: 00-x",
        b"content-encoding: gzip",
        b"expect: 100-continue",
    ),
    *(
        b"host: other.example",
        b"transfer-encoding: chunked",
        b"x: " + b"y" * 70_000,
        b"bad name: x",
        b": x",
        b"x\x00: y",
    ),
)
_BODIES: Final = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b"{",
    b"[" * 5000,
    b'{"a":1}',
    b"\xff\xfe",
    b'{"tenant":"t_other0"}',
    b"1" * 5000,
)


NO_HTTP: Final = "no HTTP"


class OddHttp:
    """Makes the bytes of requests, each for a connection of its own."""

    def __init__(self, rpcs: Sequence[Rpc], bearer: str) -> None:
        self.random = random.Random(f"{SEED}/http")
        self._requests = OddRequests("http")
        self._calls = [(rpc, call) for rpc in rpcs for call in rpc.rest_calls(TENANT)]
        self._bearer = bearer.encode()

    def make(self) -> tuple[str, bytes]:
        """The gRPC path that is meant (`NO_HTTP`: none), and the request."""
        rpc, call = self.random.choice(self._calls)
        target = self._target(call)
        body = self._body(rpc, call)
        headers = [b"host: h", b"authorization: " + self._bearer]
        if self.random.random() < 0.9 and call.body is not None:
            headers.append(b"content-type: application/json")
        headers += self.random.choices(_HEADERS, k=self.random.choice((0, 0, 0, 1, 3)))
        if body or self.random.random() < 0.5:
            headers.append(b"content-length: %d" % len(body))
        headers.append(b"connection: close")
        line = b" ".join((call.verb.encode(), target.encode("latin-1"), b"HTTP/1.1"))
        data = b"\r\n".join((line, *headers, b"", body))
        if b"transfer-encoding: chunked" in headers:
            return NO_HTTP, data
        if self.random.random() < 0.1:
            return NO_HTTP, Mutator(f"{self.random.random()}", (data,)).mutate(data)
        return rpc.path, data

    def _target(self, call: RestCall) -> str:
        parts = call.path.replace("filled", "hello").split("/")
        for _ in range(self.random.choice((0, 0, 1, 2))):
            parts[self.random.randrange(1, len(parts))] = self.random.choice(_SEGMENTS)
        query = self.random.choice(_QUERIES) if self.random.random() < 0.3 else ""
        return "/".join(parts) + query

    def _body(self, rpc: Rpc, call: RestCall) -> bytes:
        if call.body is None:
            return b"x" if self.random.random() < 0.05 else b""
        if self.random.random() < 0.2:
            return self.random.choice(_BODIES)
        request = type(rpc.request(TENANT))()
        try:
            request.ParseFromString(self._requests.of(rpc))
            document = json_format.MessageToDict(request, preserving_proto_field_name=True)
        except Exception:
            return call.body
        named = {
            field for field in document if field in ("tenant", "namespace", "function", "schedule", "worker", "alias")
        }
        body = json.dumps({name: value for name, value in document.items() if name not in named}).encode()
        return body if self.random.random() < 0.7 else Mutator(f"{self.random.random()}", (body,)).mutate(body)


def exchange(port: int, data: bytes, seconds: float, *, ends: bool) -> tuple[int, bytes] | None:
    """Send bytes (`ends`: and nothing more will come) and read the answer.

    None when the connection was closed without one, status 0 when none came in time.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        try:
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was all sent; the answer is there all the same
        answer = http.client.HTTPResponse(connection, method="HEAD" if data.startswith(b"HEAD") else None)
        try:
            answer.begin()
            return answer.status, answer.read()
        except TimeoutError:
            return 0, b""
        except (http.client.HTTPException, ConnectionError):
            return None
