"""The connection to one cell: frames out, frames in, and no reading from a cell that makes too much work."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from codesous.cell.v1 import frames_pb2
from google.protobuf.message import DecodeError, Message

from cs_sandbox import frames
from cs_sandbox.meter import Meter


class Receiver(Protocol):
    """Whose connection it is."""

    def take_frame(self, frame: frames_pb2.FromCell) -> None:
        """A frame came. Raises `FrameError` when it is not one that may come now."""

    def end_read(self) -> None:
        """All frames that came at once have been taken."""

    def kill(self, reason: str) -> None:
        """The cell broke the protocol."""

    def lose(self) -> None:
        """The connection is gone, whoever ended it."""


class CellLink(asyncio.Protocol):
    """A connection.

    Args:
        receiver: gets what comes.
        meter: the cell's allowance.
    """

    def __init__(self, receiver: Receiver, meter: Meter) -> None:
        self._receiver = receiver
        self._meter = meter
        self._transport: asyncio.Transport | None = None
        self._buffer = frames.FrameBuffer(frames.FROM_CELL_MAX)
        self._pause: asyncio.TimerHandle | None = None

    async def open(self, connection: socket.socket) -> None:
        """Begin to read. The socket is the link's from now on."""
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self, connection)

    @property
    def writable(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, frame: Message) -> None:
        """Send a frame, if the connection is still there."""
        if self._transport is not None and self.writable:
            self._transport.write(frames.encode(frame))

    def unread(self) -> int:
        """Bytes that were sent and that the cell has not read yet, beyond what the kernel holds."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None

    def charge(self, size: int) -> None:
        """Count a frame that it is the cell's to send or not; one that makes too much work is not read for a while."""
        loop = asyncio.get_running_loop()
        debt = self._meter.spend(size + self._meter.call_cost, loop.time())
        if debt > 0 and self._pause is None and self._transport is not None:
            self._transport.pause_reading()
            self._pause = loop.call_later(debt, self._read_on)

    def _read_on(self) -> None:
        self._pause = None
        self.data_received(b"")
        if self._pause is None and self._transport is not None and self.writable:
            self._transport.resume_reading()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream socket has no other
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """The process is gone, or we let it go."""
        self.abort()
        self._receiver.lose()

    def data_received(self, data: bytes) -> None:
        """Hand on the frames, those of a cell in debt later; any breach of the protocol kills the cell."""
        try:
            for body in self._buffer.feed(data):
                frame = frames_pb2.FromCell.FromString(body)
                frame.DiscardUnknownFields()
                self._receiver.take_frame(frame)
                if not self.writable or self._pause is not None:
                    break
            self._receiver.end_read()
        except (frames.FrameError, DecodeError):
            self._receiver.kill("breach")
