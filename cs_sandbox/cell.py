"""The cell: the process that runs activations of one tenant. Several may be live; one computes at a time.

Theory of operation: single-threaded. The loop takes the frames that came, then gives a turn to each run that has
something to do, one after the other; when none has, it waits on the socket and on the next timer. The supervisor is
told whose turn it is, and when the cell waits: it starts another run only in a cell that waits, and it knows by that
who kept the processor from whom. After the end of a run its context is freed, or kept if its version wants that; one
is built ahead for each bundle that ran lately, while memory lasts; and the cell says `Idle` for that run. A cell
without other runs gets its next one only then, so that cleaning is never on anybody's clock. A context in doubt is
not cleaned: the cell takes no more runs and ends with the last one. End of file on the socket or a frame that cannot
be parsed ends the process.
"""

from __future__ import annotations

import os
import select
import socket
from collections import OrderedDict
from typing import Final, NoReturn

from codesous.cell.v1 import frames_pb2
from google.protobuf.message import DecodeError

from cs_sandbox import frames, jail, syntax
from cs_sandbox.activation import Activation
from cs_sandbox.context import Context
from cs_sandbox.shelf import Shelf

BUNDLES_MAX: Final = 8
QUIET_MIN: Final = 0.005
"""Seconds without a timer that are worth telling: in less, no other run could be started."""
_QUIET_MAX: Final = 3600.0
_HELD_KINDS: Final = ("host_call", "idle")
"""Frames that are sent together with the next one. A log line and a turn are not: what follows may kill the cell."""
_READ_SIZE: Final = 1 << 18


class RetireError(Exception):
    """The cell has nothing left to do, or is not fit to go on."""


