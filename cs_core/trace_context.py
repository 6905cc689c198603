"""The W3C trace context: reading it from a caller, and writing it for whoever is called next.

Source of the rules: W3C Recommendation "Trace Context" (level 1). What breaks one of them is taken for absent, never
for an error: a trace is lost then, and no call.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
TRACERESPONSE: Final = "traceresponse"
SAMPLED: Final = 0x01
STATE_CHARS: Final = 512
"""Characters of a `tracestate` that are handed on; the rules ask for at least these. A longer one is dropped whole."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Which trace something belongs to, and the span that caused it.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        flags: bit 0 says that the caller records the trace.
        state: what tracing systems add, as they wrote it; may be empty.
    """

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header of it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    @property
    def sampled(self) -> bool:
        """Whether whoever began the trace records it."""
        return bool(self.flags & SAMPLED)

    def child(self, span_id: str, *, sampled: bool | None = None) -> TraceContext:
        """The same trace, caused by another span; `sampled` when that span's process decided anew."""
        flags = self.flags if sampled is None else (self.flags & ~SAMPLED) | sampled
        return TraceContext(self.trace_id, span_id, flags, self.state)


NO_TRACE: Final = TraceContext(_NO_TRACE, _NO_SPAN)
"""Of what belongs to no trace yet."""


def new_trace() -> TraceContext:
    """Begin a trace: random ids, not sampled."""
    digits = os.urandom(24).hex()
    return TraceContext(digits[:32], digits[32:])


def new_span_id() -> str:
    """Make the id of a span: 16 random hexadecimal digits."""
    return os.urandom(8).hex()


def parse(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Read the two headers; None when there is no valid `traceparent`."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    # Later versions may add to the end; this one may not, and `ff` is none.
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & SAMPLED, _state(tracestate))


def trace_id_of(traceparent: str) -> str:
    """The trace's id in a `traceparent` that the platform wrote; empty for an empty one."""
    return traceparent[3:35]


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """Read it from the headers of a call; None when there is none, or more than one."""
    parents, states = [], []
    for name, value in metadata:
        if name == TRACEPARENT:
            parents.append(value)
        elif name == TRACESTATE:
            states.append(value)
    if len(parents) != 1 or not isinstance(parents[0], str):
        return None
    return parse(parents[0], ",".join(state for state in states if isinstance(state, str)))


def _state(tracestate: str) -> str:
    return tracestate if len(tracestate) <= STATE_CHARS and tracestate.isascii() and tracestate.isprintable() else ""
