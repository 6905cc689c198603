"""The retry policy: who is tried again, when, and when no more."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.runtime.v1.version_config_pb2 import RetryPolicy
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.attempt_pb2 import Lineage
from codesous.type.v1.invocation_error_pb2 import InvocationError
from codesous.type.v1.trigger_pb2 import ApiTrigger, CadenceTrigger, HttpTrigger, ScheduleTrigger, Trigger
from hypothesis import given
from hypothesis import strategies as st

from cs_core.clock import to_timestamp
from cs_invoker.retries import Verdict, judge, wait_before

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ASYNC = Trigger(api=ApiTrigger(asynchronous=True))
THREE = RetryPolicy(max_attempts=3)


def _request(trigger: Trigger = ASYNC, deadline: timedelta | None = None) -> InvocationRequest:
    return InvocationRequest(trigger=trigger, deadline=None if deadline is None else to_timestamp(NOW + deadline))


def _failed(reason: str = "CS_RUNTIME_EXCEPTION", status: str = "ERROR") -> InvocationResult:
    return InvocationResult(
        status=ActivationStatus.Value(f"ACTIVATION_STATUS_{status}"), error=InvocationError(reason=reason)
    )


def _judge(
    request: InvocationRequest, result: InvocationResult, policy: RetryPolicy = THREE, retries: int = 0
) -> Verdict:
    return judge(policy, request, result, retries=retries, now=NOW, source=random.Random(1))


@pytest.mark.parametrize(
    ("trigger", "kind"),
    [
        (ASYNC, "again"),
        (Trigger(schedule=ScheduleTrigger(schedule="s")), "again"),
        (Trigger(api=ApiTrigger()), "ends"),
        (Trigger(http=HttpTrigger()), "ends"),
        (Trigger(cadence=CadenceTrigger()), "ends"),
    ],
)
def test_only_what_nobody_waits_for_is_tried_again(trigger: Trigger, kind: str) -> None:
    assert _judge(_request(trigger), _failed()).kind == kind


def test_what_was_redriven_is_tried_again_whatever_caused_it_first() -> None:
    request = _request(Trigger(http=HttpTrigger()))
    request.redrive_of.CopyFrom(Lineage(dead_letter_id="1.x"))
    assert _judge(request, _failed()).kind == "again"


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (_failed("CS_RUNTIME_EXCEPTION"), "again"),
        (_failed("CS_RUNTIME_TIMEOUT", "TIMEOUT"), "again"),
        (_failed("CS_RUNTIME_MEMORY_LIMIT"), "again"),
        (_failed("CS_RUNTIME_CAPABILITY_DENIED"), "ends"),
        (_failed("CS_RUNTIME_BAD_RESPONSE"), "ends"),
        (_failed("CS_RUNTIME_CRASH"), "ends"),
        (_failed("CS_RUNTIME_CANCELLED", "CANCELLED"), "ends"),
        (_failed("", "SUCCESS"), "ends"),
    ],
)
def test_reasons_that_running_again_cannot_cure_are_not_tried_again(result: InvocationResult, kind: str) -> None:
    assert _judge(_request(), result).kind == kind


def test_a_policy_may_name_its_reasons() -> None:
    policy = RetryPolicy(max_attempts=2, reasons=["CS_RUNTIME_BAD_RESPONSE"])
    assert _judge(_request(), _failed("CS_RUNTIME_BAD_RESPONSE"), policy).kind == "again"
    assert _judge(_request(), _failed("CS_RUNTIME_EXCEPTION"), policy).kind == "ends"


@pytest.mark.parametrize(("retries", "kind"), [(0, "again"), (1, "again"), (2, "exhausted"), (9, "exhausted")])
def test_the_last_attempt_exhausts_the_policy(retries: int, kind: str) -> None:
    assert _judge(_request(), _failed(), retries=retries).kind == kind


def test_without_a_policy_nothing_is_tried_again_nor_given_up() -> None:
    assert _judge(_request(), _failed(), RetryPolicy()).kind == "ends"
    assert _judge(_request(), _failed(), RetryPolicy(max_attempts=1)).kind == "ends"


def test_a_run_that_would_begin_after_the_deadline_is_not_waited_for() -> None:
    assert _judge(_request(deadline=timedelta(seconds=2)), _failed()).kind == "again"
    assert _judge(_request(deadline=timedelta(milliseconds=400)), _failed()).kind == "exhausted"


@given(st.integers(0, 9), st.integers(100, 3_600_000), st.integers(100, 3_600_000), st.floats(1.0, 10.0))
def test_waits_grow_by_the_factor_up_to_the_longest_with_jitter(
    retries: int, first: int, longest: int, factor: float
) -> None:
    policy = RetryPolicy(max_attempts=10, multiplier=factor)
    policy.initial_backoff.FromMilliseconds(first)
    policy.max_backoff.FromMilliseconds(longest)
    step = min(first * factor**retries, longest) / 1000
    wait = wait_before(policy, retries, random.Random()).total_seconds()
    assert step * 0.5 - 0.001 <= wait <= step + 0.001
