"""The cell: the process that runs activations of one tenant, one frame after the other.

Theory of operation: single-threaded. The loop waits on the socket and on the run's next timer, hands frames to the run,
lets it advance, and after its end frees the context, builds the next one ahead for the same bundle, and says `Idle`.
The supervisor starts the next run only then, so that cleaning is never on anybody's clock. End of file on the socket, a
frame that cannot be parsed, or a heap in doubt ends the process.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import OrderedDict
from typing import Final, NoReturn

from codesous.cell.v1 import frames_pb2
from google.protobuf.message import DecodeError

from cs_sandbox import frames, jail, syntax
from cs_sandbox.activation import Activation

BUNDLES_MAX: Final = 8
_READ_SIZE: Final = 1 << 18


class RetireError(Exception):
    """The cell has nothing left to do, or is not fit to go on."""


class Cell:
    """Serves the supervisor on one connected socket.

    Args:
        connection: to the supervisor.
        base_bytes: address space that this process needs beyond the heap of a run.
    """

    def __init__(self, connection: socket.socket, base_bytes: int) -> None:
        self._connection = connection
        self._base_bytes = base_bytes
        self._buffer = frames.FrameBuffer(frames.TO_CELL_MAX)
        self._bundles: OrderedDict[str, tuple[frames_pb2.LoadBundle, dict[str, bytes]]] = OrderedDict()
        self._ready: Activation | None = None
        self._current: Activation | None = None
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def serve(self) -> NoReturn:
        """Serve until the connection ends. Always raises `RetireError`."""
        while True:
            self._wait()
            data = self._receive()
            for body in self._buffer.feed(data):
                self._dispatch(frames_pb2.ToCell.FromString(body))
            if self._current is not None:
                self._current.advance()
                self._recycle()

    def _wait(self) -> None:
        if self._current is None:
            self._poll.poll()
        else:
            left = self._current.wake_time() - time.monotonic()
            # Rounded up: waking before the timer is due would only spin.
            self._poll.poll(max(0, int(left * 1000 + 1)))

    def _receive(self) -> bytes:
        try:
            data = self._connection.recv(_READ_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return b""
        except OSError:
            raise RetireError from None
        if not data:
            raise RetireError
        return data

    def _dispatch(self, frame: frames_pb2.ToCell) -> None:
        match frame.WhichOneof("frame"):
            case "load":
                self._load(frame.load)
            case "unload":
                self._bundles.pop(frame.unload.bundle_sha256, None)
            case "run":
                self._start(frame.run)
            case "host_result":
                if self._current is not None and self._current.run_id == frame.host_result.run_id:
                    self._current.answer(frame.host_result)
            case "check":
                faults = syntax.find_faults(dict(frame.check.files))
                self._send(frames_pb2.FromCell(check_result=frames_pb2.CheckResult(faults=faults)))
            case _:
                raise DecodeError("a frame of no kind that this cell knows")

    def _load(self, bundle: frames_pb2.LoadBundle) -> None:
        self._bundles[bundle.bundle_sha256] = (bundle, {})
        while len(self._bundles) > BUNDLES_MAX:
            self._bundles.popitem(last=False)

    def _start(self, run: frames_pb2.Run) -> None:
        if self._current is not None or run.bundle_sha256 not in self._bundles:
            raise RetireError
        self._bundles.move_to_end(run.bundle_sha256)
        activation, self._ready = self._ready, None
        if activation is not None and activation.bundle.bundle_sha256 != run.bundle_sha256:
            activation.close()
            activation = None
        if activation is None:
            activation = self._prepare(run.bundle_sha256)
        self._current = activation
        jail.limit_memory(self._base_bytes + run.memory_bytes)
        activation.start(run)

    def _prepare(self, sha256: str) -> Activation:
        bundle, compiled = self._bundles[sha256]
        return Activation(bundle, compiled, self._send)

    def _recycle(self) -> None:
        """After the end of a run: free its context, build the next one, and take work again."""
        activation = self._current
        if activation is None or not activation.done:
            return
        if activation.tainted:
            raise RetireError
        self._current = None
        run_id, sha256 = activation.run_id, activation.bundle.bundle_sha256
        activation.close()
        if sha256 in self._bundles:
            self._ready = self._prepare(sha256)
        self._send(frames_pb2.FromCell(idle=frames_pb2.Idle(run_id=run_id)))

    def _send(self, frame: frames_pb2.FromCell) -> None:
        try:
            frames.send(self._connection, frame)
        except OSError:
            # Often called from within the engine, through which no exception of ours can pass.
            os._exit(0)


def run_cell(connection: socket.socket, base_bytes: int) -> None:
    """Serve until the supervisor goes away."""
    try:
        Cell(connection, base_bytes).serve()
    except (RetireError, DecodeError, frames.FrameError, MemoryError):
        return