class Cell:
    """Serves the supervisor on one connected socket.

    Args:
        connection: to the supervisor.
        base_bytes: address space that this process needs beyond the heaps of its runs.
    """

    def __init__(self, connection: socket.socket, base_bytes: int) -> None:
        self._connection = connection
        self._base_bytes = base_bytes
        self._buffer = frames.FrameBuffer(frames.TO_CELL_MAX)
        self._bundles: OrderedDict[str, tuple[frames_pb2.LoadBundle, dict[str, bytes]]] = OrderedDict()
        self._shelf = Shelf()
        self._runs: dict[int, Activation] = {}
        self._abandoned: list[Activation] = []
        self._held = bytearray()
        self._taken = 0
        self._turn = 0
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def serve(self) -> NoReturn:
        """Serve until the connection ends or the cell retires. Always raises `RetireError`."""
        while True:
            self._wait()
            for body in self._buffer.feed(self._receive()):
                self._taken += 1
                self._dispatch(frames_pb2.ToCell.FromString(body))
            for activation in list(self._runs.values()):
                if activation.delay() <= 0:
                    self._give_turn(activation)

    def _wait(self) -> None:
        if not self._runs:
            self._flush()
            self._poll.poll()
            return
        delay = min(activation.delay() for activation in self._runs.values())
        if delay >= QUIET_MIN:
            self._tell_turn(0, min(delay, _QUIET_MAX))
        self._flush()
        # Rounded up: waking before the timer is due would only spin.
        self._poll.poll(int(delay * 1000 + 1) if delay > 0 else 0)

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
                self._shelf.forget(frame.unload.bundle_sha256)
            case "run":
                self._start(frame.run)
            case "host_result":
                if (asking := self._runs.get(frame.host_result.run_id)) is not None:
                    asking.take(frame.host_result)
            case "drop":
                if (dropped := self._runs.get(frame.drop.run_id)) is not None:
                    dropped.done = True
                    self._recycle(dropped)
            case "check":
                faults = syntax.find_faults(dict(frame.check.files))
                self._send(frames_pb2.FromCell(check_result=frames_pb2.CheckResult(faults=faults)))
            case _:
                raise DecodeError("a frame of no kind that this cell knows")

    def _load(self, bundle: frames_pb2.LoadBundle) -> None:
        self._bundles[bundle.bundle_sha256] = (bundle, {})
        while len(self._bundles) > BUNDLES_MAX:
            self._shelf.forget(self._bundles.popitem(last=False)[0])

    # Runs.

    def _start(self, run: frames_pb2.Run) -> None:
        if run.run_id in self._runs or run.bundle_sha256 not in self._bundles:
            raise RetireError
        self._bundles.move_to_end(run.bundle_sha256)
        if self._runs:
            self._tell_turn(run.run_id)
        else:
            # The supervisor knows whose turn it is.
            self._turn = run.run_id
        context = self._take_context(run)
        context.engine.on_tick = self._flush
        self._runs[run.run_id] = Activation(run, context, self._send)
        self._fit_memory()

    def _take_context(self, run: frames_pb2.Run) -> Context:
        warm = self._shelf.take(run.warm_key) if run.warm_key else None
        return warm or self._shelf.take(run.bundle_sha256) or self._prepare(run.bundle_sha256)

    def _prepare(self, sha256: str) -> Context:
        bundle, compiled = self._bundles[sha256]
        return Context(bundle, compiled)

    def _fit_memory(self) -> None:
        """Limit the address space to what the runs may have together; the engine holds each to its own limit."""
        live = sum(activation.run.memory_bytes for activation in self._runs.values())
        lost = sum(activation.run.memory_bytes for activation in self._abandoned)
        jail.limit_memory(self._base_bytes + live + lost)

    def _give_turn(self, activation: Activation) -> None:
        if self._turn != activation.run_id:
            self._tell_turn(activation.run_id)
        activation.advance()
        if activation.done:
            self._recycle(activation)

    def _recycle(self, activation: Activation) -> None:
        """After the end of a run: keep its context or free it, see that the next one is at hand, and say so."""
        del self._runs[activation.run_id]
        if self._clean(activation):
            self._send(frames_pb2.FromCell(idle=frames_pb2.Idle(run_id=activation.run_id)))
            self._fit_memory()
        else:
            self._abandoned.append(activation)
            self._send(frames_pb2.FromCell(retiring=frames_pb2.Retiring()))
        if self._abandoned and not self._runs:
            self._flush()
            raise RetireError

    def _clean(self, activation: Activation) -> bool:
        """Whether the context is clean; False when it is in doubt."""
        context, run = activation.context, activation.run
        known = run.bundle_sha256 in self._bundles
        if run.warm_key and activation.succeeded and context.end(run.memory_bytes) and known:
            self._shelf.put(run.warm_key, context)
            return True
        if context.in_doubt:
            return False
        context.close()
        if known and run.bundle_sha256 not in self._shelf:
            self._shelf.put(run.bundle_sha256, self._prepare(run.bundle_sha256))
        return True

    def _tell_turn(self, run_id: int, quiet: float = 0.0) -> None:
        self._turn = run_id
        turn = frames_pb2.Turn(run_id=run_id)
        if run_id == 0:
            turn.taken, turn.quiet_ms = self._taken, int(quiet * 1000)
        self._send(frames_pb2.FromCell(turn=turn))

    def _send(self, frame: frames_pb2.FromCell) -> None:
        """Send a frame, after those that were held. Held ones go with the next one, at a tick, or at the wait."""
        self._held += frames.encode(frame)
        if frame.WhichOneof("frame") not in _HELD_KINDS:
            self._flush()

    def _flush(self) -> None:
        if not self._held:
            return
        data, self._held = self._held, bytearray()
        try:
            self._connection.sendall(data)
        except OSError:
            # Often called from within the engine, through which no exception of ours can pass.
            os._exit(0)


def run_cell(connection: socket.socket, base_bytes: int) -> None:
    """Serve until the supervisor goes away."""
    try:
        Cell(connection, base_bytes).serve()
    except (RetireError, DecodeError, frames.FrameError, MemoryError):
        return
