"""AliasService."""

from __future__ import annotations

from codesous.control.v1 import alias_service_pb2 as pb
from codesous.control.v1.alias_service_pb2_grpc import AliasServiceServicer

from cs_control.aliases import Aliases
from cs_control.servicers import actor
from cs_core.rpc import paging
from cs_core.rpc.context import Context


class AliasServicer(AliasServiceServicer):
    """Serves Aliases."""

    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases

    async def SetAlias(self, request: pb.SetAliasRequest, context: Context) -> pb.SetAliasResponse:
        moved = await self._aliases.set(
            request.tenant,
            request.namespace,
            request.function,
            request.alias,
            request.version,
            request.expected_version if request.HasField("expected_version") else None,
            actor(),
        )
        return pb.SetAliasResponse(alias=moved.alias, capability_diff=moved.diff)

    async def ListAliases(self, request: pb.ListAliasesRequest, context: Context) -> pb.ListAliasesResponse:
        scope = (request.tenant, request.namespace, request.function)
        page = paging.Page("aliases", scope, request.page_size, request.page_token)
        found, last = await self._aliases.list_by_name(*scope, after=page.after_name(), limit=page.size)
        return pb.ListAliasesResponse(aliases=found, next_page_token=page.next_token(last))

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: Context) -> pb.DeleteAliasResponse:
        await self._aliases.delete(request.tenant, request.namespace, request.function, request.alias, actor())
        return pb.DeleteAliasResponse()

    async def RollbackAlias(self, request: pb.RollbackAliasRequest, context: Context) -> pb.RollbackAliasResponse:
        moved = await self._aliases.rollback(
            request.tenant, request.namespace, request.function, request.alias, actor()
        )
        return pb.RollbackAliasResponse(alias=moved.alias, capability_diff=moved.diff)
