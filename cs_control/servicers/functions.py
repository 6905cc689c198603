"""FunctionService."""

from __future__ import annotations

from codesous.control.v1 import function_service_pb2 as pb
from codesous.control.v1.function_service_pb2_grpc import FunctionServiceServicer

from cs_control.functions import Functions
from cs_control.servicers import actor, answer_created
from cs_core.rpc import paging
from cs_core.rpc.context import Context


class FunctionServicer(FunctionServiceServicer):
    """Serves Functions."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def CreateFunction(self, request: pb.CreateFunctionRequest, context: Context) -> pb.CreateFunctionResponse:
        function, created = await self._functions.create(request, actor())
        answer_created(created)
        return pb.CreateFunctionResponse(function=function)

    async def GetFunction(self, request: pb.GetFunctionRequest, context: Context) -> pb.GetFunctionResponse:
        function = await self._functions.get(request.tenant, request.namespace, request.function)
        return pb.GetFunctionResponse(function=function)

    async def ListFunctions(self, request: pb.ListFunctionsRequest, context: Context) -> pb.ListFunctionsResponse:
        page = paging.Page("functions", (request.tenant, request.namespace), request.page_size, request.page_token)
        found, last = await self._functions.list_by_name(
            request.tenant,
            request.namespace,
            after=page.after_name(),
            limit=page.size,
            show_deleted=request.show_deleted,
        )
        return pb.ListFunctionsResponse(functions=found, next_page_token=page.next_token(last))

    async def DeleteFunction(self, request: pb.DeleteFunctionRequest, context: Context) -> pb.DeleteFunctionResponse:
        function = await self._functions.delete(request.tenant, request.namespace, request.function, actor())
        return pb.DeleteFunctionResponse(function=function)

    async def UndeleteFunction(
        self, request: pb.UndeleteFunctionRequest, context: Context
    ) -> pb.UndeleteFunctionResponse:
        function = await self._functions.undelete(request.tenant, request.namespace, request.function, actor())
        return pb.UndeleteFunctionResponse(function=function)
