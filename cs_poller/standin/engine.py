"""Domains, runs and task lists: what the API's calls act on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cadence.api.v1 import error_pb2
from cadence.api.v1.common_pb2 import WorkflowExecution
from cadence.api.v1.service_workflow_pb2 import StartWorkflowExecutionRequest

from .activity import Activity
from .refusals import RefusalError, bad, not_there
from .run import Run
from .task_list import TaskList


@dataclass(slots=True)
class Domain:
    """A domain: its runs by workflow id (oldest first) and its task lists by name."""

    name: str
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    decisions: dict[str, TaskList[Run]] = field(default_factory=lambda: defaultdict(TaskList))
    activities: dict[str, TaskList[Activity]] = field(default_factory=lambda: defaultdict(TaskList))


class Engine:
    """The server's state. Methods raise RefusalError."""

    def __init__(self, domains: Sequence[str]) -> None:
        self._domains = {name: Domain(name) for name in domains}

    def register(self, name: str) -> None:
        """Make a domain."""
        if not name:
            raise bad("domain name is not set")
        if name in self._domains:
            raise RefusalError("ALREADY_EXISTS", f"domain {name} exists", error_pb2.DomainAlreadyExistsError())
        self._domains[name] = Domain(name)

    def domain(self, name: str) -> Domain:
        """Find a domain."""
        found = self._domains.get(name)
        if found is None:
            raise not_there(f"domain {name} does not exist")
        return found

    def start(self, request: StartWorkflowExecutionRequest) -> Run:
        """Start a workflow; one that runs under the id already is in the way."""
        domain = self.domain(request.domain)
        if not request.workflow_id or not request.task_list.name or not request.workflow_type.name:
            raise bad("workflow id, workflow type and task list must be set")
        if not request.execution_start_to_close_timeout.ToTimedelta():
            raise bad("execution_start_to_close_timeout must be set")
        runs = domain.runs[request.workflow_id]
        if runs and not runs[-1].closed:
            started = error_pb2.WorkflowExecutionAlreadyStartedError(
                start_request_id=runs[-1].request.request_id, run_id=runs[-1].run_id
            )
            raise RefusalError("ALREADY_EXISTS", f"workflow {request.workflow_id} runs already", started)
        run = Run(
            request,
            lambda run: domain.decisions[run.request.task_list.name].put(run),
            lambda activity: domain.activities[activity.attributes.task_list.name or request.task_list.name].put(
                activity
            ),
        )
        runs.append(run)
        return run

    def find(self, domain: str, execution: WorkflowExecution) -> Run:
        """Find a run: by its id, or the last one of a workflow."""
        runs = self.domain(domain).runs.get(execution.workflow_id, [])
        for run in reversed(runs):
            if execution.run_id in ("", run.run_id):
                return run
        raise not_there(f"workflow {execution.workflow_id} does not exist")

    def run_of(self, token: bytes) -> tuple[Run, dict[str, Any]]:
        """Find the run that a token is of, and what the token says."""
        try:
            parts = json.loads(token)
            workflow_id, run_id = str(parts["w"]), str(parts["r"])
        except (ValueError, KeyError, TypeError):
            raise bad("bad task token") from None
        for domain in self._domains.values():
            for run in domain.runs.get(workflow_id, []):
                if run.run_id == run_id:
                    return run, parts
        raise not_there("workflow execution not found")

    def activity_of(self, token: bytes) -> Activity:
        """Find the activity whose attempt a token is of."""
        run, parts = self.run_of(token)
        return run.find_activity(int(parts.get("s", 0)), int(parts.get("a", -1)))
