"""One run inside a cell: its limits, its timers, its host calls, and the frames that it sends.

Theory of operation: a run is given turns by its cell. In a turn (`advance`) it takes the answers that came, then runs
promise jobs and due timers until there is nothing to do but wait, or until it has had the processor for long enough
that others of its cell are to be served between two jobs. One job that does not end keeps the processor until the
deadline. Whatever happens first of a response, an error or the deadline is the outcome; later ones are ignored. A
fault in the middle of something leaves the context in doubt.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Any, Final

from codesous.cell.v1 import frames_pb2
from codesous.type.v1 import function_response_pb2, log_entry_pb2

from cs_sandbox import result
from cs_sandbox.context import KIB, PREPARE_MEMORY, Context, digest
from cs_sandbox.engine import ScriptError
from cs_sandbox.guest_code import guest_code

TIMERS_MAX: Final = 10_000
LOG_LINE_COST: Final = 32
"""Bytes that a line counts beyond its text, so that a flood of empty lines is bounded too."""
TURN_SECONDS: Final = 0.01
"""After this time a turn ends at the next job, and the other runs of the cell have theirs."""

Send = Callable[[frames_pb2.FromCell], None]


class Activation:
    """A run in a context.

    Args:
        run: what the supervisor asked for. The clock begins now.
        context: serves nobody else while the run lives.
        send: sends a frame to the supervisor.
    """

    def __init__(self, run: frames_pb2.Run, context: Context, send: Send) -> None:
        self.run = run
        self.run_id = run.run_id
        self.context = context
        self.done = False
        self.succeeded = False
        self._send = send
        self._engine = context.engine
        self._response = function_response_pb2.FunctionResponse()
        self._log_left = run.log_limit_bytes
        self._started = False
        self._inbox: list[frames_pb2.HostCallResult] = []
        self._unfinished = True
        self._calls: set[int] = set()
        self._timers: list[tuple[float, int]] = []
        self._live_timers: set[int] = set()
        self._turn_began = 0.0
        self._longest_turn = 0.0
        self._deadline = self._engine.deadline = time.monotonic() + run.timeout_ms / 1000
        self._engine.set_memory_limit(run.memory_bytes)
        context.serving = self

    # Turns.

    def delay(self) -> float:
        """Seconds until the run wants its next turn even if no answer comes; 0: now."""
        if self._inbox or self._unfinished:
            return 0.0
        due = min(self._timers[0][0], self._deadline) if self._timers else self._deadline
        return max(0.0, due - time.monotonic())

    def take(self, answer: frames_pb2.HostCallResult) -> None:
        """Keep the answer of a host call for the next turn."""
        if answer.call_id in self._calls and not self.done:
            self._calls.discard(answer.call_id)
            self._inbox.append(answer)

    def advance(self) -> None:
        """Run what can run now; at the end the outcome is sent, or the run waits, or it wants another turn."""
        self._turn_began = time.thread_time()
        self._unfinished = False
        self._guarded(self._advance)
        self._longest_turn = self._turn_seconds()

    def _turn_seconds(self) -> float:
        return max(self._longest_turn, time.thread_time() - self._turn_began)

    def _advance(self) -> None:
        if not self._started:
            self._started = True
            self.context.start(self.run)
        answers, self._inbox = self._inbox, []
        for answer in answers:
            self._answer(answer)
        turn_ends = time.monotonic() + TURN_SECONDS
        while not self._unfinished:
            self._run_jobs(turn_ends)
            if self.done or self._unfinished or not self._fire_timer():
                break
        if self.done:
            return
        if time.monotonic() >= self._deadline:
            self._time_out()
        elif not self._unfinished and not self._calls and not self._live_timers:
            self.fail("stuck", "", "", "")

    def _run_jobs(self, turn_ends: float) -> None:
        while not self.done and self._engine.run_pending_job():
            now = time.monotonic()
            if now >= self._deadline:
                self._time_out()
            elif now >= turn_ends and self._engine.has_pending_job():
                self._unfinished = True
                return
        if time.monotonic() >= turn_ends:
            self._unfinished = bool(self._timers) and self._timers[0][0] <= time.monotonic()

    def _fire_timer(self) -> bool:
        """Fire the first timer when it is due."""
        while self._timers and self._timers[0][1] not in self._live_timers:
            heapq.heappop(self._timers)
        if not self._timers or self._timers[0][0] > time.monotonic():
            return False
        _, number = heapq.heappop(self._timers)
        self._live_timers.discard(number)
        self.context.call("fire", number)
        return True

    def _answer(self, frame: frames_pb2.HostCallResult) -> None:
        if frame.WhichOneof("outcome") == "error":
            self.context.call("answer", frame.call_id, False, frame.error.reason, frame.error.message)
        else:
            text = frame.value.decode("utf-8", "replace") if frame.value else None
            self.context.call("answer", frame.call_id, True, text)

    # Ends.

    def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Turn whatever escapes from the engine into the run's outcome."""
        try:
            action(*arguments)
        except ScriptError:
            if not self.done:
                self._escaped()
        except MemoryError:
            self.context.in_doubt = True
            self._finish(result.memory_limit(self.run))

    def _escaped(self) -> None:
        """An exception came out of the engine: an interrupt, exhausted memory, or a throw in a bare job or timer."""
        if self._engine.interrupted:
            self._time_out()
            return
        raised = self.context.hold(self._engine.take())
        try:
            self.context.call("refuse", raised)
        except ScriptError:
            self.context.in_doubt = True
            if self._engine.interrupted:
                self._time_out()
            else:
                self._finish(result.memory_limit(self.run))

    def _time_out(self) -> None:
        # Between two jobs nothing is in doubt; in the middle of one, what it held may be.
        self.context.in_doubt = self.context.in_doubt or self._engine.interrupted
        self._finish(result.timeout(self.run))

    def _finish(self, frame: frames_pb2.RunResult) -> None:
        if self.done:
            return
        self.done = True
        frame.run_id = self.run_id
        frame.peak_memory_bytes = self._engine.sample_memory()
        frame.longest_turn_ms = int(self._turn_seconds() * 1000)
        self._send(frames_pb2.FromCell(result=frame))

    def _near_memory_limit(self) -> bool:
        """Whether this run held much of its limit at some time. What it threw away since counts too."""
        return self._engine.sample_memory() * 10 >= self.run.memory_bytes * 4

    # What the guest may call.

    def log(self, level: int, text: str) -> None:
        """Take a log line."""
        if self._log_left < 0 or self.done:
            return
        self._log_left -= LOG_LINE_COST + (len(text) if text.isascii() else len(text.encode()))
        line = frames_pb2.LogLine(run_id=self.run_id, level=log_entry_pb2.LogLevel.ValueType(level), message=text)
        self._send(frames_pb2.FromCell(log=line))

    def call(self, method: str, arguments: str) -> int:
        """Begin a host call: its id, or -1 when too many are in flight."""
        if self.done or len(self._calls) + len(self._inbox) >= self.run.host_calls_in_flight:
            return -1
        self.context.last_call = number = self.context.last_call + 1
        self._calls.add(number)
        call = frames_pb2.HostCall(run_id=self.run_id, call_id=number, method=method, arguments=arguments.encode())
        self._send(frames_pb2.FromCell(host_call=call))
        return number

    def timer(self, delay_ms: float) -> int:
        """Set a timer: its id, or -1 when there are too many."""
        if self.done or len(self._live_timers) >= TIMERS_MAX or len(self._timers) >= 2 * TIMERS_MAX:
            return -1
        self.context.last_timer = number = self.context.last_timer + 1
        self._live_timers.add(number)
        heapq.heappush(self._timers, (time.monotonic() + delay_ms / 1000, number))
        return number

    def clear(self, number: int) -> None:
        """Forget a timer."""
        self._live_timers.discard(number)

    def remaining(self) -> float:
        """Milliseconds left until the deadline."""
        return max(0.0, (self._deadline - time.monotonic()) * 1000)

    def header(self, name: str, value: str) -> bool:
        """Add a header of the response; whether it is the content type."""
        self._response.headers[name] = value
        return name.lower() == "content-type"

    def cookie(self, value: str) -> None:
        """Add a cookie of the response."""
        self._response.cookies.append(value)

    def respond(self, status: int, body: str, encoded: bool) -> None:
        """End the run with its response."""
        self._response.status_code = status
        self._response.body = body
        self._response.is_base64_encoded = encoded
        frame = result.success(self.run, self._response)
        self.succeeded = not self.done and frame.WhichOneof("outcome") == "response"
        self._finish(frame)

    def fail(self, kind: str, name: str, message: str, stack: str) -> None:
        """End the run with what it threw."""
        if self.done:
            return
        frame = result.failure(self.run, result.Thrown(kind, name, message, stack), self._near_memory_limit)
        self.context.in_doubt = self.context.in_doubt or frame.error.reason == "CS_RUNTIME_MEMORY_LIMIT"
        self._finish(frame)


_WARM_UP: Final = b"""export default () => {
  console.log("\\ud800", new Error("x"), new URL("http://a/").href, crypto.randomUUID());
  return {statusCode: 200, headers: {a: "\\n"}, isBase64Encoded: true, body: "%"};
}"""


def warm_up() -> None:
    """Do once, before any fork, what libraries put off until it is first needed."""
    for algorithm in ("SHA-1", "SHA-256", "SHA-384", "SHA-512"):
        digest(algorithm, "")
    guest_code()
    # A whole run: a library that opens a file the first time it is used would kill the cell that uses it first.
    context = Context(frames_pb2.LoadBundle(bundle_sha256="warm", entry="a.js", files={"a.js": _WARM_UP}), {})
    run = frames_pb2.Run(
        event=b"{}", context=b"{}", timeout_ms=10_000, memory_bytes=PREPARE_MEMORY, log_limit_bytes=KIB
    )
    Activation(run, context, lambda _: None).advance()
    context.close()
