"""Frames of the cell protocol: a 4-byte big-endian length and that many bytes of a protobuf message."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from google.protobuf.message import Message

MIB: Final = 1024 * 1024
TO_CELL_MAX: Final = 48 * MIB
"""A bundle of 16 MiB or an event of a 6 MiB body, with room."""
FROM_CELL_MAX: Final = 4 * MIB
"""A log line of 1 MiB, the arguments of a host call, a result: with room. More than this is a breach."""

_LENGTH: Final = struct.Struct("!I")


class FrameError(Exception):
    """The peer broke the protocol."""


def encode(message: Message) -> bytes:
    """One frame."""
    body = message.SerializeToString()
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes. Raises `FrameError` as soon as a length is over the limit."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > self._limit:
                raise FrameError(f"a frame of {length} bytes is over the limit of {self._limit}")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            body = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield body


def send(connection: socket.socket, message: Message) -> None:
    """Write one frame on a blocking socket."""
    connection.sendall(encode(message))
