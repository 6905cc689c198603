"""One activity of a run: its attempts, each with its timeouts, and the one answer that each takes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cadence.api.v1.common_pb2 import Failure, Payload
from cadence.api.v1.decision_pb2 import ScheduleActivityTaskDecisionAttributes
from cadence.api.v1.service_worker_pb2 import PollForActivityTaskResponse
from cadence.api.v1.workflow_pb2 import TimeoutType
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

_START_TO_CLOSE = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
_SCHEDULE_TO_START = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_START
_SCHEDULE_TO_CLOSE = TimeoutType.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
_HEARTBEAT = TimeoutType.TIMEOUT_TYPE_HEARTBEAT
_NAMES = {_START_TO_CLOSE: "START_TO_CLOSE", _HEARTBEAT: "HEARTBEAT", _SCHEDULE_TO_START: "SCHEDULE_TO_START"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an activity ended: the event that tells so, without the numbers of the events before it."""

    kind: str
    fields: dict[str, Any]


class Activity:
    """An activity that was scheduled and has not ended.

    Args:
        attributes: the decision that scheduled it.
        names: domain, workflow id, run id and workflow type.
        scheduled_id: number of the event that scheduled it.
        offer: puts this activity into its task list.
        end: called once, with how it ended.
    """

    def __init__(
        self,
        attributes: ScheduleActivityTaskDecisionAttributes,
        names: tuple[str, str, str, str],
        scheduled_id: int,
        offer: Callable[[Activity], None],
        end: Callable[[Activity, Outcome], None],
    ) -> None:
        self.attributes = attributes
        self.scheduled_id = scheduled_id
        self.attempt = 0
        self.identity = ""
        self.last_failure: Failure | None = None
        self.cancel_requested = False
        self.ended = False
        self.started = False
        self._names = names
        self._offer = offer
        self._end = end
        self._details = Payload()
        self._scheduled = self._scheduled_first = time.time()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._retry: asyncio.TimerHandle | None = None

    @property
    def token(self) -> bytes:
        """Names the present attempt."""
        _, workflow_id, run_id, _ = self._names
        parts = {"w": workflow_id, "r": run_id, "s": self.scheduled_id, "a": self.attempt}
        return json.dumps(parts).encode()

    def schedule(self) -> None:
        """Offer the present attempt to pollers."""
        self._scheduled = time.time()
        self.started = False
        if self.attempt == 0:
            self._time(_SCHEDULE_TO_CLOSE, self.attributes.schedule_to_close_timeout)
        self._time(_SCHEDULE_TO_START, self.attributes.schedule_to_start_timeout)
        self._offer(self)

    def start(self, identity: str) -> PollForActivityTaskResponse:
        """Begin the present attempt: what the poll answers."""
        self.started, self.identity = True, identity
        self._stop_timer(_SCHEDULE_TO_START)
        self._time(_START_TO_CLOSE, self.attributes.start_to_close_timeout)
        self._time(_HEARTBEAT, self.attributes.heartbeat_timeout)
        domain, workflow_id, run_id, workflow_type = self._names
        task = PollForActivityTaskResponse(
            task_token=self.token,
            activity_id=self.attributes.activity_id,
            activity_type=self.attributes.activity_type,
            input=self.attributes.input,
            scheduled_time=_stamp(self._scheduled_first),
            scheduled_time_of_this_attempt=_stamp(self._scheduled),
            started_time=_stamp(time.time()),
            schedule_to_close_timeout=self.attributes.schedule_to_close_timeout,
            start_to_close_timeout=self.attributes.start_to_close_timeout,
            heartbeat_timeout=self.attributes.heartbeat_timeout,
            attempt=self.attempt,
            heartbeat_details=self._details,
            workflow_domain=domain,
        )
        task.workflow_execution.workflow_id = workflow_id
        task.workflow_execution.run_id = run_id
        task.workflow_type.name = workflow_type
        return task

    def beat(self, details: Payload) -> bool:
        """Take a heartbeat; returns whether a cancel is asked for."""
        self._details = details
        self._time(_HEARTBEAT, self.attributes.heartbeat_timeout)
        return self.cancel_requested

    def complete(self, result: Payload) -> None:
        """Take the answer of the present attempt."""
        self._close(Outcome("activity_task_completed", {"result": result}))

    def fail(self, failure: Failure) -> None:
        """Take the failure of the present attempt: another attempt follows, or this is the end."""
        if not self._again(failure):
            self._close(Outcome("activity_task_failed", {"failure": failure}))

    def cancel(self, details: Payload) -> None:
        """Take the answer that it was cancelled."""
        self._close(Outcome("activity_task_canceled", {"details": details}))

    def stop(self) -> None:
        """Forget it: its run has ended."""
        self.ended = True
        for timer in self._timers.values():
            timer.cancel()
        if self._retry is not None:
            self._retry.cancel()

    def _close(self, outcome: Outcome) -> None:
        self.stop()
        self._end(self, outcome)

    def _again(self, failure: Failure) -> bool:
        if not self.attributes.HasField("retry_policy") or self.cancel_requested:
            return False
        policy = self.attributes.retry_policy
        if failure.reason in policy.non_retryable_error_reasons:
            return False
        if policy.maximum_attempts and self.attempt + 1 >= policy.maximum_attempts:
            return False
        wait: timedelta = policy.initial_interval.ToTimedelta() * (policy.backoff_coefficient or 2.0) ** self.attempt
        if policy.HasField("maximum_interval"):
            wait = min(wait, policy.maximum_interval.ToTimedelta())
        expiration = policy.expiration_interval.ToTimedelta().total_seconds()
        if expiration and time.time() + wait.total_seconds() > self._scheduled_first + expiration:
            return False
        for kind in (_START_TO_CLOSE, _HEARTBEAT, _SCHEDULE_TO_START):
            self._stop_timer(kind)
        self.last_failure = failure
        self.attempt += 1
        self.started = False
        self._retry = asyncio.get_running_loop().call_later(wait.total_seconds(), self.schedule)
        return True

    def _time(self, kind: int, limit: Duration) -> None:
        self._stop_timer(kind)
        seconds = limit.ToTimedelta().total_seconds()
        if seconds > 0:
            self._timers[kind] = asyncio.get_running_loop().call_later(seconds, self._time_out, kind)

    def _stop_timer(self, kind: int) -> None:
        timer = self._timers.pop(kind, None)
        if timer is not None:
            timer.cancel()

    def _time_out(self, kind: int) -> None:
        if kind in (_START_TO_CLOSE, _HEARTBEAT) and self._again(
            Failure(reason=f"cadenceInternal:Timeout {_NAMES[kind]}")
        ):
            return
        self._close(Outcome("activity_task_timed_out", {"timeout_type": kind, "details": self._details}))


def _stamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(int(seconds * 1e9))
    return stamp
