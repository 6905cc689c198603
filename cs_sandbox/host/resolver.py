"""Looks names up, with the machine's resolver, in threads of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

THREADS: Final = 32
LOOKUPS_PER_TENANT: Final = 4
"""A tenant whose names are slow to look up takes this many of the threads, and no more."""


class Resolver(Protocol):
    """Finds the addresses of a host."""

    async def resolve(self, host: str) -> list[str]:
        """The addresses, in the order of preference. Raises OSError when there are none."""
        ...


class SystemResolver:
    """Asks getaddrinfo. It blocks, so it has threads of its own: a slow name server must not hold up other work."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")
        self._asked: dict[str, asyncio.Future[list[str]]] = {}

    async def resolve(self, host: str) -> list[str]:
        """See Resolver.resolve. Those who ask for the same host at the same time share one look-up."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        asked = self._asked.get(host)
        if asked is None:
            loop = asyncio.get_running_loop()
            asked = self._asked[host] = asyncio.ensure_future(loop.run_in_executor(self._threads, _look_up, host))
            asked.add_done_callback(lambda done: self._forget(host, done))
        # One caller that gives up does not take the look-up from the others.
        return await asyncio.shield(asked)

    def _forget(self, host: str, done: asyncio.Future[list[str]]) -> None:
        del self._asked[host]
        if not done.cancelled():
            done.exception()  # seen, even when every caller has given up

    def close(self) -> None:
        """Let the threads go. A look-up that is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str) -> list[str]:
    if "." in host:
        # A final dot keeps the resolver from trying the machine's search domains, which hold internal names, first.
        try:
            return _ask(f"{host}.")
        except OSError:
            pass  # a name of the hosts file has no final dot
    return _ask(host)


def _ask(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
