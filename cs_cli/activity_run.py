"""Running one activity through Cadence: a workflow whose only decision is that activity, made from here.

Everything goes through Cadence's public API, so it runs against a server of any kind. The workflow's task list has a
name of its own: nobody else decides for it, and when this process dies the workflow times out.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from cadence.api.v1 import service_worker_pb2 as worker_pb
from cadence.api.v1 import service_workflow_pb2 as workflow_pb
from cadence.api.v1.common_pb2 import ActivityType, Payload, RetryPolicy, WorkflowExecution, WorkflowType
from cadence.api.v1.decision_pb2 import Decision
from cadence.api.v1.history_pb2 import HistoryEvent
from cadence.api.v1.tasklist_pb2 import TaskList
from cadence.api.v1.workflow_pb2 import TimeoutType

from cs_core.rpc.cadence import CadenceConnection

_CALL: Final = 10.0
_POLL: Final = 20.0
_DECISION: Final = timedelta(seconds=10)
_WORKFLOW_TYPE: Final = "cs-run-activity"
_TIMEOUTS: Final = "TIMEOUT_TYPE_"


@dataclass(frozen=True, slots=True)
class ActivityCall:
    """What to run, where, and how long it may take."""

    domain: str
    task_list: str
    activity: str
    data: bytes = b""
    timeout: timedelta = timedelta(seconds=60)
    """From an attempt's start to its end, and for each wait for a worker."""
    heartbeat_timeout: timedelta = timedelta(0)
    """Longest silence of a worker; zero: none is expected."""
    retry: RetryPolicy | None = None


@dataclass(frozen=True, slots=True)
class ActivityEnd:
    """How it ended. `how`: completed, failed, timed_out, canceled; `reason` of a failure, or the kind of a timeout."""

    how: str
    data: bytes = b""
    reason: str = ""
    attempt: int = 0


