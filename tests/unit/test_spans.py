"""Which traces are recorded, and what a span becomes on its way to a collector."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from cs_core.config import TelemetrySettings
from cs_core.telemetry.otlp import OtlpSpans
from cs_core.telemetry.spans import NoSpans, Span, Spans, new_child, open_spans, trace_starter
from cs_core.trace_context import TraceContext, new_trace
from tests.support.collector import Collector, running_collector

RECORDED = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
UNRECORDED = TraceContext(RECORDED.trace_id, RECORDED.span_id, 0)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


def opened(endpoint: str, ratio: float = 1.0) -> Spans:
    return open_spans(TelemetrySettings(otlp_endpoint=endpoint, sample_ratio=ratio), "cs-test", "test-1")


def test_without_a_collector_a_trace_is_handed_on_as_it_came() -> None:
    spans = opened("")
    assert isinstance(spans, NoSpans)
    assert spans.enter(RECORDED) is RECORDED
    assert not spans.records(RECORDED)
    assert not spans.enter(None).sampled


def test_a_callers_trace_is_recorded_if_the_caller_records_it(collector: Collector) -> None:
    spans = opened(collector.endpoint, ratio=0.0)
    own = spans.enter(RECORDED)
    assert (own.trace_id, own.sampled, spans.records(own)) == (RECORDED.trace_id, True, True)
    assert own.span_id != RECORDED.span_id
    assert spans.enter(UNRECORDED) is UNRECORDED
    assert not spans.records(UNRECORDED)
    spans.close()


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 100, 400), (1.0, 1000, 1000)])
def test_of_the_traces_that_begin_here_a_share_is_recorded(ratio: float, least: int, most: int) -> None:
    start = trace_starter(TelemetrySettings(otlp_endpoint="http://127.0.0.1:1", sample_ratio=ratio))
    assert least <= sum(start().sampled for _ in range(1000)) <= most
    assert not trace_starter(TelemetrySettings(sample_ratio=1.0))().sampled


def test_a_span_arrives_as_it_was(collector: Collector) -> None:
    spans = opened(collector.endpoint)
    trace, now = new_child(RECORDED), time.time_ns()
    spans.end(Span("done", "server", trace, RECORDED.span_id, now, now + 5, {"a": "b", "n": 1}))
    spans.end(Span("failed", "client", new_child(trace), trace.span_id, now, now + 5, {}, "CS_X"))
    spans.end(Span("first", "internal", new_trace(), "", now, now + 5))
    spans.close()
    done, failed, first = sorted(collector.told, key=lambda told: ("done", "failed", "first").index(told.span.name))
    assert (done.service, done.id, done.parent) == ("cs-test", trace.span_id, RECORDED.span_id)
    assert done.span.trace_id.hex() == RECORDED.trace_id
    assert (done.span.start_time_unix_nano, done.span.end_time_unix_nano) == (now, now + 5)
    assert done.span.kind == Sent.SpanKind.SPAN_KIND_SERVER
    assert {each.key for each in done.span.attributes} == {"a", "n"}
    assert done.span.status.code == Status.StatusCode.STATUS_CODE_UNSET
    assert (failed.span.status.code, failed.span.status.message) == (Status.StatusCode.STATUS_CODE_ERROR, "CS_X")
    assert (failed.parent, first.parent) == (trace.span_id, "")


def test_a_collector_that_is_away_holds_nobody_up() -> None:
    spans = OtlpSpans(TelemetrySettings(otlp_endpoint="http://127.0.0.1:1"), "cs-test", "test-1")
    began, now = time.perf_counter(), time.time_ns()
    for _ in range(5000):
        spans.end(Span("lost", "internal", RECORDED, "", now, now))
    # What is measured is that nothing waits: a connection that is refused, and tried again, takes seconds.
    assert time.perf_counter() - began < 5
    # Nor does its end: the SDK alone would wait 30 s. A thread that is left would go on trying.
    spans.close()
    assert time.perf_counter() - began < 15
    assert not [thread.name for thread in threading.enumerate() if "Span" in thread.name]
