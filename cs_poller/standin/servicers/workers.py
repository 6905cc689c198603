"""WorkerAPI: polls, decisions, activities."""

from __future__ import annotations

from collections.abc import Callable

from cadence.api.v1 import service_worker_pb2 as pb
from cadence.api.v1.service_worker_pb2_grpc import WorkerAPIServicer

from cs_poller.standin.engine import Engine
from cs_poller.standin.refusals import RefusalError, bad
from cs_poller.standin.servicers import Context, longest_wait, refusing


class WorkerServicer(WorkerAPIServicer):  # type: ignore[misc]
    """Serves workers. `on_answer` is told of each answer to an activity: token, kind, and whether it was taken."""

    def __init__(
        self, engine: Engine, on_answer: Callable[[bytes, str, bool], None] = lambda _token, _kind, _taken: None
    ) -> None:
        self._engine = engine
        self._on_answer = on_answer

    @refusing
    async def PollForDecisionTask(
        self, request: pb.PollForDecisionTaskRequest, context: Context
    ) -> pb.PollForDecisionTaskResponse:
        waiting = self._engine.domain(request.domain).decisions[_named(request.task_list.name)]
        run = await waiting.take(longest_wait(context))
        while run is not None and run.closed:
            run = await waiting.take(longest_wait(context))
        return pb.PollForDecisionTaskResponse() if run is None else run.start_decision(request.identity)

    @refusing
    async def RespondDecisionTaskCompleted(
        self, request: pb.RespondDecisionTaskCompletedRequest, context: Context
    ) -> pb.RespondDecisionTaskCompletedResponse:
        run, _ = self._engine.run_of(request.task_token)
        run.decide(request.task_token, list(request.decisions), request.identity)
        return pb.RespondDecisionTaskCompletedResponse()

    @refusing
    async def RespondDecisionTaskFailed(
        self, request: pb.RespondDecisionTaskFailedRequest, context: Context
    ) -> pb.RespondDecisionTaskFailedResponse:
        run, _ = self._engine.run_of(request.task_token)
        run.fail_decision(request.task_token)
        return pb.RespondDecisionTaskFailedResponse()

    @refusing
    async def PollForActivityTask(
        self, request: pb.PollForActivityTaskRequest, context: Context
    ) -> pb.PollForActivityTaskResponse:
        waiting = self._engine.domain(request.domain).activities[_named(request.task_list.name)]
        activity = await waiting.take(longest_wait(context))
        while activity is not None and activity.ended:
            activity = await waiting.take(longest_wait(context))
        return pb.PollForActivityTaskResponse() if activity is None else activity.start(request.identity)

    @refusing
    async def RespondActivityTaskCompleted(
        self, request: pb.RespondActivityTaskCompletedRequest, context: Context
    ) -> pb.RespondActivityTaskCompletedResponse:
        self._answer(request.task_token, "completed", lambda: self._complete(request))
        return pb.RespondActivityTaskCompletedResponse()

    @refusing
    async def RespondActivityTaskFailed(
        self, request: pb.RespondActivityTaskFailedRequest, context: Context
    ) -> pb.RespondActivityTaskFailedResponse:
        self._answer(request.task_token, "failed", lambda: self._fail(request))
        return pb.RespondActivityTaskFailedResponse()

    @refusing
    async def RespondActivityTaskCanceled(
        self, request: pb.RespondActivityTaskCanceledRequest, context: Context
    ) -> pb.RespondActivityTaskCanceledResponse:
        self._answer(request.task_token, "canceled", lambda: self._cancel(request))
        return pb.RespondActivityTaskCanceledResponse()

    @refusing
    async def RecordActivityTaskHeartbeat(
        self, request: pb.RecordActivityTaskHeartbeatRequest, context: Context
    ) -> pb.RecordActivityTaskHeartbeatResponse:
        asked = self._engine.activity_of(request.task_token).beat(request.details)
        return pb.RecordActivityTaskHeartbeatResponse(cancel_requested=asked)

    def _answer(self, token: bytes, kind: str, take: Callable[[], None]) -> None:
        try:
            take()
        except RefusalError:
            self._on_answer(token, kind, False)
            raise
        self._on_answer(token, kind, True)

    def _complete(self, request: pb.RespondActivityTaskCompletedRequest) -> None:
        self._engine.activity_of(request.task_token).complete(request.result)

    def _fail(self, request: pb.RespondActivityTaskFailedRequest) -> None:
        self._engine.activity_of(request.task_token).fail(request.failure)

    def _cancel(self, request: pb.RespondActivityTaskCanceledRequest) -> None:
        activity = self._engine.activity_of(request.task_token)
        if not activity.cancel_requested:
            raise bad("nobody asked to cancel the activity")
        activity.cancel(request.details)


def _named(task_list: str) -> str:
    if not task_list:
        raise bad("task list is not set")
    return task_list
