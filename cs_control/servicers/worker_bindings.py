"""WorkerBindingService."""

from __future__ import annotations

from codesous.control.v1 import worker_binding_service_pb2 as pb
from codesous.control.v1.worker_binding_service_pb2_grpc import WorkerBindingServiceServicer

from cs_control.servicers import actor, answer_created
from cs_control.worker_bindings import WorkerBindings
from cs_core.rpc import paging
from cs_core.rpc.context import Context


class WorkerBindingServicer(WorkerBindingServiceServicer):
    """Serves WorkerBindings."""

    def __init__(self, bindings: WorkerBindings) -> None:
        self._bindings = bindings

    async def CreateWorkerBinding(
        self, request: pb.CreateWorkerBindingRequest, context: Context
    ) -> pb.CreateWorkerBindingResponse:
        binding, created = await self._bindings.create(request, actor())
        answer_created(created)
        return pb.CreateWorkerBindingResponse(worker_binding=binding)

    async def GetWorkerBinding(
        self, request: pb.GetWorkerBindingRequest, context: Context
    ) -> pb.GetWorkerBindingResponse:
        binding = await self._bindings.get(request.tenant, request.namespace, request.worker)
        return pb.GetWorkerBindingResponse(worker_binding=binding)

    async def ListWorkerBindings(
        self, request: pb.ListWorkerBindingsRequest, context: Context
    ) -> pb.ListWorkerBindingsResponse:
        scope = (request.tenant, request.namespace)
        page = paging.Page("workers", scope, request.page_size, request.page_token)
        found, last = await self._bindings.list_by_name(*scope, after=page.after_name(), limit=page.size)
        return pb.ListWorkerBindingsResponse(worker_bindings=found, next_page_token=page.next_token(last))

    async def UpdateWorkerBinding(
        self, request: pb.UpdateWorkerBindingRequest, context: Context
    ) -> pb.UpdateWorkerBindingResponse:
        return pb.UpdateWorkerBindingResponse(worker_binding=await self._bindings.update(request, actor()))

    async def DeleteWorkerBinding(
        self, request: pb.DeleteWorkerBindingRequest, context: Context
    ) -> pb.DeleteWorkerBindingResponse:
        await self._bindings.delete(request.tenant, request.namespace, request.worker, actor())
        return pb.DeleteWorkerBindingResponse()

    async def PauseWorkerBinding(
        self, request: pb.PauseWorkerBindingRequest, context: Context
    ) -> pb.PauseWorkerBindingResponse:
        binding = await self._bindings.pause(request.tenant, request.namespace, request.worker, actor())
        return pb.PauseWorkerBindingResponse(worker_binding=binding)

    async def ResumeWorkerBinding(
        self, request: pb.ResumeWorkerBindingRequest, context: Context
    ) -> pb.ResumeWorkerBindingResponse:
        binding = await self._bindings.resume(request.tenant, request.namespace, request.worker, actor())
        return pb.ResumeWorkerBindingResponse(worker_binding=binding)
