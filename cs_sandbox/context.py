"""A JavaScript context with the guest's prelude and the modules of one bundle: what a run runs in.

Theory of operation: a context is built ahead of its run (runtime, prelude, compiled modules: no user code). What the
guest may call acts for the run that the context serves, and for nobody while it serves none: the functions that user
code holds stay the same, what stands behind them is exchanged. They take and give primitives, of the type that the
prelude gives.

A context may be kept for the next run of the same version (`end`). First, while it serves nobody, what the run left
behind is brought to its end: its host calls are rejected, its timers forgotten, and the promise jobs that come of it
run until there are none. So all that happens in the next run is that run's doing. A context is not kept when this
takes too long, when anything escapes, when it grew, or after many runs.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from codesous.cell.v1 import frames_pb2

from cs_sandbox.engine import Engine, ScriptError
from cs_sandbox.engine_abi import Value
from cs_sandbox.guest_code import guest_code

KIB: Final = 1024
RUNS_MAX: Final = 1000
"""Runs that one context serves."""
END_SECONDS: Final = 0.02
"""Time for what a run left behind to come to its end."""
GROWTH_SHARE: Final = 0.5
"""Part of the memory limit that a kept context may hold, so that the next run has the rest."""
ARGUMENTS_MAX: Final = 1024 * KIB
RANDOM_MAX: Final = 64 * KIB
PREPARE_MEMORY: Final = 64 * 1024 * KIB
STACK_BYTES: Final = 1024 * KIB


class GuestRun(Protocol):
    """The run that the guest's calls act for."""

    def log(self, level: int, text: str) -> None:
        """Take a log line."""

    def call(self, method: str, arguments: str) -> int:
        """Begin a host call: its id; -1 when too many are in flight, -2 when there is no run."""

    def timer(self, delay_ms: float) -> int:
        """Set a timer: its id, or -1 when there are too many."""

    def clear(self, number: int) -> None:
        """Forget a timer."""

    def remaining(self) -> float:
        """Milliseconds left until the deadline."""

    def header(self, name: str, value: str) -> bool:
        """Add a header of the response; whether it is the content type."""

    def cookie(self, value: str) -> None:
        """Add a cookie of the response."""

    def respond(self, status: int, body: str, encoded: bool) -> None:
        """End the run with its response."""

    def fail(self, kind: str, name: str, message: str, stack: str) -> None:
        """End the run with what it threw."""


class _Nobody:
    """Stands where a run stands while a context serves none: nothing has an effect."""

    def log(self, level: int, text: str) -> None:
        pass

    def call(self, method: str, arguments: str) -> int:  # noqa: ARG002
        return -2

    def timer(self, delay_ms: float) -> int:  # noqa: ARG002
        return -1

    def clear(self, number: int) -> None:
        pass

    def remaining(self) -> float:
        return 0.0

    def header(self, name: str, value: str) -> bool:  # noqa: ARG002
        return False

    def cookie(self, value: str) -> None:
        pass

    def respond(self, status: int, body: str, encoded: bool) -> None:
        pass

    def fail(self, kind: str, name: str, message: str, stack: str) -> None:
        pass


NOBODY: Final = _Nobody()
_RUN_FUNCTIONS: Final = ("log", "call", "timer", "clear", "remaining", "header", "cookie", "respond", "fail")


