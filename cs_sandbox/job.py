"""The values that cross the sandbox's border: what to run, within which limits, and how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from codesous.type.v1 import activation_status_pb2, function_response_pb2, invocation_error_pb2, log_entry_pb2

MIB = 1024 * 1024
KIB = 1024

ActivationStatus = activation_status_pb2.ActivationStatus
FunctionResponse = function_response_pb2.FunctionResponse
InvocationError = invocation_error_pb2.InvocationError
LogEntry = log_entry_pb2.LogEntry


class SandboxError(Exception):
    """The sandbox itself failed: no activation was harmed, or none was started."""


class JailError(SandboxError):
    """A cell could not build its jail, so that it serves nothing. `layer` names what is missing."""

    def __init__(self, layer: str, message: str) -> None:
        super().__init__(f"the sandbox's jail does not hold ({layer}): {message}")
        self.layer = layer


class HostCallError(Exception):
    """A host call fails: user code sees an error with this reason as its `code`, and this message."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Limits:
    """What one activation may use."""

    wall: timedelta = timedelta(seconds=3)
    """From the first byte sent to the cell to the decoded result."""
    memory_bytes: int = 128 * MIB
    """JavaScript heap."""
    log_bytes: int = MIB
    """All log lines together, UTF-8."""
    result_bytes: int = 256 * KIB
    """Serialized response."""
    error_bytes: int = 64 * KIB
    """Serialized error."""
    stack_bytes: int = 8 * KIB
    """Stack text of an error, UTF-8."""
    host_calls_in_flight: int = 64
    """Host calls that are not answered yet."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The code of one version: text of modules by path, and the entry's path."""

    sha256: str
    entry: str
    files: Mapping[str, bytes]

    @classmethod
    def of_files(cls, files: Mapping[str, bytes], entry: str = "index.js") -> Bundle:
        """A bundle whose key is made from its content. For callers that have no canonical archive."""
        digest = hashlib.sha256(entry.encode())
        for path in sorted(files):
            digest.update(f"\0{path}\0{len(files[path])}\0".encode())
            digest.update(files[path])
        return cls(digest.hexdigest(), entry, dict(files))


@dataclass(frozen=True, slots=True)
class Job:
    """One activation to run."""

    tenant: str
    bundle: Bundle
    event: bytes = b"null"
    """First argument of the handler: UTF-8 JSON."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Plain values of the second argument. `attempt` also marks the log lines."""
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict)
    warm_key: str = ""
    """Empty: a fresh context. Otherwise the key of a version whose context is kept between its runs: all jobs of a
    tenant with this key have the same bundle, environment and privileges."""
    alone: bool = False
    """Whether its cell runs nothing else meanwhile: for a run that is repeated because it was a bystander."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an activation ended. Exactly one of `response` and `error` is set."""

    status: ActivationStatus.ValueType
    response: FunctionResponse | None
    error: InvocationError | None
    logs: Sequence[LogEntry]
    start: datetime
    end: datetime
    cold: bool = False
    """Whether the cell had not run this tenant before."""
    peak_memory: int = 0
    """Most bytes of JavaScript heap that were seen; 0 when not known."""
    bystander: bool = False
    """Whether another run of its cell is to blame for this error: the cell died, or its processor was not to be had.
    To be repeated with `Job.alone`, so that it cannot happen twice."""
    hogged: bool = False
    """Whether it kept the processor of its cell for so long that the cell is no place for others."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A fault that the engine found in the text of a module. Line and column count from 1; 0 when not known."""

    file: str
    line: int
    column: int
    message: str


class HostCalls(Protocol):
    """What performs the host calls of one activation. It checks the capabilities of the version."""

    async def call(self, method: str, arguments: list[Any]) -> Any:
        """Perform `method`, for example `kv.get`, and return a JSON value. Raises `HostCallError`."""
        ...


class DeniedHostCalls:
    """Denies every host call."""

    async def call(self, method: str, arguments: list[Any]) -> Any:  # noqa: ARG002
        """Raise `HostCallError` with CS_RUNTIME_CAPABILITY_DENIED."""
        raise HostCallError("CS_RUNTIME_CAPABILITY_DENIED", f"{method} is not among the capabilities of this version")
