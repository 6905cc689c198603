"""Services that the contracts declare and a later release implements; until then they answer CS_UNIMPLEMENTED."""

from __future__ import annotations

from typing import Any, Final, cast

from codesous.control.v1 import schedule_service_pb2_grpc

from cs_core.rpc.server import Service

# The generated servicers answer every method with NotImplementedError, which the chain turns into CS_UNIMPLEMENTED.
LATER: Final = (
    Service(
        "codesous.control.v1.ScheduleService",
        schedule_service_pb2_grpc.add_ScheduleServiceServicer_to_server,
        cast("Any", schedule_service_pb2_grpc.ScheduleServiceServicer)(),
    ),
)
