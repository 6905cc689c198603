"""A client of HTTP/2 that keeps to no rule: it writes frames as told, and notes what comes back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
_INTEGER_7 = 127


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame: https://www.rfc-editor.org/rfc/rfc9113#section-4.1."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def block(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that nobody indexes: https://www.rfc-editor.org/rfc/rfc7541#section-6.2.2."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def request(stream: int, path: str, *more: tuple[str, str], method: str = "GET", ends: bool = True) -> bytes:
    """The frame that begins a request."""
    pseudo = ((":method", method), (":scheme", "http"), (":path", path), (":authority", "h"))
    return frame(HEADERS, END_HEADERS | (END_STREAM if ends else 0), stream, block((*pseudo, *more)))


def _text(text: str) -> bytes:
    data = text.encode()
    size = len(data)
    if size < _INTEGER_7:
        return bytes((size,)) + data
    size -= _INTEGER_7
    digits = bytearray((_INTEGER_7,))
    while size >= 128:
        digits.append(size % 128 + 128)
        size //= 128
    return bytes(digits) + bytes((size,)) + data


class RawH2:
    """One connection. `received` are pairs of kind of frame and stream, in order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.received: list[tuple[int, int]] = []
        self.ended = False

    async def send(self, data: bytes) -> None:
        """Write bytes, as long as the other side takes them."""
        self._writer.write(data)
        with suppress(OSError):
            await self._writer.drain()

    async def read(self) -> None:
        """Note frames until the connection ends."""
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                length = int.from_bytes(head[:3])
                await self._reader.readexactly(length)
                self.received.append((head[3], int.from_bytes(head[5:]) & 0x7FFFFFFF))
        self.ended = True

    def count(self, kind: int) -> int:
        """How many frames of a kind came."""
        return sum(each == kind for each, _ in self.received)


@asynccontextmanager
async def raw_h2(port: int) -> AsyncIterator[RawH2]:
    """A connection that has said hello, and is read from in the background."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = RawH2(reader, writer)
    await connection.send(PREFACE + frame(SETTINGS, 0, 0))
    reading = asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.close()
