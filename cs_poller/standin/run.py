"""One run of a workflow: its history, its activities, and the decisions that whoever polls for them makes.

A decision is asked for when something happened. What happens while one is being made is told after it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from cadence.api.v1.decision_pb2 import Decision, ScheduleActivityTaskDecisionAttributes
from cadence.api.v1.service_worker_pb2 import PollForDecisionTaskResponse
from cadence.api.v1.service_workflow_pb2 import StartWorkflowExecutionRequest
from cadence.api.v1.workflow_pb2 import TimeoutType

from .activity import Activity, Outcome
from .history import History
from .refusals import bad, not_there

_START_TO_CLOSE = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE


class Run:
    """A workflow execution.

    Args:
        request: what started it.
        offer_decision: puts this run into the task list of its decisions.
        offer_activity: puts an activity of it into the activity's task list.
    """

    def __init__(
        self,
        request: StartWorkflowExecutionRequest,
        offer_decision: Callable[[Run], None],
        offer_activity: Callable[[Activity], None],
    ) -> None:
        self.request = request
        self.run_id = str(uuid4())
        self.history = History()
        self.activities: dict[int, Activity] = {}
        self._offer_decision = offer_decision
        self._offer_activity = offer_activity
        self._decision = 0
        self._scheduled_id = 0
        self._started_id = 0
        self._told = 0
        self._later: list[Callable[[], Any]] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._patience: asyncio.TimerHandle | None = None
        self.history.add(
            "workflow_execution_started",
            workflow_type=request.workflow_type,
            task_list=request.task_list,
            input=request.input,
            execution_start_to_close_timeout=request.execution_start_to_close_timeout,
            task_start_to_close_timeout=request.task_start_to_close_timeout,
            original_execution_run_id=self.run_id,
            identity=request.identity,
        )
        if limit := request.execution_start_to_close_timeout.ToTimedelta().total_seconds():
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(limit, self._close, "timed_out", {"timeout_type": _START_TO_CLOSE}))
        self._ask()

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.history.closed

    @property
    def token(self) -> bytes:
        """Names the decision that is asked for."""
        return json.dumps({"w": self.request.workflow_id, "r": self.run_id, "d": self._decision}).encode()

    def start_decision(self, identity: str) -> PollForDecisionTaskResponse:
        """Begin the decision that was asked for: what the poll answers."""
        self._started_id = self.history.add(
            "decision_task_started", scheduled_event_id=self._scheduled_id, identity=identity
        )
        patience = self.request.task_start_to_close_timeout.ToTimedelta().total_seconds() or 10.0
        self._patience = asyncio.get_running_loop().call_later(patience, self.fail_decision, None)
        task = PollForDecisionTaskResponse(
            task_token=self.token,
            workflow_type=self.request.workflow_type,
            started_event_id=self._started_id,
            next_event_id=len(self.history.events) + 1,
            workflow_execution_task_list=self.request.task_list,
        )
        task.workflow_execution.workflow_id = self.request.workflow_id
        task.workflow_execution.run_id = self.run_id
        if self._told:
            task.previous_started_event_id.value = self._told
        task.history.events.extend(self.history.events)
        return task

    def decide(self, token: bytes, decisions: list[Decision], identity: str) -> None:
        """Take the decisions that were asked for."""
        self._end_decision(token)
        completed = self.history.add(
            "decision_task_completed",
            scheduled_event_id=self._scheduled_id,
            started_event_id=self._started_id,
            identity=identity,
        )
        self._told, self._started_id = self._started_id, 0
        for decision in decisions:
            self._apply(decision, completed)
        self._go_on()

    def fail_decision(self, token: bytes | None) -> None:
        """Ask again: the decision failed, or (without a token) did not come in time."""
        if token is not None:
            self._end_decision(token)
            kind = "decision_task_failed"
        else:
            kind = "decision_task_timed_out"
        self.history.add(kind, scheduled_event_id=self._scheduled_id, started_event_id=self._started_id)
        self._started_id = 0
        self._go_on()
        self._ask()

    def request_cancel(self, identity: str, cause: str) -> None:
        """Ask the workflow to cancel itself."""
        self._tell(lambda: self.history.add("workflow_execution_cancel_requested", identity=identity, cause=cause))

    def terminate(self, reason: str, identity: str) -> None:
        """End it now."""
        self._close("terminated", {"reason": reason, "identity": identity})

    def find_activity(self, scheduled_id: int, attempt: int) -> Activity:
        """The activity whose attempt goes on. Raises RefusalError when it does not (any more)."""
        activity = self.activities.get(scheduled_id)
        if self.closed or activity is None or not activity.started or activity.attempt != attempt:
            raise not_there("activity task not found: it was answered, timed out, or its workflow has ended")
        return activity

    def _ask(self) -> None:
        """Ask for a decision, unless one is asked for already."""
        if self.closed or self._scheduled_id:
            return
        self._decision += 1
        self._scheduled_id = self.history.add(
            "decision_task_scheduled",
            task_list=self.request.task_list,
            start_to_close_timeout=self.request.task_start_to_close_timeout,
        )
        self._offer_decision(self)

    def _tell(self, happened: Callable[[], Any]) -> None:
        if self._started_id:
            self._later.append(happened)
        elif not self.closed:
            happened()
            self._ask()

    def _end_decision(self, token: bytes) -> None:
        if self.closed or not self._started_id or token != self.token:
            raise not_there("decision task not found")
        if self._patience is not None:
            self._patience.cancel()

    def _go_on(self) -> None:
        self._scheduled_id = 0
        later, self._later = self._later, []
        for happened in later:
            self._tell(happened)

    def _apply(self, decision: Decision, completed: int) -> None:
        match decision.WhichOneof("attributes"):
            case "schedule_activity_task_decision_attributes":
                self._schedule(decision.schedule_activity_task_decision_attributes, completed)
            case "request_cancel_activity_task_decision_attributes":
                self._cancel_activity(decision.request_cancel_activity_task_decision_attributes.activity_id, completed)
            case "complete_workflow_execution_decision_attributes":
                result = decision.complete_workflow_execution_decision_attributes.result
                self._close("completed", {"result": result, "decision_task_completed_event_id": completed})
            case "fail_workflow_execution_decision_attributes":
                failure = decision.fail_workflow_execution_decision_attributes.failure
                self._close("failed", {"failure": failure, "decision_task_completed_event_id": completed})
            case "cancel_workflow_execution_decision_attributes":
                details = decision.cancel_workflow_execution_decision_attributes.details
                self._close("canceled", {"details": details, "decision_task_completed_event_id": completed})
            case other:
                raise bad(f"the stand-in knows no decision {other}")

    def _schedule(self, attributes: ScheduleActivityTaskDecisionAttributes, completed: int) -> None:
        if any(activity.attributes.activity_id == attributes.activity_id for activity in self.activities.values()):
            raise bad(f"activity id {attributes.activity_id} is in use")
        fields = {
            name: getattr(attributes, name)
            for name in ("schedule_to_close_timeout", "schedule_to_start_timeout", "heartbeat_timeout", "retry_policy")
            if attributes.HasField(name)
        }
        scheduled_id = self.history.add(
            "activity_task_scheduled",
            activity_id=attributes.activity_id,
            activity_type=attributes.activity_type,
            task_list=attributes.task_list,
            input=attributes.input,
            start_to_close_timeout=attributes.start_to_close_timeout,
            decision_task_completed_event_id=completed,
            **fields,
        )
        names = (self.request.domain, self.request.workflow_id, self.run_id, self.request.workflow_type.name)
        activity = Activity(attributes, names, scheduled_id, self._offer_activity, self._end_activity)
        self.activities[scheduled_id] = activity
        activity.schedule()

    def _cancel_activity(self, activity_id: str, completed: int) -> None:
        for activity in list(self.activities.values()):
            if activity.attributes.activity_id == activity_id:
                self.history.add(
                    "activity_task_cancel_requested",
                    activity_id=activity_id,
                    decision_task_completed_event_id=completed,
                )
                activity.cancel_requested = True
                if not activity.started:
                    activity.stop()
                    self._end_activity(activity, Outcome("activity_task_canceled", {}))

    def _end_activity(self, activity: Activity, outcome: Outcome) -> None:
        self.activities.pop(activity.scheduled_id, None)

        def happened() -> None:
            fields = dict(outcome.fields)
            if activity.identity:
                fields["started_event_id"] = self.history.add(
                    "activity_task_started",
                    scheduled_event_id=activity.scheduled_id,
                    identity=activity.identity,
                    attempt=activity.attempt,
                    last_failure=activity.last_failure,
                )
            if outcome.kind != "activity_task_timed_out":
                fields["identity"] = activity.identity
            self.history.add(outcome.kind, scheduled_event_id=activity.scheduled_id, **fields)

        self._tell(happened)

    def _close(self, how: str, fields: dict[str, Any]) -> None:
        if self.closed:
            return
        for activity in self.activities.values():
            activity.stop()
        self.activities.clear()
        for timer in (*self._timers, *([self._patience] if self._patience else [])):
            timer.cancel()
        self.history.add(f"workflow_execution_{how}", **fields)
