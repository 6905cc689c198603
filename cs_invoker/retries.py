"""The retry policy of a version: whether a run that failed is followed by another, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from codesous.queue.v1.invocation_pb2 import InvocationRequest, InvocationResult
from codesous.runtime.v1.version_config_pb2 import RetryPolicy
from codesous.type.v1.activation_status_pb2 import ACTIVATION_STATUS_ERROR, ACTIVATION_STATUS_TIMEOUT

from .job import deadline_of

RETRYABLE = frozenset(
    {"CS_RUNTIME_EXCEPTION", "CS_RUNTIME_TIMEOUT", "CS_RUNTIME_MEMORY_LIMIT", "CS_RUNTIME_FETCH_FAILED"}
    | {"CS_STORE_UNAVAILABLE", "CS_CODEQ_UNAVAILABLE", "CS_SECRETS_UNAVAILABLE", "CS_RATE_LIMITED", "CS_QUEUE_FULL"}
)
"""Reasons that are retried when the policy names none: running again may help. A crash has its own limit."""
_FIRST, _LONGEST, _FACTOR = timedelta(seconds=1), timedelta(seconds=60), 2.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows a run. `ends`: nothing. `again`: another run after `wait`. `exhausted`: no more runs are left."""

    kind: Literal["ends", "again", "exhausted"]
    wait: timedelta = timedelta(0)


ENDS, EXHAUSTED = Verdict("ends"), Verdict("exhausted")


def nobody_waits(request: InvocationRequest) -> bool:
    """Whether no caller waits for the result, and no other system has a retry policy of its own for it."""
    kind = request.trigger.WhichOneof("kind")
    return kind == "schedule" or (kind == "api" and request.trigger.api.asynchronous) or request.HasField("redrive_of")


def judge(
    policy: RetryPolicy,
    request: InvocationRequest,
    result: InvocationResult,
    *,
    retries: int,
    now: datetime,
    source: random.Random,
) -> Verdict:
    """What follows a run that gave `result`, when `retries` runs failed before it."""
    if policy.max_attempts <= 1 or not nobody_waits(request):
        return ENDS
    if result.status not in (ACTIVATION_STATUS_ERROR, ACTIVATION_STATUS_TIMEOUT):
        return ENDS
    if result.error.reason not in (frozenset(policy.reasons) or RETRYABLE):
        return ENDS
    wait = wait_before(policy, retries, source)
    deadline = deadline_of(request)
    late = deadline is not None and now + wait >= deadline
    return EXHAUSTED if retries + 1 >= policy.max_attempts or late else Verdict("again", wait)


def wait_before(policy: RetryPolicy, retries: int, source: random.Random) -> timedelta:
    """The wait after the failure number `retries`, from 0: drawn evenly from half of the step to all of it."""
    first = policy.initial_backoff.ToTimedelta() if policy.HasField("initial_backoff") else _FIRST
    longest = policy.max_backoff.ToTimedelta() if policy.HasField("max_backoff") else _LONGEST
    step: timedelta = min(first * (policy.multiplier or _FACTOR) ** retries, longest)
    return step * source.uniform(0.5, 1.0)
