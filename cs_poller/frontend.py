"""What the poller asks of Cadence, as plain calls."""

from __future__ import annotations

from typing import Any

from cadence.api.v1 import service_worker_pb2 as pb
from cadence.api.v1.common_pb2 import Failure, Payload
from cadence.api.v1.tasklist_pb2 import TaskList

from cs_core.config import CadenceSettings
from cs_core.errors import UnavailableError
from cs_core.rpc.cadence import CadenceConnection

from .answers import Answer, Canceled, Completed

_SURE_WITHIN = 5.0
"""Seconds of the first poll, and of one after a failure: it soon tells whether all is well. Cadence wants 2 or more."""


class Frontend:
    """A Cadence frontend. Every call raises CadenceRefusedError or UnavailableError."""

    def __init__(self, connection: CadenceConnection | None, settings: CadenceSettings) -> None:
        """`connection` is None when no server is configured; every call then says so."""
        self._connection = connection
        self._settings = settings

    async def poll(
        self, domain: str, task_list: str, identity: str, *, unsure: bool
    ) -> pb.PollForActivityTaskResponse | None:
        """Wait for a task; None when none came in the time of a long poll. An `unsure` poll is a short one."""
        request = pb.PollForActivityTaskRequest(domain=domain, task_list=TaskList(name=task_list), identity=identity)
        longest = self._settings.poll_timeout
        answer = await self._call("PollForActivityTask", request, min(_SURE_WITHIN, longest) if unsure else longest)
        return answer if answer.task_token else None

    async def respond(self, token: bytes, answer: Answer, identity: str) -> None:
        """Answer a task."""
        match answer:
            case Completed(data):
                await self._call(
                    "RespondActivityTaskCompleted",
                    pb.RespondActivityTaskCompletedRequest(
                        task_token=token, result=Payload(data=data), identity=identity
                    ),
                )
            case Canceled(details):
                await self._call(
                    "RespondActivityTaskCanceled",
                    pb.RespondActivityTaskCanceledRequest(
                        task_token=token, details=Payload(data=details), identity=identity
                    ),
                )
            case _:
                await self._call(
                    "RespondActivityTaskFailed",
                    pb.RespondActivityTaskFailedRequest(
                        task_token=token,
                        failure=Failure(reason=answer.reason, details=answer.details),
                        identity=identity,
                    ),
                )

    async def heartbeat(self, token: bytes, details: bytes, identity: str) -> bool:
        """Say that a task is worked on; returns whether Cadence asks to cancel it."""
        request = pb.RecordActivityTaskHeartbeatRequest(
            task_token=token, details=Payload(data=details), identity=identity
        )
        return bool((await self._call("RecordActivityTaskHeartbeat", request)).cancel_requested)

    async def _call(self, method: str, request: Any, longest: float | None = None) -> Any:
        if self._connection is None:
            raise UnavailableError("CS_CADENCE_UNAVAILABLE", "no Cadence server is configured: set cadence.target")
        stub = getattr(self._connection.workers, method)
        return await self._connection.call(stub, request, longest or self._settings.call_timeout)
