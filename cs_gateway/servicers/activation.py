"""ActivationService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from codesous.gateway.v1 import activation_service_pb2 as pb
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.gateway.v1.activation_service_pb2_grpc import ActivationServiceServicer
from google.protobuf.duration_pb2 import Duration

from cs_core.config import LimitSettings
from cs_core.errors import ValidationError
from cs_core.rpc import paging
from cs_core.rpc.context import Context
from cs_core.rpc.event_stream import event_chunk, last_event_id
from cs_gateway.activations import Activations
from cs_gateway.watching import Watching

LOG_LINES, LOG_LINES_MAX = 500, 5_000


class ActivationServicer(ActivationServiceServicer):
    """Serves Activations."""

    def __init__(self, activations: Activations, watching: Watching, limits: LimitSettings) -> None:
        self._activations = activations
        self._watching = watching
        self._limits = limits

    async def GetActivation(self, request: pb.GetActivationRequest, context: Context) -> pb.GetActivationResponse:
        activation = await self._activations.get(request.tenant, request.activation_id)
        return pb.GetActivationResponse(activation=activation)

    async def ListActivations(self, request: pb.ListActivationsRequest, context: Context) -> pb.ListActivationsResponse:
        scope = (request.tenant, request.namespace, request.function)
        page = paging.Page("activations", scope, request.page_size, request.page_token)
        before = page.after_pair()
        found, last = await self._activations.list_by_function(*scope, before=before, limit=page.size)
        return pb.ListActivationsResponse(activations=found, next_page_token=page.next_token(last))

    async def WaitActivation(self, request: pb.WaitActivationRequest, context: Context) -> pb.WaitActivationResponse:
        longest = _wait_of(request.timeout if request.HasField("timeout") else None, self._limits)
        activation = await self._activations.wait(request.tenant, request.activation_id, longest)
        return pb.WaitActivationResponse(activation=activation)

    async def ListActivationLogs(
        self, request: pb.ListActivationLogsRequest, context: Context
    ) -> pb.ListActivationLogsResponse:
        scope = (request.tenant, request.activation_id)
        page = paging.Page("logs", scope, request.page_size, request.page_token, default=LOG_LINES, most=LOG_LINES_MAX)
        lines, following = await self._activations.logs(*scope, start=page.number() or 0, limit=page.size)
        return pb.ListActivationLogsResponse(entries=lines, next_page_token=page.next_token(following))

    async def WatchActivation(
        self, request: pb.WatchActivationRequest, context: Context
    ) -> AsyncIterator[pb.WatchActivationResponse]:
        async for watched in self._watching.watch(request.tenant, request.activation_id, request.cursor):
            if isinstance(watched.what, Activation):
                yield pb.WatchActivationResponse(cursor=str(watched.cursor), activation=watched.what)
            else:
                yield pb.WatchActivationResponse(cursor=str(watched.cursor), log=watched.what)

    async def WatchActivationEvents(
        self, request: pb.WatchActivationEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchActivationEventsResponse]:
        cursor = request.cursor or last_event_id(context)
        async for watched in self._watching.watch(request.tenant, request.activation_id, cursor):
            chunk = event_chunk(str(watched.cursor), watched.kind, watched.what)
            yield pb.WatchActivationEventsResponse(chunk=chunk)


def _wait_of(timeout: Duration | None, limits: LimitSettings) -> timedelta:
    if timeout is None:
        return timedelta(seconds=limits.wait_default)
    length = timeout.seconds + timeout.nanos / 1e9
    if not 0 <= length <= limits.wait_max:
        raise ValidationError.field("timeout", f"must be 0 s to {limits.wait_max:g} s")
    return timedelta(seconds=length)
