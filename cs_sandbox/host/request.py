"""One request of a fetch: what user code asked for, within the rules, and what becomes of it at a redirect."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cs_sandbox.host import arguments as given
from cs_sandbox.host.arguments import refuse
from cs_sandbox.host.decoding import ACCEPTED
from cs_sandbox.host.url import ParsedUrl, follow

HEADERS_MAX: Final = 100
HEADER_BYTES_MAX: Final = 64 * 1024
USER_AGENT: Final = "code-sous"
MODES: Final = ("follow", "manual", "error")
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_REFUSED_METHODS: Final = frozenset({"CONNECT", "TRACE", "TRACK"})
_OURS: Final = re.compile(
    r"host|content-length|transfer-encoding|connection|keep-alive|upgrade|te|trailer|expect|accept-encoding|proxy-.*"
)
"""Headers that follow from the request itself. Those of user code are left out, as browsers do."""
_CREDENTIAL: Final = re.compile(
    r"cookie|(.*-)?(auth|authorization|authentication|token|secret|key|apikey|password|session|credential|signature)(-.*)?"
)
"""Headers that are not sent on to another origin: what says who one is, under the names that are in use."""
_OF_BODY: Final = re.compile(r"content-.*")


@dataclass(frozen=True, slots=True)
class FetchRequest:
    """A request to one URL."""

    url: ParsedUrl
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    body: bytes | None = None
    redirect: str = "follow"

    def to_wire(self) -> list[tuple[bytes, bytes]]:
        """The headers as they are sent."""
        sent = [("host", self.url.authority), *self.headers, ("accept-encoding", ACCEPTED)]
        names = {name for name, _ in self.headers}
        sent += [(name, text) for name, text in (("user-agent", USER_AGENT), ("accept", "*/*")) if name not in names]
        if self.body is not None or self.method in {"POST", "PUT", "PATCH"}:
            sent.append(("content-length", str(len(self.body or b""))))
        return [(name.encode("latin-1"), text.encode("latin-1")) for name, text in sent]

    def with_headers(self, headers: Sequence[tuple[str, str]]) -> FetchRequest:
        """The request with headers added whose names it does not have yet."""
        names = {name for name, _ in self.headers}
        more = tuple(header for header in headers if header[0] not in names)
        return replace(self, headers=self.headers + more) if more else self

    def redirected(self, status: int, location: str) -> FetchRequest:
        """The request that a redirect makes of this one. Raises HostCallError for a location that is no URL."""
        url = follow(self.url, location)
        method, headers, body = self.method, self.headers, self.body
        if (status in (301, 302) and method == "POST") or (status == 303 and method not in ("GET", "HEAD")):
            method, body = "GET", None
            headers = tuple(header for header in headers if not _OF_BODY.fullmatch(header[0]))
        if url.origin != self.url.origin:
            headers = tuple(header for header in headers if not _CREDENTIAL.fullmatch(header[0]))
        return replace(self, url=url, method=method, headers=headers, body=body)


def read_request(url: ParsedUrl, options: Any) -> FetchRequest:
    """The request that user code asked for. Raises HostCallError."""
    if not isinstance(options, dict):
        options = {}
    method = options.get("method", "GET")
    if not isinstance(method, str) or not _TOKEN.fullmatch(method) or method.upper() in _REFUSED_METHODS:
        raise refuse("method", "must be an HTTP method, and none of CONNECT, TRACE and TRACK")
    redirect = options.get("redirect", "follow")
    if redirect not in MODES:
        raise refuse("redirect", f"must be one of {', '.join(MODES)}")
    body = _read_body(options)
    if body is not None and method in ("GET", "HEAD"):
        raise refuse("body", f"a {method} request has none")
    return FetchRequest(url, method, _read_headers(options.get("headers") or []), body, redirect)


def _read_body(options: dict[str, Any]) -> bytes | None:
    text, encoded = options.get("text"), options.get("body")
    if isinstance(text, str):
        return text.encode()
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise refuse("body", "must be text or bytes") from None


def _read_headers(pairs: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(pairs, list) or len(pairs) > HEADERS_MAX:
        raise refuse("headers", f"must be at most {HEADERS_MAX} pairs")
    found, size = [], 0
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise refuse("headers", "must be pairs of text")
        name, value = pair[0].lower(), pair[1].strip(" \t\r\n")
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise refuse("headers", f"{name[:64]!r} is no header name, or its value holds what no header may")
        size += len(name) + len(value)
        if not _OURS.fullmatch(name):
            found.append((name, value))
    if size > HEADER_BYTES_MAX:
        raise given.too_large("headers", HEADER_BYTES_MAX, "bytes")
    return tuple(found)
