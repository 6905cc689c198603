"""The JavaScript engine: a small typed binding of QuickJS-ng's C API, one runtime and context per `Engine`.

Theory of operation: the `quickjs-ng` wheel exports the engine's whole C API from its extension module. We bind that API
rather than the wheel's Python classes because those have no module loader and no file names in stacks, cut strings at a
NUL and measure time in CPU seconds. Everything here runs inside a jailed cell, never in a service: a mistake in the use
of the C API costs one cell.

Values are `JSValue` structs passed by value. A function here that returns one gives the caller a reference to free; a
function that takes one does not take the reference. Native functions are given only primitives and never throw, so no
frame of ours is ever on the stack above user code that could reach back into it.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cs_sandbox.engine_abi import (
    BYTECODE,
    EVAL_COMPILE_ONLY,
    EVAL_GLOBAL,
    EVAL_MODULE,
    EXCEPTION,
    TAG_BOOL,
    TAG_EXCEPTION,
    TAG_FLOAT,
    TAG_INT,
    TAG_ROPE,
    TAG_STRING,
    UNDEFINED,
    Value,
    ffi,
    heap_bytes,
    lib,
)

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

_engines: dict[int, Engine] = {}
"""Live engines by the addresses of their context and of their runtime."""


def _address(pointer: Any) -> int:
    return int(ffi.cast("intptr_t", pointer))


class ScriptError(Exception):
    """A JavaScript exception is pending on the engine. `take()` on the engine gives the thrown value."""


class Engine:
    """One runtime with one context.

    Args:
        memory_bytes: limit of the heap; past it allocations throw, or at worst crash the process.
        stack_bytes: limit of the native stack that scripts may use.

    Attributes:
        deadline: `time.monotonic()` past which running code is interrupted by an exception that it cannot catch.
        interrupted: whether that happened.
        on_tick: called now and then while code runs, mostly several times a millisecond; must not raise.
    """

    def __init__(self, memory_bytes: int = 0, stack_bytes: int = 512 * 1024) -> None:
        self.deadline = float("inf")
        self.interrupted = False
        self.on_tick: Callable[[], None] | None = None
        self.modules: Mapping[str, bytes] = {}
        self.compiled: dict[str, bytes] = {}
        self._peak = 0
        self._natives: list[Callable[..., Any]] = []
        self._runtime = lib.JS_NewRuntime()
        if self._runtime == ffi.NULL:
            raise MemoryError
        lib.JS_SetMemoryLimit(self._runtime, memory_bytes)
        lib.JS_SetMaxStackSize(self._runtime, stack_bytes)
        self.context = lib.JS_NewContext(self._runtime)
        if self.context == ffi.NULL:
            raise MemoryError
        self._job_context = ffi.new("JSContext **")
        _engines[_address(self.context)] = _engines[_address(self._runtime)] = self
        lib.JS_SetInterruptHandler(self._runtime, _on_interrupt, ffi.NULL)
        lib.JS_SetModuleLoaderFunc(self._runtime, ffi.NULL, _on_load, ffi.NULL)

    def set_memory_limit(self, memory_bytes: int) -> None:
        """Limit the heap to `memory_bytes` in all."""
        lib.JS_SetMemoryLimit(self._runtime, memory_bytes)

    @property
    def heap(self) -> int:
        """Bytes that this engine has allocated now."""
        return heap_bytes(self._runtime)

    def sample_memory(self) -> int:
        """Most bytes that this engine was seen to have allocated. Called at each interrupt too."""
        self._peak = max(self._peak, self.heap)
        return self._peak

    def collect_garbage(self) -> None:
        """Free what only cycles keep."""
        lib.JS_RunGC(self._runtime)

    def close(self) -> None:
        """Free the context and the runtime. Every value must have been freed before."""
        del _engines[_address(self.context)], _engines[_address(self._runtime)]
        lib.JS_FreeContext(self.context)
        lib.JS_FreeRuntime(self._runtime)

    # Values.

    def free(self, value: Value) -> None:
        """Give a reference back."""
        lib.JS_FreeValue(self.context, value)

    def checked(self, value: Value) -> Value:
        """The value itself; raises `ScriptError` when it is the mark of a pending exception."""
        if value.tag == TAG_EXCEPTION:
            raise ScriptError
        return value

    def take(self) -> Value:
        """The pending exception's value, which is then no longer pending."""
        return lib.JS_GetException(self.context)

    def describe(self) -> tuple[str, str]:
        """Message and stack of the pending exception, which is then no longer pending."""
        raised = self.take()
        found = ["", ""]
        for index, name in enumerate(("message", "stack")):
            try:
                value = self.get(raised, name)
            except ScriptError:
                self.free(self.take())
            else:
                found[index] = str(self.to_python(value) or "")
                self.free(value)
        self.free(raised)
        return found[0], found[1]

    def text(self, value: Value) -> str:
        """A value as text; lone surrogates become U+FFFD. Raises `ScriptError` for what has no text."""
        size = ffi.new("size_t *")
        pointer = lib.JS_ToCStringLen2(self.context, size, value, False)
        if pointer == ffi.NULL:
            raise ScriptError
        try:
            raw: bytes = ffi.unpack(pointer, size[0]) if size[0] else b""
        finally:
            lib.JS_FreeCString(self.context, pointer)
        return decode(raw)

    def to_python(self, value: Value) -> Any:
        """A primitive as a Python value; an object or a symbol becomes None."""
        tag = value.tag
        if tag in (TAG_STRING, TAG_ROPE):
            return self.text(value)
        if tag == TAG_INT:
            return int(ffi.cast("int32_t", value.u))
        if tag == TAG_FLOAT:
            return struct.unpack("d", struct.pack("Q", value.u))[0]
        if tag == TAG_BOOL:
            return bool(value.u & 1)
        return None

    def to_value(self, item: Any) -> Value:
        """A Python primitive as a value; a value is passed through."""
        if item is None:
            return UNDEFINED
        if isinstance(item, bool):
            return (int(item), TAG_BOOL)
        if isinstance(item, int) and -(2**31) <= item < 2**31:
            return (item & 0xFFFFFFFF, TAG_INT)
        if isinstance(item, int | float):
            return (struct.unpack("Q", struct.pack("d", float(item)))[0], TAG_FLOAT)
        if isinstance(item, str):
            raw = item.encode("utf-8", "surrogatepass")
            return lib.JS_NewStringLen(self.context, raw, len(raw))
        return item

    def parse_json(self, raw: bytes) -> Value:
        """The value of a JSON text. Raises `ScriptError`."""
        return self.checked(lib.JS_ParseJSON(self.context, raw + b"\0", len(raw), b"<json>"))

    def get(self, value: Value, name: str) -> Value:
        """A property of an object. Raises `ScriptError`."""
        return self.checked(lib.JS_GetPropertyStr(self.context, value, name.encode()))

    def native_object(self, functions: Mapping[str, Callable[..., Any]]) -> Value:
        """An object whose methods call Python. They are given primitives and give back a primitive or a value."""
        target = lib.JS_NewObject(self.context)
        for name, function in functions.items():
            self._natives.append(function)
            native = lib.JS_NewCFunctionData(self.context, _on_native, 0, len(self._natives) - 1, 0, ffi.NULL)
            if lib.JS_SetPropertyStr(self.context, target, name.encode(), native) < 0:
                raise ScriptError
        return target

    def native(self, index: int, arguments: list[Any]) -> Any:
        """Call the native function of that number."""
        return self._natives[index](*arguments)

    # Code.

    def call(self, function: Value, *arguments: Any) -> Value:
        """Call a function with primitives and values; values keep their references. Raises `ScriptError`."""
        values = ffi.new("JSValue[]", [self.to_value(item) for item in arguments])
        try:
            return self.checked(lib.JS_Call(self.context, function, UNDEFINED, len(arguments), values))
        finally:
            for index, item in enumerate(arguments):
                if isinstance(item, str):
                    self.free(values[index])

    def run_pending_job(self) -> bool:
        """Run one promise job; False when there is none. Raises `ScriptError`."""
        done = lib.JS_ExecutePendingJob(self._runtime, self._job_context)
        if done < 0:
            raise ScriptError
        return bool(done)

    def has_pending_job(self) -> bool:
        """Whether a promise job waits to be run."""
        return bool(lib.JS_IsJobPending(self._runtime))

    def compile_script(self, source: bytes, name: str) -> bytes:
        """Bytecode of a script. Raises `ScriptError`."""
        return self._bytecode(self._compile(source, name, EVAL_GLOBAL))

    def run_bytecode(self, bytecode: bytes) -> Value:
        """The completion value of a script that `compile_script` made. Raises `ScriptError`."""
        return self.checked(lib.JS_EvalFunction(self.context, self._read(bytecode)))

    def module(self, name: str) -> Value:
        """A module of `modules`, with all that it imports, not evaluated. The context owns it. Raises `ScriptError`."""
        if name not in self.modules:
            lib.JS_ThrowReferenceError(self.context, b"%s", ffi.new("char[]", f"cannot find module '{name}'".encode()))
            raise ScriptError
        if name in self.compiled:
            module = self._read(self.compiled[name])
            if lib.JS_ResolveModule(self.context, module) < 0:
                raise ScriptError
            return module
        module = self._compile(self.modules[name], name, EVAL_MODULE)
        self.compiled[name] = self._bytecode(module, keep=True)
        return module

    def evaluate(self, module: Value) -> Value:
        """Start a module: the promise of its end. Raises `ScriptError` when it cannot be linked."""
        return self.checked(lib.JS_EvalFunction(self.context, module))

    def namespace(self, module: Value) -> Value:
        """The namespace object of a module."""
        return self.checked(lib.JS_GetModuleNamespace(self.context, ffi.cast("JSModuleDef *", module.u)))

    def _compile(self, source: bytes, name: str, kind: int) -> Value:
        # The engine wants a terminating NUL; a NUL within the text is an error that it reports itself.
        raw = source.removeprefix(b"\xef\xbb\xbf")
        return self.checked(lib.JS_Eval(self.context, raw + b"\0", len(raw), name.encode(), kind | EVAL_COMPILE_ONLY))

    def _bytecode(self, value: Value, *, keep: bool = False) -> bytes:
        size = ffi.new("size_t *")
        pointer = lib.JS_WriteObject(self.context, size, value, BYTECODE)
        if not keep:
            self.free(value)
        if pointer == ffi.NULL:
            raise ScriptError
        try:
            return bytes(ffi.buffer(pointer, size[0]))
        finally:
            lib.js_free(self.context, pointer)

    def _read(self, bytecode: bytes) -> Value:
        return self.checked(lib.JS_ReadObject(self.context, bytecode, len(bytecode), BYTECODE))

    def load(self, name: str) -> Any:
        """The engine asks for a module by its normalised name: a `JSModuleDef *`, or NULL with an exception pending."""
        try:
            module = self.module(name)
        except ScriptError:
            return ffi.NULL
        self.free(module)
        return ffi.cast("JSModuleDef *", module.u)


