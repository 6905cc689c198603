"""Makes the connections of fetches: the one place where a socket to the outside is opened.

Theory of operation: the HTTP client asks for a connection to a host by name. The name is looked up once, the
addresses are judged, and the connection goes to one of the addresses that passed, as a number: nothing looks the name
up again, so an answer that changes cannot lead elsewhere. TLS and the header `host` keep the name. A connection that
is kept alive and used again is one that passed. Connections are never shared between tenants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import httpcore

from cs_sandbox.host.egress import EgressRules, enforce
from cs_sandbox.host.resolver import Resolver

ADDRESSES_TRIED: Final = 3


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """The network as one tenant's fetches see it."""

    def __init__(self, rules: EgressRules, resolver: Resolver, lookups: asyncio.Semaphore) -> None:
        """`lookups` bounds the look-ups of the tenant that are under way."""
        self._rules = rules
        self._resolver = resolver
        self._lookups = lookups
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the client's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the host's addresses that are allowed. Raises HostCallError when none is."""
        try:
            async with self._lookups:
                addresses = await self._resolver.resolve(host)
        except OSError as error:
            raise httpcore.ConnectError("the name could not be looked up") from error
        verdict = enforce(self._rules.judge(host, port, addresses))
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in verdict.addresses[:ADDRESSES_TRIED]:
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("there is no address")

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        """Refuse: no fetch goes to a socket of this machine."""
        raise httpcore.UnsupportedProtocol("unix sockets are not connected to")

    async def sleep(self, seconds: float) -> None:
        """Wait between two tries of the client."""
        await asyncio.sleep(seconds)
