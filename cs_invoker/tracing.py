"""The spans of an activation in the invoker: its processing, each run in it, and the host calls of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from cs_core.telemetry.spans import Span, Spans, Value, new_child
from cs_core.trace_context import TraceContext, parse

# The runs of the delivery that this task processes. Set only where they are recorded.
_runs: ContextVar[list[InvocationResult] | None] = ContextVar("codesous_runs", default=None)
_SUCCESS: Final = ActivationStatus.ACTIVATION_STATUS_SUCCESS


class Tracing:
    """Tells a collector of what was processed, once it is done."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    @contextmanager
    def processing(self, request: InvocationRequest) -> Iterator[None]:
        """Record a delivery. Within the block, the request's trace is that of the delivery's own span."""
        given = parse(request.traceparent, request.tracestate)
        if given is None or not self._spans.records(given):
            yield
            return
        trace, runs, start_ns = new_child(given), list[InvocationResult](), time.time_ns()
        request.traceparent = trace.traceparent
        token = _runs.set(runs)
        try:
            yield
        finally:
            _runs.reset(token)
            ref = request.function
            attributes: dict[str, Value] = {
                "messaging.system": "codeq",
                "messaging.operation.type": "process",
                "codesous.tenant": ref.tenant,
                "codesous.function": f"{ref.namespace}/{ref.function}",
                "codesous.version": ref.version,
                "codesous.activation_id": request.activation_id,
                "codesous.request_id": request.request_id,
            }
            self._spans.end(
                Span(
                    "cs.invoke process", "consumer", trace, _cause(request, given), start_ns, time.time_ns(), attributes
                )
            )
            for run in runs:
                self._tell(run, trace)

    def ran(self, result: InvocationResult) -> None:
        """Note how a run ended, in the block of its delivery."""
        runs = _runs.get()
        if runs is not None and result.HasField("start_time"):
            runs.append(result)

    def _tell(self, result: InvocationResult, parent: TraceContext) -> None:
        trace, start_ns = new_child(parent), result.start_time.ToNanoseconds()
        end_ns = max(result.end_time.ToNanoseconds(), start_ns)
        error = "" if result.status == _SUCCESS else result.error.reason
        attributes: dict[str, Value] = {"codesous.attempt": result.attempt}
        self._spans.end(Span("run", "internal", trace, parent.span_id, start_ns, end_ns, attributes, error))
        for call in result.host_calls:
            begun = start_ns + call.offset.ToNanoseconds()
            ended = begun + call.duration.ToNanoseconds() if call.HasField("duration") else max(end_ns, begun)
            self._spans.end(
                Span(f"cs.{call.method}", "client", new_child(trace), trace.span_id, begun, ended, {}, call.reason)
            )


def _cause(request: InvocationRequest, given: TraceContext) -> str:
    """The span that caused it. Ticks and redrives begin their traces, and have no span themselves."""
    begins = request.trigger.WhichOneof("kind") == "schedule" or request.HasField("redrive_of")
    return "" if begins else given.span_id
