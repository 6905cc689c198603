"""Messages of AdminService from what the process has, and back."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.process_pb2 import Cache, LaneDepth, LogLevel, LogLevelState, PartitionDepth, TenantDepth
from google.protobuf.duration_pb2 import Duration

from cs_core.caches import CacheView
from cs_core.clock import to_timestamp
from cs_core.errors import ValidationError
from cs_core.operations.installation import PartLook
from cs_core.telemetry.log_level import LevelState

LEVEL_SECONDS_MAX: Final = 86_400
_LEVELS: Final = {
    "debug": LogLevel.LOG_LEVEL_DEBUG,
    "info": LogLevel.LOG_LEVEL_INFO,
    "warning": LogLevel.LOG_LEVEL_WARNING,
    "error": LogLevel.LOG_LEVEL_ERROR,
}


def level_state(state: LevelState) -> LogLevelState:
    """How the log level is set."""
    return LogLevelState(
        level=_LEVELS[state.level],
        configured=_LEVELS[state.configured],
        revert_time=to_timestamp(state.reverts) if state.reverts else None,
    )


def level_wanted(request: pb.SetLogLevelRequest) -> tuple[str, timedelta | None]:
    """The level (empty: the configured one) and for how long. Raises ValidationError."""
    names = {number: name for name, number in _LEVELS.items()}
    if request.level and request.level not in names:
        raise ValidationError.field(
            "level", "must be one of " + ", ".join(f"LOG_LEVEL_{name.upper()}" for name in _LEVELS)
        )
    if not request.HasField("duration"):
        return names.get(request.level, ""), None
    seconds = request.duration.seconds + request.duration.nanos / 1e9
    if not 1 <= seconds <= LEVEL_SECONDS_MAX:
        raise ValidationError.field("duration", f"must be 1 s to {LEVEL_SECONDS_MAX} s")
    return names.get(request.level, ""), timedelta(seconds=seconds)


def partition_depth(part: PartLook) -> PartitionDepth:
    """What waits in one partition."""
    lanes = [
        LaneDepth(
            lane=lane,
            ready=count,
            oldest_age=_duration(part.backlog.oldest[lane]) if part.backlog and lane in part.backlog.oldest else None,
        )
        for lane, count in sorted(part.depth.ready.items())
        if count
    ]
    tenants = sorted(part.backlog.tenants.items(), key=lambda item: (-item[1].ready, item[0])) if part.backlog else []
    return PartitionDepth(
        partition=part.partition,
        lanes=lanes,
        leased=part.depth.leased,
        delayed=part.depth.delayed,
        tenants=[
            TenantDepth(tenant=name, ready=backlog.ready, oldest_age=_duration(backlog.oldest))
            for name, backlog in tenants
        ],
    )


def cache(view: CacheView) -> Cache:
    """A cache as it is now."""
    return Cache(
        name=view.name,
        entries=view.entries(),
        entries_max=view.entries_max,
        bytes=view.size(),
        hits=view.lookups.hits,
        misses=view.lookups.misses,
    )


def _duration(length: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(length)
    return duration
