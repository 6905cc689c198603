"""MutationService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from codesous.control.v1 import mutation_service_pb2 as pb
from codesous.control.v1.mutation_service_pb2_grpc import MutationServiceServicer

from cs_control.mutation_reader import MutationReader
from cs_core.changes import MutationFilter
from cs_core.clock import from_timestamp
from cs_core.errors import ValidationError
from cs_core.rpc import paging
from cs_core.rpc.context import Context
from cs_core.rpc.event_stream import event_chunk, last_event_id


class MutationServicer(MutationServiceServicer):
    """Serves MutationReader."""

    def __init__(self, reader: MutationReader) -> None:
        self._reader = reader

    async def ListMutations(self, request: pb.ListMutationsRequest, context: Context) -> pb.ListMutationsResponse:
        wanted = _filter(request)
        scope = (request.tenant, wanted.resource, wanted.subject, str(wanted.start), str(wanted.end))
        page = paging.Page("mutations", scope, request.page_size, request.page_token)
        found, last = await self._reader.list_oldest_first(
            request.tenant, wanted, after=page.after_name(), limit=page.size
        )
        return pb.ListMutationsResponse(mutations=found, next_page_token=page.next_token(last))

    async def WatchMutations(
        self, request: pb.WatchMutationsRequest, context: Context
    ) -> AsyncIterator[pb.WatchMutationsResponse]:
        async for watched in self._reader.watch(request.tenant, request.cursor):
            yield pb.WatchMutationsResponse(cursor=watched.cursor, mutation=watched.mutation)

    async def WatchMutationEvents(
        self, request: pb.WatchMutationEventsRequest, context: Context
    ) -> AsyncIterator[pb.WatchMutationEventsResponse]:
        cursor = request.cursor or last_event_id(context)
        async for watched in self._reader.watch(request.tenant, cursor):
            kind = "cursor" if watched.mutation is None else "mutation"
            message = watched.mutation or pb.WatchMutationsResponse(cursor=watched.cursor)
            yield pb.WatchMutationEventsResponse(chunk=event_chunk(watched.cursor, kind, message))


def _filter(request: pb.ListMutationsRequest) -> MutationFilter:
    return MutationFilter(
        request.resource, request.subject, _time_of(request, "start_time"), _time_of(request, "end_time")
    )


def _time_of(request: pb.ListMutationsRequest, field: str) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    try:
        return from_timestamp(getattr(request, field))
    except (ValueError, OverflowError) as error:
        raise ValidationError.field(field, "must be a time of the years 1 to 9999") from error
