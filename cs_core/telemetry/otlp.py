"""Spans sent to a collector by OTLP over gRPC, in batches, from a thread of the SDK."""

from __future__ import annotations

from importlib.metadata import version
from threading import Thread
from typing import Final

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cs_core.config import TelemetrySettings
from cs_core.telemetry.spans import Span, trace_starter
from cs_core.trace_context import TraceContext, new_span_id

_KINDS: Final = {
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
    "client": SpanKind.CLIENT,
    "internal": SpanKind.INTERNAL,
}
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
# Seconds that one request to the collector may take with its repetitions, and that a process that ends gives the last.
_PATIENCE: Final = 2.0


class OtlpSpans:
    """Sends spans of the traces that are recorded: those whose caller records them, and a share of those begun here.

    What a collector does not take in time is dropped by the SDK, oldest first; calls never wait for it.
    """

    def __init__(self, settings: TelemetrySettings, service: str, instance: str) -> None:
        self._start = trace_starter(settings)
        release = version("code-sous")
        self._resource = Resource.create(
            {"service.name": service, "service.instance.id": instance, "service.version": release}
        )
        self._scope = InstrumentationScope("code-sous", release)
        self._exporter = OTLPSpanExporter(
            endpoint=settings.otlp_endpoint, insecure=settings.otlp_endpoint.startswith("http://"), timeout=_PATIENCE
        )
        self._processor = BatchSpanProcessor(self._exporter, schedule_delay_millis=settings.export_interval * 1000)

    def enter(self, given: TraceContext | None) -> TraceContext:
        """See Spans."""
        if given is None:
            return self._start()
        return given.child(new_span_id()) if given.sampled else given

    def records(self, trace: TraceContext) -> bool:
        """See Spans."""
        return trace.sampled

    def end(self, span: Span) -> None:
        """See Spans."""
        trace_id = int(span.trace.trace_id, 16)
        self._processor.on_end(
            ReadableSpan(
                span.name,
                context=SpanContext(trace_id, int(span.trace.span_id, 16), is_remote=False, trace_flags=_SAMPLED),
                parent=SpanContext(trace_id, int(span.parent, 16), is_remote=True, trace_flags=_SAMPLED)
                if span.parent
                else None,
                resource=self._resource,
                attributes=dict(span.attributes),
                kind=_KINDS[span.kind],
                status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """See Spans."""
        # The SDK would wait 30 s for a collector that is away, which is longer than a process is given to end.
        last = Thread(target=self._processor.shutdown, daemon=True)
        last.start()
        last.join(_PATIENCE)
        if last.is_alive():
            self._exporter.shutdown()
            last.join(_PATIENCE)
