"""The W3C trace context: what is read, what is taken for absent, what is written."""

from __future__ import annotations

import pytest

from cs_core.trace_context import STATE_CHARS, TraceContext, from_metadata, new_span_id, new_trace, parse, trace_id_of

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE_ID}-{SPAN_ID}-01"


def test_what_a_caller_gave_is_read_and_written_the_same() -> None:
    read = parse(GIVEN, "vendor=1,other=2")
    assert read == TraceContext(TRACE_ID, SPAN_ID, 1, "vendor=1,other=2")
    assert (read.traceparent, read.sampled, trace_id_of(read.traceparent)) == (GIVEN, True, TRACE_ID)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "0",
        GIVEN.upper(),
        GIVEN[:-1],
        GIVEN + "0",
        GIVEN + "-more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0g",
        f"00_{TRACE_ID}_{SPAN_ID}_01",
        f" {GIVEN}",
        f"{GIVEN}\n",
        "00-\N{ARABIC-INDIC DIGIT ONE}" + GIVEN[4:],
    ],
)
def test_what_breaks_a_rule_is_taken_for_absent(bad: str) -> None:
    assert parse(bad) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse(f"01-{TRACE_ID}-{SPAN_ID}-ff-more") == TraceContext(TRACE_ID, SPAN_ID, 1)
    assert parse(f"cc-{TRACE_ID}-{SPAN_ID}-02") == TraceContext(TRACE_ID, SPAN_ID, 0)


@pytest.mark.parametrize("state", ["a" * (STATE_CHARS + 1), "a=\u00e9", "a=\x01"])
def test_a_state_that_cannot_be_handed_on_is_dropped_and_the_trace_kept(state: str) -> None:
    assert parse(GIVEN, state) == TraceContext(TRACE_ID, SPAN_ID, 1)
    assert parse(GIVEN, "a" * STATE_CHARS) == TraceContext(TRACE_ID, SPAN_ID, 1, "a" * STATE_CHARS)


def test_two_parents_are_none_and_states_are_joined() -> None:
    one, other = ("traceparent", GIVEN), ("traceparent", new_trace().traceparent)
    assert from_metadata([("x", "y"), one]) == parse(GIVEN)
    assert from_metadata([one, ("tracestate", "a=1"), ("tracestate", "b=2")]) == parse(GIVEN, "a=1,b=2")
    assert from_metadata([one, other]) is None
    assert from_metadata([("traceparent", GIVEN.encode())]) is None
    assert from_metadata([("tracestate", "a=1")]) is None


def test_a_new_trace_is_valid_and_its_own() -> None:
    one, other = new_trace(), new_trace()
    assert parse(one.traceparent) == one != other
    assert not one.sampled


def test_a_child_is_of_the_same_trace() -> None:
    parent = TraceContext(TRACE_ID, SPAN_ID, 1, "a=1")
    span_id = new_span_id()
    assert parent.child(span_id) == TraceContext(TRACE_ID, span_id, 1, "a=1")
    assert parent.child(span_id, sampled=False) == TraceContext(TRACE_ID, span_id, 0, "a=1")
    assert TraceContext(TRACE_ID, SPAN_ID).child(span_id, sampled=True).sampled
