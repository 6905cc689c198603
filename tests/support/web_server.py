"""Small web servers on loopback: one that answers as a test says, and canaries that only count who connects."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

LOOPBACK = "127.77.0.1"
"""An address of this machine where tests may fetch from, beside the one where the canaries listen."""


@dataclass
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


Reply = tuple[int, list[tuple[str, str]], bytes]
Handler = Callable[[Received], Awaitable[Reply | bytes]]


@dataclass
class WebServer:
    """Answers with what the handler gives: a status, headers and a body, or raw bytes."""

    handler: Handler
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    server_names: list[str | None] = field(default_factory=list)
    # The loop holds tasks weakly: one that waits for ever, and whose client has gone, would be collected as it waits.
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        task.add_done_callback(self.serving.discard)
        try:
            while line := (await reader.readline()).decode("latin-1").strip():
                method, target, _ = line.split(" ")
                headers = []
                while header := (await reader.readline()).decode("latin-1").strip():
                    name, _, value = header.partition(":")
                    headers.append((name.lower(), value.strip()))
                received = Received(method, target, headers, b"")
                received.body = await reader.readexactly(int(received.header("content-length") or 0))
                self.requests.append(received)
                reply = await self.handler(received)
                if isinstance(reply, bytes):
                    writer.write(reply)
                    await writer.drain()
                    return
                status, more, body = reply
                head = [f"HTTP/1.1 {status} Told", f"content-length: {len(body)}", *(f"{k}: {v}" for k, v in more)]
                writer.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + (b"" if method == "HEAD" else body))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def web_server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebServer]:
    """A server on an address of its own."""
    web = WebServer(handler)
    server = await asyncio.start_server(web.serve, LOOPBACK, 0, ssl=tls, backlog=512)
    web.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield web
        finally:
            for task in web.serving:
                task.cancel()
            await asyncio.gather(*web.serving, return_exceptions=True)


@dataclass
class Canaries:
    """Listeners on every address of this machine, of both families, on one port."""

    port: int
    connections: int = 0

    def seen(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ncanary")
        writer.close()


@contextlib.asynccontextmanager
async def canaries() -> AsyncIterator[Canaries]:
    """Listen; count who connects."""
    first = socket.create_server(("0.0.0.0", 0))
    found = Canaries(first.getsockname()[1])
    servers = [await asyncio.start_server(found.seen, sock=first)]
    if socket.has_ipv6:
        with contextlib.suppress(OSError):
            second = socket.create_server(("::", found.port), family=socket.AF_INET6)
            servers.append(await asyncio.start_server(found.seen, sock=second))
    async with contextlib.AsyncExitStack() as stack:
        for server in servers:
            await stack.enter_async_context(server)
        yield found
