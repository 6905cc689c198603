"""One activation inside a cell: a fresh context, the run's state, and the frames that it sends.

Theory of operation: `Activation` is built ahead of its run (runtime, context, prelude, compiled modules: no user code),
then `start` evaluates the module and calls the handler, and `advance` runs promise jobs and due timers until there is
nothing to do but wait. Whatever happens first of a response, an error or the deadline is the outcome; later ones are
ignored. `close` frees the context; after a fault that leaves the heap in doubt, `tainted` is set and the cell exits
instead, because freeing a heap that ran out of memory is not safe.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from codesous.cell.v1 import frames_pb2
from codesous.type.v1 import function_response_pb2, log_entry_pb2

from cs_sandbox import result
from cs_sandbox.engine import Engine, ScriptError
from cs_sandbox.engine_abi import Value
from cs_sandbox.guest_code import guest_code

KIB: Final = 1024
ARGUMENTS_MAX: Final = 1024 * KIB
TIMERS_MAX: Final = 10_000
RANDOM_MAX: Final = 64 * KIB
PREPARE_MEMORY: Final = 64 * 1024 * KIB
STACK_BYTES: Final = 1024 * KIB
LOG_LINE_COST: Final = 32
"""Bytes that a line counts beyond its text, so that a flood of empty lines is bounded too."""

Send = Callable[[frames_pb2.FromCell], None]


class Activation:
    """A context for one run of one bundle.

    Args:
        bundle: the code.
        compiled: bytecode of the bundle's modules by path, shared by the runs of a cell; grows as modules are compiled.
        send: sends a frame to the supervisor.
    """

    def __init__(self, bundle: frames_pb2.LoadBundle, compiled: dict[str, bytes], send: Send) -> None:
        self.bundle = bundle
        self.done = False
        self.tainted = False
        self.run_id = 0
        self._send = send
        self._run = frames_pb2.Run()
        self._deadline = float("inf")
        self._response = function_response_pb2.FunctionResponse()
        self._log_left = 0
        self._calls: set[int] = set()
        self._last_call = 0
        self._timers: list[tuple[float, int]] = []
        self._live_timers: set[int] = set()
        self._last_timer = 0
        self._held: list[Value] = []
        self._guest: dict[str, Value] = {}
        self.engine = Engine(PREPARE_MEMORY, STACK_BYTES)
        self.engine.modules = dict(bundle.files)
        self.engine.compiled = compiled
        self._prepare()

    # Life.

    def _prepare(self) -> None:
        engine = self.engine
        prelude = self._hold(engine.run_bytecode(guest_code().prelude))
        limits = self._hold(
            engine.parse_json(b'{"result":%d,"args":%d,"log":%d}' % (256 * KIB, ARGUMENTS_MAX, 1024 * KIB))
        )
        native = self._hold(engine.native_object(self._native_functions()))
        guest = self._hold(engine.call(prelude, native, limits))
        for name in ("configure", "start", "answer", "fire", "refuse"):
            self._guest[name] = self._hold(engine.get(guest, name))
        self._module: Value | None = None
        try:
            self._module = engine.module(self.bundle.entry)
        except ScriptError:
            # Reported when the run starts: a broken bundle is an outcome of the run, not of its preparation.
            self._load_fault: Value | None = self._hold(engine.take())
        else:
            self._load_fault = None

    def start(self, run: frames_pb2.Run) -> None:
        """Begin the run. Frames come from now on."""
        self._run = run
        self.run_id = run.run_id
        self._log_left = run.log_limit_bytes
        self._deadline = self.engine.deadline = time.monotonic() + run.timeout_ms / 1000
        self.engine.set_memory_limit(run.memory_bytes)
        self._guarded(self._begin)

    def _begin(self) -> None:
        engine = self.engine
        if self._load_fault is not None:
            self._call("refuse", self._load_fault)
            return
        for name, text in self._run.env.items():
            self._call("configure", name, text)
        event = self._hold(engine.parse_json(self._run.event))
        context = self._hold(engine.parse_json(self._run.context))
        module, self._module = self._module, None
        evaluated = self._hold(engine.evaluate(module))
        namespace = self._hold(engine.namespace(module))
        self._call("start", evaluated, namespace, event, context)

    def advance(self) -> None:
        """Run all that can run now; at the end the outcome is sent, or the run waits for an answer or a timer."""
        self._guarded(self._advance)

    def _advance(self) -> None:
        while not self.done:
            self._run_jobs()
            if self.done or not self._fire_timer():
                break
        if not self.done and time.monotonic() >= self._deadline:
            self._time_out()
        elif not self.done and not self._calls and not self._live_timers:
            self._fail("stuck", "", "", "")

    def _run_jobs(self) -> None:
        while not self.done and self.engine.run_pending_job():
            if time.monotonic() >= self._deadline:
                self._time_out()

    def _fire_timer(self) -> bool:
        """Fire the first timer when it is due."""
        while self._timers and self._timers[0][1] not in self._live_timers:
            heapq.heappop(self._timers)
        if not self._timers or self._timers[0][0] > time.monotonic():
            return False
        _, number = heapq.heappop(self._timers)
        self._live_timers.discard(number)
        self._call("fire", number)
        return True

    def wake_time(self) -> float:
        """`time.monotonic()` at which `advance` must be called even if no frame comes."""
        due = self._timers[0][0] if self._timers else self._deadline
        return min(due, self._deadline)

    def answer(self, frame: frames_pb2.HostCallResult) -> None:
        """Settle a host call. The caller calls `advance` afterwards."""
        if frame.call_id not in self._calls or self.done:
            return
        self._calls.discard(frame.call_id)
        if frame.WhichOneof("outcome") == "error":
            self._guarded(self._call, "answer", frame.call_id, False, frame.error.reason, frame.error.message)
        else:
            text = frame.value.decode("utf-8", "replace") if frame.value else None
            self._guarded(self._call, "answer", frame.call_id, True, text)

    def close(self) -> None:
        """Free the context."""
        if self._module is not None:
            self.engine.free(self._module)
        for value in self._held:
            self.engine.free(value)
        self.engine.close()

    def _hold(self, value: Value) -> Value:
        self._held.append(value)
        return value

    def _call(self, name: str, *arguments: Any) -> None:
        self.engine.free(self.engine.call(self._guest[name], *arguments))

    def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Turn whatever escapes from the engine into the run's outcome."""
        try:
            action(*arguments)
        except ScriptError:
            if not self.done:
                self._escaped()
        except MemoryError:
            self.tainted = True
            self._finish(result.memory_limit(self._run))

    def _escaped(self) -> None:
        """An exception came out of the engine: an interrupt, exhausted memory, or a throw in a bare job or timer."""
        if self.engine.interrupted:
            self._time_out()
            return
        raised = self._hold(self.engine.take())
        try:
            self._call("refuse", raised)
        except ScriptError:
            self.tainted = True
            if self.engine.interrupted:
                self._time_out()
            else:
                self._finish(result.memory_limit(self._run))

    def _time_out(self) -> None:
        self.tainted = True
        self._finish(result.timeout(self._run))

    def _finish(self, frame: frames_pb2.RunResult) -> None:
        if self.done:
            return
        self.done = True
        frame.run_id = self.run_id
        frame.peak_memory_bytes = max(0, self.engine.sample_memory())
        self._send(frames_pb2.FromCell(result=frame))

    def _fail(self, kind: str, name: str, message: str, stack: str) -> None:
        if self.done:
            return
        frame = result.failure(self._run, result.Thrown(kind, name, message, stack), self._near_memory_limit)
        self.tainted = self.tainted or frame.error.reason == "CS_RUNTIME_MEMORY_LIMIT"
        self._finish(frame)

    def _near_memory_limit(self) -> bool:
        """Whether this run held much of its limit at some time. What it threw away since counts too."""
        return self.engine.sample_memory() * 10 >= self._run.memory_bytes * 4

    # What the guest may call. Arguments are primitives, and of the type that the prelude gives.

    def _native_functions(self) -> Mapping[str, Callable[..., Any]]:
        return {
            "log": self._log,
            "call": self._host_call,
            "timer": self._timer,
            "clear": self._live_timers.discard,
            "random": lambda count: os.urandom(min(int(count), RANDOM_MAX)).hex(),
            "digest": _digest,
            "remaining": lambda: max(0.0, (self._deadline - time.monotonic()) * 1000),
            "lazy": lambda: self.engine.run_bytecode(guest_code().web),
            "header": self._header,
            "cookie": self._response.cookies.append,
            "respond": self._respond,
            "fail": self._fail,
        }

    def _log(self, level: int, text: str) -> None:
        if self._log_left < 0 or self.done:
            return
        self._log_left -= LOG_LINE_COST + (len(text) if text.isascii() else len(text.encode()))
        line = frames_pb2.LogLine(run_id=self.run_id, level=log_entry_pb2.LogLevel.ValueType(level), message=text)
        self._send(frames_pb2.FromCell(log=line))

    def _host_call(self, method: str, arguments: str) -> int:
        if self.done or len(self._calls) >= self._run.host_calls_in_flight:
            return -1
        self._last_call += 1
        self._calls.add(self._last_call)
        call = frames_pb2.HostCall(
            run_id=self.run_id, call_id=self._last_call, method=method, arguments=arguments.encode()
        )
        self._send(frames_pb2.FromCell(host_call=call))
        return self._last_call

    def _timer(self, delay_ms: float) -> int:
        if len(self._live_timers) >= TIMERS_MAX or len(self._timers) >= 2 * TIMERS_MAX:
            return -1
        self._last_timer += 1
        self._live_timers.add(self._last_timer)
        heapq.heappush(self._timers, (time.monotonic() + delay_ms / 1000, self._last_timer))
        return self._last_timer

    def _header(self, name: str, value: str) -> bool:
        self._response.headers[name] = value
        return name.lower() == "content-type"

    def _respond(self, status: int, body: str, encoded: bool) -> None:
        self._response.status_code = status
        self._response.body = body
        self._response.is_base64_encoded = encoded
        self._finish(result.success(self._run, self._response))


_WARM_UP: Final = b"""export default () => {
  console.log("\\ud800", new Error("x"), new URL("http://a/").href, crypto.randomUUID());
  return {statusCode: 200, headers: {a: "\\n"}, isBase64Encoded: true, body: "%"};
}"""


def _digest(algorithm: str, data: str) -> str:
    return hashlib.new(algorithm.replace("-", "").lower(), bytes.fromhex(data)).hexdigest()


def warm_up() -> None:
    """Do once, before any fork, what libraries put off until it is first needed."""
    for algorithm in ("SHA-1", "SHA-256", "SHA-384", "SHA-512"):
        _digest(algorithm, "")
    guest_code()
    # A whole run: a library that opens a file the first time it is used would kill the cell that uses it first.
    bundle = frames_pb2.LoadBundle(bundle_sha256="warm", entry="a.js", files={"a.js": _WARM_UP})
    activation = Activation(bundle, {}, lambda _: None)
    activation.start(
        frames_pb2.Run(event=b"{}", context=b"{}", timeout_ms=10_000, memory_bytes=PREPARE_MEMORY, log_limit_bytes=KIB)
    )
    activation.advance()
    activation.close()
