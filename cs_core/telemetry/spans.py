"""Spans: what a process tells a collector of the parts that it had in a trace.

Theory of operation. A process names its own span before it hands a trace on, and tells the span when it has ended, so
nothing is kept open and a process that dies loses only what it was doing. Without a collector there are no spans: the
trace's ids are handed on as they came, at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from cs_core.config import TelemetrySettings
from cs_core.trace_context import TraceContext, new_span_id, new_trace

Kind = Literal["server", "consumer", "client", "internal"]
Value = str | int | float | bool
_SHARE_BITS: Final = 56


@dataclass(frozen=True, slots=True)
class Span:
    """Something that has ended.

    Attributes:
        name: what it was, one of few.
        kind: its side of a call.
        trace: the trace, with this span's own id.
        parent: id of the span that caused it; empty for the first of a trace.
        start_ns: nanoseconds since the epoch.
        end_ns: nanoseconds since the epoch.
        attributes: what more is known of it.
        error: why it failed; empty: it did not.
    """

    name: str
    kind: Kind
    trace: TraceContext
    parent: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""


class Spans(Protocol):
    """Where spans go."""

    def enter(self, given: TraceContext | None) -> TraceContext:
        """The trace of what begins now, by the trace that it was given; its span id is its own when it is recorded."""
        ...

    def records(self, trace: TraceContext) -> bool:
        """Whether spans of the trace are wanted."""
        ...

    def end(self, span: Span) -> None:
        """Take a span that has ended. Must not raise, nor wait."""
        ...

    def close(self) -> None:
        """Send what is left, and wait for it."""
        ...


class NoSpans:
    """No collector: traces are handed on, and nothing is recorded here."""

    def enter(self, given: TraceContext | None) -> TraceContext:
        """See Spans."""
        return given or new_trace()

    def records(self, trace: TraceContext) -> bool:  # noqa: ARG002 - the protocol's shape
        """See Spans."""
        return False

    def end(self, span: Span) -> None:
        """See Spans."""

    def close(self) -> None:
        """See Spans."""


def trace_starter(settings: TelemetrySettings) -> Callable[[], TraceContext]:
    """What begins a trace here: recorded for the share that the settings ask for, when there is a collector.

    The share is decided by the trace's id, so that whoever looks at it decides alike.
    """
    below = int(settings.sample_ratio * 2**_SHARE_BITS) if settings.otlp_endpoint else 0

    def start() -> TraceContext:
        begun = new_trace()
        return begun.child(begun.span_id, sampled=int(begun.trace_id[-_SHARE_BITS // 4 :], 16) < below)

    return start


def open_spans(settings: TelemetrySettings, service: str, instance: str) -> Spans:
    """Open what the settings name."""
    if not settings.otlp_endpoint:
        return NoSpans()
    # Only here: the exporter takes megabytes and a thread of its own.
    from cs_core.telemetry.otlp import OtlpSpans  # noqa: PLC0415

    return OtlpSpans(settings, service, instance)


def new_child(parent: TraceContext) -> TraceContext:
    """The trace of a span that `parent` causes."""
    return parent.child(new_span_id())
