"""Gives every call its trace: the caller's, or a new one."""

from __future__ import annotations

import structlog

from cs_core import trace_context
from cs_core.rpc.context import Passive, RequestContext


class Trace(Passive):
    """Reads the trace context, binds the trace's id to every log line of the call, and tells the caller."""

    def begin(self, call: RequestContext) -> None:
        """Take the caller's trace, or begin one."""
        call.trace = trace_context.from_metadata(call.metadata) or trace_context.new_trace()
        call.answer_header(trace_context.TRACERESPONSE, call.trace.traceparent)
        structlog.contextvars.bind_contextvars(trace_id=call.trace.trace_id)
