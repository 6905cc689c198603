"""Performs fetches: redirects by hand, each hop judged like the first, within limits of time, size and number.

One `Fetcher` serves a process. A tenant has connections of its own and a number of fetches that may be in flight; all
of it happens in the one event loop, so a fetch that waits costs a socket and no thread.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import httpcore
import httpx

from cs_sandbox.host.addresses import parse_networks
from cs_sandbox.host.decoding import Body, TooMuchError
from cs_sandbox.host.egress import EgressRules
from cs_sandbox.host.pinned import PinnedBackend
from cs_sandbox.host.request import REDIRECTS, FetchRequest
from cs_sandbox.host.resolver import LOOKUPS_PER_TENANT, Resolver, SystemResolver
from cs_sandbox.host.url import ParsedUrl
from cs_sandbox.job import MIB, HostCallError

FAILED: Final = "CS_RUNTIME_FETCH_FAILED"
REDIRECTS_MAX: Final = 10
TENANTS_KEPT: Final = 64
_KEEPALIVE: Final = 5.0
_KEPT_CONNECTIONS: Final = 8

CheckUrl = Callable[[ParsedUrl], None]
"""Checks the host against the capabilities. Raises HostCallError."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What fetches may use."""

    tenant_fetches: int = 256
    """Fetches of one tenant in flight, in this process."""
    response_bytes: int = 4 * MIB
    """Body of an answer, before and after it is decompressed."""


@dataclass(frozen=True, slots=True)
class FetchAnswer:
    """The answer to a fetch."""

    status: int
    status_text: str
    url: str
    redirected: bool
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(slots=True)
class _Tenant:
    """The connections of one tenant, and how many fetches use them."""

    pool: httpcore.AsyncConnectionPool
    inflight: int = field(default=0)


class Fetcher:
    """Performs the fetches of a process.

    Args:
        rules: where connections may go.
        limits: what fetches may use.
        resolver: looks names up; default: the machine's.
        ca_file: certificates that are trusted beside the usual ones. Empty: none.
    """

    def __init__(
        self, rules: EgressRules, limits: FetchLimits, resolver: Resolver | None = None, ca_file: str = ""
    ) -> None:
        self._rules = rules
        self._limits = limits
        self._own = SystemResolver() if resolver is None else None
        self._resolver = resolver or self._own
        self._tls = httpx.create_ssl_context()
        if ca_file:
            self._tls.load_verify_locations(cafile=ca_file)
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    async def close(self) -> None:
        """Close every connection."""
        for tenant in self._tenants.values():
            await tenant.pool.aclose()
        self._tenants.clear()
        if self._own is not None:
            self._own.close()

    async def fetch(self, tenant: str, request: FetchRequest, check: CheckUrl, within: float) -> FetchAnswer:
        """Perform a fetch for a tenant, in at most `within` seconds, redirects included. Raises HostCallError."""
        used = self._tenant(tenant)
        if used.inflight >= self._limits.tenant_fetches:
            why = f"the tenant has {used.inflight} fetches in flight, as many as it may"
            raise HostCallError("CS_RATE_LIMITED", f"fetch: {why}")
        used.inflight += 1
        try:
            async with asyncio.timeout(within):
                return await self._follow(used.pool, request, check)
        except TimeoutError:
            raise _failed(request.url, f"it took longer than {within:g} s") from None
        finally:
            used.inflight -= 1
            await self._retire()

    def _tenant(self, name: str) -> _Tenant:
        if name not in self._tenants:
            assert self._resolver is not None  # noqa: S101 - one of the two was made
            backend = PinnedBackend(self._rules, self._resolver, asyncio.Semaphore(LOOKUPS_PER_TENANT))
            self._tenants[name] = _Tenant(
                httpcore.AsyncConnectionPool(
                    ssl_context=self._tls,
                    max_connections=self._limits.tenant_fetches,
                    max_keepalive_connections=_KEPT_CONNECTIONS,
                    keepalive_expiry=_KEEPALIVE,
                    network_backend=backend,
                )
            )
        self._tenants.move_to_end(name)
        return self._tenants[name]

    async def _retire(self) -> None:
        """Close the connections of tenants that have not fetched for longest, beyond the number that is kept."""
        while len(self._tenants) > TENANTS_KEPT:
            idle = next((name for name, tenant in self._tenants.items() if tenant.inflight == 0), None)
            if idle is None:
                return
            await self._tenants.pop(idle).pool.aclose()

    async def _follow(self, pool: httpcore.AsyncConnectionPool, request: FetchRequest, check: CheckUrl) -> FetchAnswer:
        for hop in range(REDIRECTS_MAX + 1):
            check(request.url)
            with _told(request.url):
                response = await pool.handle_async_request(_to_client(request))
            try:
                location = _header(response, b"location")
                if response.status not in REDIRECTS or location is None or request.redirect == "manual":
                    return await self._answer(request, response, redirected=hop > 0)
            finally:
                with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                    await response.aclose()
            if request.redirect == "error":
                raise _failed(request.url, "it answers with a redirect, and redirect is 'error'")
            try:
                request = request.redirected(response.status, location)
            except HostCallError as error:
                raise _failed(request.url, f"it redirects to what is no URL: {error.message}") from error
        raise _failed(request.url, f"more than {REDIRECTS_MAX} redirects")

    async def _answer(self, request: FetchRequest, response: httpcore.Response, *, redirected: bool) -> FetchAnswer:
        body = Body(_header(response, b"content-encoding") or "", self._limits.response_bytes)
        try:
            with _told(request.url):
                async for chunk in response.aiter_stream():
                    body.feed(chunk)
            data = body.finish()
        except TooMuchError:
            raise _failed(request.url, f"its answer is over {self._limits.response_bytes} bytes") from None
        except zlib.error:
            raise _failed(request.url, "its answer is not compressed as it says") from None
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.headers]
        phrase = response.extensions.get("reason_phrase", b"").decode("latin-1")
        return FetchAnswer(response.status, phrase, str(request.url), redirected, headers, data)