@dataclass(slots=True)
class ActivityRun:
    """One activity on its way."""

    cadence: CadenceConnection
    call: ActivityCall
    workflow_id: str = field(default_factory=lambda: f"cs-run-{uuid4()}")
    run_id: str = ""

    async def start(self) -> None:
        """Start the workflow. Raises CadenceRefusedError or UnavailableError."""
        request = workflow_pb.StartWorkflowExecutionRequest(
            domain=self.call.domain,
            workflow_id=self.workflow_id,
            workflow_type=WorkflowType(name=_WORKFLOW_TYPE),
            task_list=TaskList(name=self.workflow_id),
            identity="cs",
            request_id=str(uuid4()),
            workflow_id_reuse_policy="WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE",
        )
        request.execution_start_to_close_timeout.FromTimedelta(self._longest())
        request.task_start_to_close_timeout.FromTimedelta(_DECISION)
        answer = await self.cadence.call(self.cadence.workflows.StartWorkflowExecution, request, _CALL)
        self.run_id = answer.run_id

    async def cancel(self) -> None:
        """Ask Cadence to cancel it. Raises CadenceRefusedError or UnavailableError."""
        request = workflow_pb.RequestCancelWorkflowExecutionRequest(
            domain=self.call.domain,
            workflow_execution=WorkflowExecution(workflow_id=self.workflow_id, run_id=self.run_id),
            identity="cs",
            request_id=str(uuid4()),
        )
        await self.cadence.call(self.cadence.workflows.RequestCancelWorkflowExecution, request, _CALL)

    async def finish(self) -> ActivityEnd:
        """Make the workflow's decisions until the activity has ended.

        Raises:
            CadenceRefusedError: the workflow is gone.
            UnavailableError: the server does not answer.
            TimeoutError: it did not end in its time.
        """
        async with asyncio.timeout(self._longest().total_seconds()):
            while True:
                request = worker_pb.PollForDecisionTaskRequest(
                    domain=self.call.domain, task_list=TaskList(name=self.workflow_id), identity="cs"
                )
                task = await self.cadence.call(self.cadence.workers.PollForDecisionTask, request, _POLL)
                if not task.task_token:
                    continue
                end = _end_of(task.history.events)
                await self._decide(task.task_token, self._decisions(task.history.events, end))
                if end is not None:
                    return end

    def _longest(self) -> timedelta:
        attempts = self.call.retry.maximum_attempts if self.call.retry is not None else 1
        return self.call.timeout * (2 * max(attempts, 1)) + timedelta(seconds=60)

    async def _decide(self, token: bytes, decisions: list[Decision]) -> None:
        request = worker_pb.RespondDecisionTaskCompletedRequest(task_token=token, decisions=decisions, identity="cs")
        await self.cadence.call(self.cadence.workers.RespondDecisionTaskCompleted, request, _CALL)

    def _decisions(self, events: Any, end: ActivityEnd | None) -> list[Decision]:
        kinds = [event.WhichOneof("attributes") for event in events]
        decision = Decision()
        if end is not None:
            self._close(decision, end)
            return [decision]
        if "activity_task_scheduled_event_attributes" not in kinds:
            self._schedule(decision)
            return [decision]
        asked = "workflow_execution_cancel_requested_event_attributes" in kinds
        if asked and "activity_task_cancel_requested_event_attributes" not in kinds:
            decision.request_cancel_activity_task_decision_attributes.activity_id = "1"
            return [decision]
        return []

    def _schedule(self, decision: Decision) -> None:
        wanted = decision.schedule_activity_task_decision_attributes
        wanted.activity_id = "1"
        wanted.activity_type.CopyFrom(ActivityType(name=self.call.activity))
        wanted.domain = self.call.domain
        wanted.task_list.name = self.call.task_list
        wanted.input.CopyFrom(Payload(data=self.call.data))
        wanted.schedule_to_close_timeout.FromTimedelta(self._longest() - timedelta(seconds=30))
        wanted.schedule_to_start_timeout.FromTimedelta(self.call.timeout)
        wanted.start_to_close_timeout.FromTimedelta(self.call.timeout)
        wanted.heartbeat_timeout.FromTimedelta(self.call.heartbeat_timeout)
        if self.call.retry is not None:
            wanted.retry_policy.CopyFrom(self.call.retry)

    def _close(self, decision: Decision, end: ActivityEnd) -> None:
        match end.how:
            case "completed":
                decision.complete_workflow_execution_decision_attributes.result.data = end.data
            case "canceled":
                decision.cancel_workflow_execution_decision_attributes.details.data = end.data
            case _:
                failure = decision.fail_workflow_execution_decision_attributes.failure
                failure.reason, failure.details = end.reason or end.how, end.data


def _end_of(events: Any) -> ActivityEnd | None:
    attempt = 0
    for event in events:
        if event.WhichOneof("attributes") == "activity_task_started_event_attributes":
            attempt = event.activity_task_started_event_attributes.attempt
        end = _read(event, attempt)
        if end is not None:
            return end
    return None


def _read(event: HistoryEvent, attempt: int) -> ActivityEnd | None:
    match event.WhichOneof("attributes"):
        case "activity_task_completed_event_attributes":
            return ActivityEnd("completed", event.activity_task_completed_event_attributes.result.data, "", attempt)
        case "activity_task_failed_event_attributes":
            failure = event.activity_task_failed_event_attributes.failure
            return ActivityEnd("failed", failure.details, failure.reason, attempt)
        case "activity_task_timed_out_event_attributes":
            timed_out = event.activity_task_timed_out_event_attributes
            kind = TimeoutType.Name(timed_out.timeout_type).removeprefix(_TIMEOUTS).lower()
            return ActivityEnd("timed_out", timed_out.details.data, kind, attempt)
        case "activity_task_canceled_event_attributes":
            return ActivityEnd("canceled", event.activity_task_canceled_event_attributes.details.data, "", attempt)
        case _:
            return None
