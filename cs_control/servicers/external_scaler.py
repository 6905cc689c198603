"""ExternalScaler: what KEDA asks to know how many invokers there should be."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
from externalscaler import externalscaler_pb2 as pb
from externalscaler.externalscaler_pb2_grpc import ExternalScalerServicer

from cs_core.errors import UnavailableError
from cs_core.telemetry.backlog import LANES, BacklogView

STREAM_EVERY: Final = 1.0
"""Seconds between two looks of a stream."""
_TARGETS: Final = {"age": 1.0, "depth": 100.0}
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a trigger's metadata ask for."""

    metric: str
    lanes: tuple[str, ...]
    target: float

    @property
    def name(self) -> str:
        """The metric's name, one for each wish."""
        return f"cs-backlog-{self.metric}" if len(self.lanes) > 1 else f"cs-backlog-{self.metric}-{self.lanes[0]}"


def wish_of(scaled: pb.ScaledObjectRef) -> Wish:
    """Read `metric` (age), `lane` (all) and `target` (1 s, or 100). Raises ValueError with what is wrong."""
    metadata = scaled.scalerMetadata
    metric, lane = metadata.get("metric", "age"), metadata.get("lane", "")
    if metric not in _TARGETS:
        raise ValueError(f"metric: one of {', '.join(_TARGETS)}")
    if lane and lane not in LANES:
        raise ValueError(f"lane: one of {', '.join(LANES)}, or none for all")
    try:
        target = float(metadata.get("target", _TARGETS[metric]))
    except ValueError:
        target = math.nan
    if not 0 < target < math.inf:
        raise ValueError("target: a number above 0")
    return Wish(metric, (lane,) if lane else tuple(LANES), target)


def value_of(view: BacklogView, wish: Wish) -> float:
    """The age of the oldest in seconds, or how many wait."""
    lanes = [view.lanes[lane] for lane in wish.lanes]
    return max(lane.age for lane in lanes) if wish.metric == "age" else float(sum(lane.ready for lane in lanes))


def is_active(view: BacklogView, wish: Wish) -> bool:
    """Whether there is anything to do: what waits, is held, or waits for its time."""
    return any(view.lanes[lane].ready for lane in wish.lanes) or view.leased > 0 or view.delayed > 0


class ExternalScaler(ExternalScalerServicer):
    """Answers from a look at the queue that is made for the question. A store that is away is UNAVAILABLE."""

    def __init__(self, read: Callable[[], Awaitable[BacklogView]]) -> None:
        self._read = read

    async def IsActive(self, request: pb.ScaledObjectRef, context: _Context) -> pb.IsActiveResponse:
        """See the contract."""
        wish, view = await self._look(request, context)
        return pb.IsActiveResponse(result=is_active(view, wish))

    async def StreamIsActive(
        self, request: pb.ScaledObjectRef, context: _Context
    ) -> AsyncIterator[pb.IsActiveResponse]:
        """See the contract; the first answer comes at once."""
        told: bool | None = None
        while True:
            wish, view = await self._look(request, context)
            if (active := is_active(view, wish)) is not told:
                told = active
                yield pb.IsActiveResponse(result=active)
            await asyncio.sleep(STREAM_EVERY)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: _Context) -> pb.GetMetricSpecResponse:
        """See the contract."""
        try:
            wish = wish_of(request)
        except ValueError as error:
            await _refuse(context, error)
        spec = pb.MetricSpec(metricName=wish.name, targetSize=math.ceil(wish.target), targetSizeFloat=wish.target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: _Context) -> pb.GetMetricsResponse:
        """See the contract."""
        wish, view = await self._look(request.scaledObjectRef, context)
        value = value_of(view, wish)
        found = pb.MetricValue(metricName=wish.name, metricValue=math.ceil(value), metricValueFloat=value)
        return pb.GetMetricsResponse(metricValues=[found])

    async def _look(self, scaled: pb.ScaledObjectRef, context: _Context) -> tuple[Wish, BacklogView]:
        try:
            return wish_of(scaled), await self._read()
        except ValueError as error:
            await _refuse(context, error)
        except UnavailableError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)


async def _refuse(context: _Context, error: ValueError) -> NoReturn:
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
