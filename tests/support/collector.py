"""A collector of spans: a real OTLP endpoint over gRPC that keeps what it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class Told:
    """A span, and the process that told of it."""

    service: str
    span: Span

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span."""

    endpoint: str = ""
    told: list[Told] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:
        for of_process in request.resource_spans:
            attributes = {each.key: each.value.string_value for each in of_process.resource.attributes}
            for scope in of_process.scope_spans:
                self.told += [Told(attributes["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace_id: str) -> list[Told]:
        """What was told of a trace, in the order of its start."""
        found = [told for told in list(self.told) if told.span.trace_id.hex() == trace_id]
        return sorted(found, key=lambda told: told.span.start_time_unix_nano)


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port of loopback."""
    server = grpc.server(ThreadPoolExecutor(2))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()
