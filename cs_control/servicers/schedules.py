"""ScheduleService."""

from __future__ import annotations

from codesous.control.v1 import schedule_service_pb2 as pb
from codesous.control.v1.schedule_service_pb2_grpc import ScheduleServiceServicer

from cs_control.schedule_preview import Previews
from cs_control.schedules import Schedules
from cs_control.servicers import actor, answer_created
from cs_core.rpc import paging
from cs_core.rpc.context import Context, current
from cs_core.schedules.rule import stamp_ms


class ScheduleServicer(ScheduleServiceServicer):
    """Serves Schedules."""

    def __init__(self, schedules: Schedules, previews: Previews) -> None:
        self._schedules = schedules
        self._previews = previews

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, context: Context) -> pb.CreateScheduleResponse:
        schedule, created = await self._schedules.create(request, actor())
        answer_created(created)
        return pb.CreateScheduleResponse(schedule=schedule)

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Context) -> pb.GetScheduleResponse:
        schedule = await self._schedules.get(request.tenant, request.namespace, request.schedule)
        return pb.GetScheduleResponse(schedule=schedule)

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Context) -> pb.ListSchedulesResponse:
        page = paging.Page("schedules", (request.tenant, request.namespace), request.page_size, request.page_token)
        found, last = await self._schedules.list_by_name(
            request.tenant, request.namespace, after=page.after_name(), limit=page.size
        )
        return pb.ListSchedulesResponse(schedules=found, next_page_token=page.next_token(last))

    async def UpdateSchedule(self, request: pb.UpdateScheduleRequest, context: Context) -> pb.UpdateScheduleResponse:
        return pb.UpdateScheduleResponse(schedule=await self._schedules.update(request, actor()))

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Context) -> pb.DeleteScheduleResponse:
        await self._schedules.delete(request.tenant, request.namespace, request.schedule, actor())
        return pb.DeleteScheduleResponse()

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.PauseScheduleResponse:
        schedule = await self._schedules.pause(request.tenant, request.namespace, request.schedule, actor())
        return pb.PauseScheduleResponse(schedule=schedule)

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Context) -> pb.ResumeScheduleResponse:
        schedule = await self._schedules.resume(request.tenant, request.namespace, request.schedule, actor())
        return pb.ResumeScheduleResponse(schedule=schedule)

    async def RunSchedule(self, request: pb.RunScheduleRequest, context: Context) -> pb.RunScheduleResponse:
        activation_id = await self._schedules.run(
            request.tenant, request.namespace, request.schedule, current().request_id
        )
        return pb.RunScheduleResponse(activation_id=activation_id)

    async def PreviewSchedule(self, request: pb.PreviewScheduleRequest, context: Context) -> pb.PreviewScheduleResponse:
        ticks = await self._previews.preview(request.tenant, request.namespace, request.schedule, request.count)
        return pb.PreviewScheduleResponse(ticks=ticks)

    async def ListScheduleTicks(
        self, request: pb.ListScheduleTicksRequest, context: Context
    ) -> pb.ListScheduleTicksResponse:
        scope = (request.tenant, request.namespace, request.schedule)
        page = paging.Page("schedule_ticks", scope, request.page_size, request.page_token)
        after_ms = stamp_ms(request.after_time) if request.HasField("after_time") else None
        found, last = await self._schedules.history(*scope, below=page.number(), limit=page.size, after_ms=after_ms)
        return pb.ListScheduleTicksResponse(ticks=found, next_page_token=page.next_token(last))