def open_fetcher(
    *, allow_networks: list[str], block_networks: list[str], tenant_fetches: int, response_bytes: int, ca_file: str
) -> Fetcher:
    """A fetcher as the settings of `[egress]` describe it. Raises ValueError for a network that is none."""
    rules = EgressRules(parse_networks(allow_networks), parse_networks(block_networks))
    return Fetcher(rules, FetchLimits(tenant_fetches, response_bytes), ca_file=ca_file)


def _to_client(request: FetchRequest) -> httpcore.Request:
    url = request.url
    # In parts, not as text: the client reads no URL, so it cannot read another host than the one that was checked.
    return httpcore.Request(
        request.method,
        httpcore.URL(scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode()),
        headers=request.to_wire(),
        content=request.body,
        extensions={"timeout": {}},
    )


def _header(response: httpcore.Response, name: bytes) -> str | None:
    """A header of the answer; a location that is not ASCII is UTF-8 in practice."""
    found = next((value for key, value in response.headers if key.lower() == name), None)
    return None if found is None else found.decode("utf-8", "replace")


def _failed(url: ParsedUrl, why: str) -> HostCallError:
    return HostCallError(FAILED, f"fetch of {url.scheme}://{url.authority} failed: {why}")


class _told:  # noqa: N801 - reads as a word at its use
    """Turns what the client raises into what user code may learn: no address, no text of the client."""

    def __init__(self, url: ParsedUrl) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        match error:
            case httpcore.ConnectError():
                raise _failed(self._url, _why_unconnected(error)) from error
            case httpcore.TimeoutException():
                raise _failed(self._url, "it did not answer in time") from error
            case httpcore.ProtocolError() | httpcore.UnsupportedProtocol():
                raise _failed(self._url, "its answer is no valid HTTP") from error
            case httpcore.NetworkError():
                raise _failed(self._url, "the connection broke") from error


def _why_unconnected(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "no TLS connection could be made"
        cause = cause.__cause__ or cause.__context__
    return str(error) if str(error).startswith("the name") else "no connection could be made"
