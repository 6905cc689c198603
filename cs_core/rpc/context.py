"""The call that is being served, and what an interceptor may do around it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from codesous.type.v1.principal_pb2 import Principal

from cs_core.errors import CodeSousError
from cs_core.iam.access import MethodRule
from cs_core.trace_context import NO_TRACE, TraceContext

# The proxy gives a transcoded answer this status and removes the header.
HTTP_STATUS: Final = "x-cs-http-status"
if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext
Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class RequestContext:
    """One call. `tenant` and `principal` are set once the caller is authenticated and authorised."""

    method: str
    metadata: Metadata
    peer: str = ""
    rule: MethodRule | None = None
    request_id: str = ""
    trace: TraceContext = NO_TRACE
    # What the caller gave: the span that caused the call.
    caused_by: TraceContext | None = None
    tenant: str = ""
    principal: Principal | None = None
    # Initial metadata of the answer. The chain sends it before the response, or before a stream's first message.
    headers: list[tuple[str, str | bytes]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def header(self, name: str) -> str:
        """Tell the value of a metadata entry that is text, the first one; empty when there is none."""
        for key, value in self.metadata:
            if key == name and isinstance(value, str):
                return value
        return ""

    def header_values(self, name: str) -> list[str | bytes]:
        """Tell every value of a metadata entry."""
        return [value for key, value in self.metadata if key == name]

    def answer_header(self, name: str, value: str | bytes) -> None:
        """Add to the initial metadata of the answer."""
        self.headers.append((name, value))

    def answer_status(self, status: int) -> None:
        """Choose the HTTP status of the transcoded answer; without it, it is 200."""
        self.answer_header(HTTP_STATUS, str(status))

    @property
    def caller(self) -> Principal:
        """The authenticated caller. Raises RuntimeError on a call that needs none."""
        if self.principal is None:
            raise RuntimeError("the call has no authenticated caller")
        return self.principal


class Interceptor(Protocol):
    """One concern around every call. Hooks that are not needed are inherited from `Passive`."""

    def begin(self, call: RequestContext) -> Awaitable[None] | None:
        """Look at a call before its request is decoded; raise to refuse it. Answers None when nothing has to wait."""
        ...

    def check(self, call: RequestContext, request: Any) -> None:
        """Look at the decoded request; raise to refuse it."""
        ...

    def during(self, call: RequestContext) -> Awaitable[None] | None:
        """Look at a stream before each of its messages; raise to end it. Answers None when nothing has to wait."""
        ...

    def end(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:
        """See how the call ended. Must not raise."""
        ...


class Passive:
    """An interceptor that does nothing; the hooks of others start from it."""

    def begin(self, call: RequestContext) -> Awaitable[None] | None:
        """Let the call pass."""

    def check(self, call: RequestContext, request: Any) -> None:
        """Let the request pass."""

    def during(self, call: RequestContext) -> Awaitable[None] | None:
        """Let the stream go on."""

    def end(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:
        """Take no notice."""


_current: ContextVar[RequestContext] = ContextVar("codesous_call")


def current() -> RequestContext:
    """The call that this task serves. Raises LookupError outside a call."""
    return _current.get()


def enter(call: RequestContext) -> None:
    """Make `call` the current one of this task. gRPC serves each call in a task of its own, so none is restored."""
    _current.set(call)
