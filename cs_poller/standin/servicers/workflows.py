"""WorkflowAPI and DomainAPI: starting, watching and ending workflows; domains."""

from __future__ import annotations

from datetime import timedelta

from cadence.api.v1 import service_domain_pb2 as domain_pb
from cadence.api.v1 import service_workflow_pb2 as pb
from cadence.api.v1.domain_pb2 import DomainStatus
from cadence.api.v1.history_pb2 import EventFilterType
from cadence.api.v1.service_domain_pb2_grpc import DomainAPIServicer
from cadence.api.v1.service_workflow_pb2_grpc import WorkflowAPIServicer

from cs_poller.standin.engine import Engine
from cs_poller.standin.refusals import bad
from cs_poller.standin.servicers import Context, longest_wait, refusing

_CLOSE_EVENT = EventFilterType.EVENT_FILTER_TYPE_CLOSE_EVENT


class WorkflowServicer(WorkflowAPIServicer):  # type: ignore[misc]
    """Serves who starts and watches workflows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @refusing
    async def StartWorkflowExecution(
        self, request: pb.StartWorkflowExecutionRequest, context: Context
    ) -> pb.StartWorkflowExecutionResponse:
        return pb.StartWorkflowExecutionResponse(run_id=self._engine.start(request).run_id)

    @refusing
    async def RequestCancelWorkflowExecution(
        self, request: pb.RequestCancelWorkflowExecutionRequest, context: Context
    ) -> pb.RequestCancelWorkflowExecutionResponse:
        run = self._engine.find(request.domain, request.workflow_execution)
        run.request_cancel(request.identity, request.cause)
        return pb.RequestCancelWorkflowExecutionResponse()

    @refusing
    async def TerminateWorkflowExecution(
        self, request: pb.TerminateWorkflowExecutionRequest, context: Context
    ) -> pb.TerminateWorkflowExecutionResponse:
        self._engine.find(request.domain, request.workflow_execution).terminate(request.reason, request.identity)
        return pb.TerminateWorkflowExecutionResponse()

    @refusing
    async def GetWorkflowExecutionHistory(
        self, request: pb.GetWorkflowExecutionHistoryRequest, context: Context
    ) -> pb.GetWorkflowExecutionHistoryResponse:
        history = self._engine.find(request.domain, request.workflow_execution).history
        try:
            start = int(request.next_page_token or b"0")
        except ValueError:
            raise bad("bad page token") from None
        response = pb.GetWorkflowExecutionHistoryResponse()
        if request.history_event_filter_type == _CLOSE_EVENT:
            if request.wait_for_new_event:
                await history.wait_closed(longest_wait(context))
            response.history.events.extend(history.events[-1:] if history.closed else [])
            if not history.closed and request.wait_for_new_event:
                response.next_page_token = b"0"
            return response
        if request.wait_for_new_event:
            await history.wait_beyond(start, longest_wait(context))
        response.history.events.extend(history.events[start:])
        if request.wait_for_new_event and not history.closed:
            response.next_page_token = str(len(history.events)).encode()
        return response


class DomainServicer(DomainAPIServicer):  # type: ignore[misc]
    """Serves who makes domains."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @refusing
    async def RegisterDomain(
        self, request: domain_pb.RegisterDomainRequest, context: Context
    ) -> domain_pb.RegisterDomainResponse:
        self._engine.register(request.name)
        return domain_pb.RegisterDomainResponse()

    @refusing
    async def DescribeDomain(
        self, request: domain_pb.DescribeDomainRequest, context: Context
    ) -> domain_pb.DescribeDomainResponse:
        response = domain_pb.DescribeDomainResponse()
        response.domain.name = self._engine.domain(request.name).name
        response.domain.status = DomainStatus.DOMAIN_STATUS_REGISTERED
        response.domain.workflow_execution_retention_period.FromTimedelta(timedelta(days=1))
        return response