def decode(raw: bytes) -> str:
    """Text of the engine's UTF-8, in which a lone surrogate is three bytes: each becomes U+FFFD."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return _SURROGATE.sub("\ufffd", raw.decode("utf-8", "surrogatepass"))


# The callbacks below are made once, before any fork: making one allocates executable memory, which the jail refuses.


@ffi.callback("JSInterruptHandler")  # type: ignore[untyped-decorator]
def _on_interrupt(runtime: Any, _opaque: Any) -> int:
    engine = _engines[_address(runtime)]
    engine.sample_memory()
    if engine.on_tick is not None:
        engine.on_tick()
    if time.monotonic() < engine.deadline:
        return 0
    engine.interrupted = True
    return 1


@ffi.callback("JSModuleLoaderFunc")  # type: ignore[untyped-decorator]
def _on_load(context: Any, name: Any, _opaque: Any) -> Any:
    try:
        return _engines[_address(context)].load(ffi.string(name).decode("utf-8", "replace"))
    except MemoryError:
        lib.JS_ThrowOutOfMemory(context)
        return ffi.NULL


@ffi.callback("JSCFunctionData")  # type: ignore[untyped-decorator]
def _on_native(context: Any, _this: Any, count: int, values: Any, index: int, _data: Any) -> Any:
    engine = _engines[_address(context)]
    try:
        return engine.to_value(engine.native(index, [engine.to_python(values[n]) for n in range(count)]))
    except ScriptError:
        return EXCEPTION
    except MemoryError:
        return lib.JS_ThrowOutOfMemory(context)
