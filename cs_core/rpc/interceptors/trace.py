"""Gives every call its trace: the caller's, or a new one; and tells the collector of the call."""

from __future__ import annotations

import time

import grpc
import structlog

from cs_core import trace_context
from cs_core.errors import CodeSousError
from cs_core.rpc.context import Passive, RequestContext
from cs_core.telemetry.spans import Span, Spans


class Trace(Passive):
    """Reads the trace context, binds the trace's id to every log line of the call, and tells the caller."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def begin(self, call: RequestContext) -> None:
        """Take the caller's trace, or begin one."""
        call.caused_by = trace_context.from_metadata(call.metadata)
        call.trace = self._spans.enter(call.caused_by)
        call.answer_header(trace_context.TRACERESPONSE, call.trace.traceparent)
        structlog.contextvars.bind_contextvars(trace_id=call.trace.trace_id)

    def end(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:
        """Tell the collector of the call, if its trace is recorded."""
        if not self._spans.records(call.trace):
            return
        service, _, method = call.method.lstrip("/").partition("/")
        end_ns = time.time_ns()
        self._spans.end(
            Span(
                name=call.method.lstrip("/"),
                kind="server",
                trace=call.trace,
                parent=call.caused_by.span_id if call.caused_by is not None else "",
                start_ns=end_ns - int((time.perf_counter() - call.started) * 1e9),
                end_ns=end_ns,
                attributes={
                    "rpc.system": "grpc",
                    "rpc.service": service,
                    "rpc.method": method,
                    "rpc.grpc.status_code": code.value[0],
                    "codesous.tenant": call.tenant,
                    "codesous.request_id": call.request_id,
                },
                # The callers' faults are theirs: a span that failed is one that this process failed.
                error=error.reason if error is not None and code in _OURS else "",
            )
        )


_OURS = (
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