class Context:
    """A context of one bundle.

    Args:
        bundle: the code.
        compiled: bytecode of the bundle's modules by path, shared by the contexts of a cell; grows by compiling.

    Attributes:
        serving: the run that the guest's calls act for.
        in_doubt: whether it must not be freed, because freeing a heap that ran out of memory is not safe.
        last_call, last_timer: numbers of host calls and timers, so that no run uses one twice in the same context.
    """

    def __init__(self, bundle: frames_pb2.LoadBundle, compiled: dict[str, bytes]) -> None:
        self.bundle = bundle
        self.serving: GuestRun = NOBODY
        self.last_call = self.last_timer = 0
        self.in_doubt = False
        self._runs = 0
        self._evaluated: tuple[Value, Value] | None = None
        self._held: list[Value] = []
        self._guest: dict[str, Value] = {}
        self.engine = Engine(PREPARE_MEMORY, STACK_BYTES)
        self.engine.modules = dict(bundle.files)
        self.engine.compiled = compiled
        self._prepare()

    def _prepare(self) -> None:
        engine = self.engine
        prelude = self.hold(engine.run_bytecode(guest_code().prelude))
        limits = self.hold(
            engine.parse_json(b'{"result":%d,"args":%d,"log":%d}' % (256 * KIB, ARGUMENTS_MAX, 1024 * KIB))
        )
        native = self.hold(engine.native_object(self._native_functions()))
        guest = self.hold(engine.call(prelude, native, limits))
        for name in ("configure", "start", "answer", "fire", "refuse", "end"):
            self._guest[name] = self.hold(engine.get(guest, name))
        self._module: Value | None = None
        try:
            self._module = engine.module(self.bundle.entry)
        except ScriptError:
            # Reported when a run starts: a broken bundle is an outcome of the run, not of its preparation.
            self._load_fault: Value | None = self.hold(engine.take())
        else:
            self._load_fault = None

    def _native_functions(self) -> Mapping[str, Callable[..., Any]]:
        def of_run(name: str) -> Callable[..., Any]:
            # Looked up at each call: the run that is served changes.
            return lambda *arguments: getattr(self.serving, name)(*arguments)  # noqa: PLW0108

        return {
            **{name: of_run(name) for name in _RUN_FUNCTIONS},
            "random": lambda count: os.urandom(min(int(count), RANDOM_MAX)).hex(),
            "digest": digest,
            "lazy": lambda name: self.engine.run_bytecode(getattr(guest_code(), name)),
        }

    def start(self, run: frames_pb2.Run) -> None:
        """Evaluate the module, unless an earlier run did, and call the handler. Raises `ScriptError`."""
        self._runs += 1
        if self._load_fault is not None:
            self.call("refuse", self._load_fault)
            return
        for name, text in run.env.items():
            self.call("configure", name, text)
        event = self.engine.parse_json(run.event)
        try:
            context = self.engine.parse_json(run.context)
            try:
                self.call("start", *self._evaluate(), event, context)
            finally:
                self.engine.free(context)
        finally:
            self.engine.free(event)

    def _evaluate(self) -> tuple[Value, Value]:
        """The promise of the module's evaluation and its namespace."""
        if self._evaluated is None:
            module, self._module = self._module, None
            evaluated = self.hold(self.engine.evaluate(module))
            self._evaluated = evaluated, self.hold(self.engine.namespace(module))
        return self._evaluated

    def end(self, memory_bytes: int) -> bool:
        """A run has ended well: bring to its end what it left behind. Whether the context may serve another one.

        Args:
            memory_bytes: memory limit of the version.
        """
        self.serving = NOBODY
        self.engine.deadline = time.monotonic() + END_SECONDS
        try:
            self.call("end")
            while self.engine.run_pending_job():
                if time.monotonic() >= self.engine.deadline:
                    return False
        except (ScriptError, MemoryError):
            self.in_doubt = True
            return False
        self.engine.deadline = float("inf")
        if self.engine.heap > GROWTH_SHARE * memory_bytes:
            self.engine.collect_garbage()
        return self._runs < RUNS_MAX and self.engine.heap <= GROWTH_SHARE * memory_bytes

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the guest. Raises `ScriptError`."""
        self.engine.free(self.engine.call(self._guest[name], *arguments))

    def hold(self, value: Value) -> Value:
        """Keep a reference until the context is freed."""
        self._held.append(value)
        return value

    def close(self) -> None:
        """Free the context, which must not be in doubt."""
        self.serving = NOBODY
        if self._module is not None:
            self.engine.free(self._module)
        for value in self._held:
            self.engine.free(value)
        self.engine.close()


def digest(algorithm: str, data: str) -> str:
    """The hash of bytes, both in hexadecimal. `algorithm` is the web platform's name, for example `SHA-256`."""
    return hashlib.new(algorithm.replace("-", "").lower(), bytes.fromhex(data)).hexdigest()
