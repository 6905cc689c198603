"""Outcomes as `RunResult` frames: the mapping of failures to reasons, and the cutting of what is too large."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from codesous.cell.v1 import frames_pb2
from codesous.type.v1 import function_response_pb2, invocation_error_pb2

from cs_sandbox.response import ResponseError, check_response

TIMEOUT: Final = "CS_RUNTIME_TIMEOUT"
MEMORY_LIMIT: Final = "CS_RUNTIME_MEMORY_LIMIT"
EXCEPTION: Final = "CS_RUNTIME_EXCEPTION"
CAPABILITY_DENIED: Final = "CS_RUNTIME_CAPABILITY_DENIED"
CRASH: Final = "CS_RUNTIME_CRASH"
BAD_RESPONSE: Final = "CS_RUNTIME_BAD_RESPONSE"
TOO_LARGE: Final = "CS_RUNTIME_RESULT_TOO_LARGE"
CANCELLED: Final = "CS_RUNTIME_CANCELLED"

RUNTIME_REASONS: Final = frozenset(
    {TIMEOUT, MEMORY_LIMIT, EXCEPTION, CAPABILITY_DENIED, BAD_RESPONSE, TOO_LARGE}
    | {"CS_RATE_LIMITED", "CS_VALIDATION_TOO_LARGE"}
)
"""The reasons that a cell may give by itself; beside them, only those with which its host calls were refused."""

_GUEST_LINE: Final = re.compile(r"^ *at .*\(?(?:cs:\w+|native)(?::\d+(?::\d+)?)?\)?$")
_POSITION: Final = re.compile(r"^ *at (\S+:\d+:\d+)$", re.MULTILINE)


def error(reason: str, message: str, kind: str = "", stack: str = "") -> invocation_error_pb2.InvocationError:
    """An error that running again does not help."""
    return invocation_error_pb2.InvocationError(reason=reason, message=message, type=kind, stack=stack)


def timeout_error(wall_ms: int) -> invocation_error_pb2.InvocationError:
    """The wall clock limit passed."""
    return error(TIMEOUT, f"the function did not return within {wall_ms} ms")


def memory_error(memory_bytes: int) -> invocation_error_pb2.InvocationError:
    """The memory limit was reached."""
    return error(MEMORY_LIMIT, f"the function used more than {memory_bytes / (1 << 20):g} MiB of memory")


def timeout(run: frames_pb2.Run) -> frames_pb2.RunResult:
    """The cell itself saw the deadline pass."""
    return frames_pb2.RunResult(error=timeout_error(run.timeout_ms))


def memory_limit(run: frames_pb2.Run) -> frames_pb2.RunResult:
    """Memory ran out."""
    return frames_pb2.RunResult(error=memory_error(run.memory_bytes))


def success(run: frames_pb2.Run, response: function_response_pb2.FunctionResponse) -> frames_pb2.RunResult:
    """A response that the rules allow, or the error that says which rule it breaks."""
    if response.ByteSize() > run.result_limit_bytes:
        return _too_large(run)
    try:
        check_response(response)
    except ResponseError as fault:
        return frames_pb2.RunResult(error=error(BAD_RESPONSE, str(fault)))
    return frames_pb2.RunResult(response=response)


@dataclass(frozen=True, slots=True)
class Thrown:
    """What the guest reports: `kind` is one of its own words, or the reason of the host call that was not caught."""

    kind: str
    name: str
    message: str
    stack: str


def failure(run: frames_pb2.Run, thrown: Thrown, near_memory_limit: Callable[[], bool]) -> frames_pb2.RunResult:
    """The error for what the guest reports."""
    kind, name, message = thrown.kind, thrown.name, thrown.message
    if kind == "response":
        return frames_pb2.RunResult(error=error(BAD_RESPONSE, message))
    if kind == "size":
        return _too_large(run)
    if kind == "stuck":
        stuck = "the handler's promise can never settle: no host call and no timer is pending"
        return frames_pb2.RunResult(error=error(EXCEPTION, stuck, "Error"))
    # With no memory left even for an error object, the engine throws null.
    out_of_memory = name == "InternalError" and message == "out of memory"
    if out_of_memory or (kind == "null" and near_memory_limit()):
        return memory_limit(run)
    if kind.startswith("CS_"):
        # A host call was refused, and the function did not catch it.
        return frames_pb2.RunResult(error=fit(run, error(kind, message, name, clean_stack(thrown.stack))))
    stack = clean_stack(thrown.stack)
    if name == "SyntaxError" and (position := _POSITION.match(stack)):
        message = f"{message} ({position.group(1)})"
    return frames_pb2.RunResult(error=fit(run, error(EXCEPTION, message, name, stack)))


def clean_stack(stack: str) -> str:
    """The stack without the lines of the guest's own scripts."""
    return "\n".join(line for line in stack.splitlines() if line.strip() and not _GUEST_LINE.match(line))


def fit(run: frames_pb2.Run, found: invocation_error_pb2.InvocationError) -> invocation_error_pb2.InvocationError:
    """Cut an error's stack, type and message to their limits."""
    found.stack = cut(found.stack, run.stack_limit_bytes)
    found.type = cut(found.type, 256)
    room = run.error_limit_bytes - (found.ByteSize() - len(found.message.encode()))
    found.message = cut(found.message, max(0, room - 8))
    return found


def cut(text: str, size: int) -> str:
    """`text` in at most `size` bytes of UTF-8."""
    if len(text) * 4 <= size:
        return text
    raw = text.encode()
    return text if len(raw) <= size else raw[:size].decode("utf-8", "ignore")


def _too_large(run: frames_pb2.Run) -> frames_pb2.RunResult:
    limit = f"the function's response is larger than {run.result_limit_bytes} bytes"
    return frames_pb2.RunResult(error=error(TOO_LARGE, limit))
