"""From a web request, as the proxy hands it on, to the HTTP event that the function gets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from codesous.gateway.v1.web_service_pb2 import HandleRequest
from codesous.type.v1.principal_pb2 import Principal

from cs_core.config import LimitSettings
from cs_core.errors import TooLargeError

RAW_QUERY: Final = "x-cs-raw-query"
RAW_PATH: Final = "x-cs-raw-path"
ORIGINAL_METHOD: Final = "x-envoy-original-method"
PROTOCOL: Final = "x-cs-protocol"
AUTHORITY: Final = "x-cs-authority"
FORWARDED_FOR: Final = "x-forwarded-for"
# `/v1/web/{tenant}/{namespace}/{function}/{ref}`: the slashes before the rest.
_SLASHES_BEFORE_REST: Final = 7
# What belongs to the platform, to the way here, or to nobody's function: the token above all.
_HIDDEN: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "te", "content-type", "host", "connection"}
)
_HIDDEN_PREFIXES: Final = (":", "grpc-", "x-cs-", "x-envoy-")


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A web request, read out of the call. `query` and `path` are as the caller wrote them."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    cookies: tuple[str, ...]
    source_ip: str
    protocol: str
    body: bytes

    def digest(self) -> bytes:
        """Tell two requests apart under one idempotency key: by verb, path, query, content type and body."""
        parts = (self.method, self.path, self.query, self.headers.get("content-type", ""))
        head = json.dumps(parts).encode()
        return hashlib.sha256(hashlib.sha256(head).digest() + self.body).digest()


def read_request(
    request: HandleRequest, metadata: Iterable[tuple[str, str | bytes]], limits: LimitSettings
) -> WebRequest:
    """Read a web request.

    Raises:
        TooLargeError: body, headers or query are over their limits.
    """
    values: dict[str, list[str]] = {}
    size = 0
    for name, value in metadata:
        text = value if isinstance(value, str) else value.decode("latin-1")
        size += len(name) + len(text)
        values.setdefault(name, []).append(text)
    query = _last(values, RAW_QUERY)
    if len(request.body.data) > limits.http_body_bytes:
        raise TooLargeError(f"the body is {len(request.body.data)} bytes, the limit is {limits.http_body_bytes}")
    if size > limits.http_header_bytes:
        raise TooLargeError(f"the headers are {size} bytes, the limit is {limits.http_header_bytes}")
    if len(query) > limits.http_query_bytes:
        raise TooLargeError(f"the query is {len(query)} bytes, the limit is {limits.http_query_bytes}")
    headers = {
        name: ",".join(texts)
        for name, texts in sorted(values.items())
        if name not in _HIDDEN and not name.startswith(_HIDDEN_PREFIXES)
    }
    if request.body.content_type:
        headers["content-type"] = request.body.content_type
    if authority := _last(values, AUTHORITY):
        headers["host"] = authority
    return WebRequest(
        method=(_last(values, ORIGINAL_METHOD) or "POST").upper(),
        path=_path(request, _last(values, RAW_PATH)),
        query=query,
        headers=headers,
        cookies=_cookies(values.get("cookie", ())),
        # The proxy appends the address that it saw; what stands before it is the caller's word.
        source_ip=_last(values, FORWARDED_FOR).rpartition(",")[2].strip(),
        protocol=_last(values, PROTOCOL) or "HTTP/2",
        body=request.body.data,
    )


def to_event(web: WebRequest, principal: Principal, request_id: str, now: datetime) -> bytes:
    """The event as JSON: version 2.0, the shape that function authors know from function URLs."""
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": web.path,
        "rawQueryString": web.query,
        "queryStringParameters": _parameters(web.query),
        "headers": dict(web.headers),
        "cookies": list(web.cookies),
        "requestContext": {
            "http": {
                "method": web.method,
                "path": web.path,
                "protocol": web.protocol,
                "sourceIp": web.source_ip,
                "userAgent": web.headers.get("user-agent", ""),
            },
            "requestId": request_id,
            "principal": {
                "subject": principal.subject,
                "tenant": principal.tenant,
                "roles": list(principal.roles),
                "scopes": list(principal.scopes),
            },
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "body": base64.b64encode(web.body).decode(),
        "isBase64Encoded": True,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _last(values: Mapping[str, list[str]], name: str) -> str:
    found = values.get(name)
    return found[-1] if found else ""


def _path(request: HandleRequest, written: str) -> str:
    """The path after the ref, as it was written; of a caller by gRPC, as its field says."""
    if not written:
        return "/" + quote(request.proxy_path, safe="/:@!$&'()*+,;=~-._")
    position = 0
    for _ in range(_SLASHES_BEFORE_REST):
        position = written.find("/", position) + 1
        if position == 0:
            return "/"
    return "/" + written[position:]


def _cookies(headers: Iterable[str]) -> tuple[str, ...]:
    return tuple(cookie for header in headers for part in header.split(";") if (cookie := part.strip()))


def _parameters(query: str) -> dict[str, str]:
    """Parameters by name; the values of one that is repeated are joined by commas."""
    found: dict[str, list[str]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        found.setdefault(name, []).append(value)
    return {name: ",".join(values) for name, values in found.items()}
