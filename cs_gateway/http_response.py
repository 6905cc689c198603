"""From a function's response to what the proxy makes an HTTP answer of.

A header value with CR, LF, NUL or a character outside ASCII would fail the whole call after the function ran, and the
cell's word is not trusted. So everything is checked again before it becomes metadata.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from codesous.type.v1.function_response_pb2 import FunctionResponse
from codesous.type.v1.invocation_error_pb2 import InvocationError

from cs_core.errors import RuntimeFailure
from cs_sandbox.response import ResponseError, check_response

# Of the tokens that HTTP allows in a header's name, those that gRPC metadata can carry.
_NAME: Final = re.compile(r"[0-9a-z_.\-]+")
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_OURS: Final = ("grpc-", "x-cs-", "x-envoy-", "x-code-sous-")
# The proxy counts the bytes that it sends.
_IGNORED: Final = frozenset({"content-length"})
_HEADERS_BYTES: Final = 48 * 1024
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class WebResponse:
    """An HTTP answer. Names of headers are in lower case; `content-type` is apart."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content_type: str
    body: bytes


def to_web(response: FunctionResponse, activation_id: str) -> WebResponse:
    """Make the answer of a function's response.

    Raises:
        RuntimeFailure: it breaks a rule; the message names the field (`CS_RUNTIME_BAD_RESPONSE`).
    """
    try:
        check_response(response)
        headers = _headers(response)
    except ResponseError as error:
        raise RuntimeFailure(
            InvocationError(reason="CS_RUNTIME_BAD_RESPONSE", message=str(error)), activation_id
        ) from error
    content_type = next((value for name, value in headers if name == "content-type"), "")
    body = base64.b64decode(response.body) if response.is_base64_encoded else response.body.encode()
    return WebResponse(
        status=response.status_code,
        headers=tuple(header for header in headers if header[0] != "content-type" and header[0] not in _IGNORED),
        content_type=content_type or (_BYTES if response.is_base64_encoded else _TEXT),
        body=body,
    )


def _headers(response: FunctionResponse) -> list[tuple[str, str]]:
    headers = [_header(name, value) for name, value in sorted(response.headers.items())]
    headers += [("set-cookie", _carried(cookie)) for cookie in response.cookies]
    if sum(len(name) + len(value) for name, value in headers) > _HEADERS_BYTES:
        raise ResponseError(f"headers: must be at most {_HEADERS_BYTES} bytes together")
    return headers


def _header(name: str, value: str) -> tuple[str, str]:
    lower = name.lower()
    if lower in _HOP_BY_HOP:
        raise ResponseError(f"headers.{name}: is for the connection, not for the answer")
    if lower.startswith(_OURS) or lower.endswith("-bin") or not _NAME.fullmatch(lower):
        raise ResponseError(f"headers.{name}: is a name that a function may not use")
    return lower, _carried(value)


def _carried(value: str) -> str:
    """A value as metadata takes it: blanks at the ends mean nothing to HTTP, and tabs are refused."""
    return value.strip().replace("\t", " ")
