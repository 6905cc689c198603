"""KEDA's contract over gRPC, with a queue in a real store that has a backlog."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from codesous.queue.v1.envelope_pb2 import Envelope, Lane
from externalscaler import externalscaler_pb2 as pb
from externalscaler.externalscaler_pb2_grpc import ExternalScalerStub

from cs_control.__main__ import scaler_service
from cs_core.clock import SystemClock, to_timestamp
from cs_core.codeq.contract import INVOKE
from cs_core.codeq.open import open_queue
from cs_core.config import Settings
from cs_core.operations.installation import open_installation
from cs_core.store.client import KvClient
from tests.support.rpc import serving


def scaled(**metadata: str) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="invokers", namespace="cs", scalerMetadata=metadata)


async def test_keda_is_told_what_waits_by_lane_and_for_how_long(kv: KvClient, tmp_path: Path) -> None:
    settings, clock = Settings(), SystemClock()
    queue = open_queue(settings, kv)
    installation = open_installation(settings, kv, queue, clock)
    async with serving(tmp_path, [scaler_service(installation)]) as served:
        keda = ExternalScalerStub(served.channel)  # type: ignore[no-untyped-call]
        stream = keda.StreamIsActive(scaled())
        assert not (await stream.read()).result
        assert not (await keda.IsActive(scaled())).result
        for number in range(3):
            envelope = Envelope(message_id=f"m{number}", tenant="t_alpha0", publish_time=to_timestamp(clock.now()))
            await queue.publish(INVOKE, number, envelope, lane=Lane.LANE_BACKGROUND)
        assert (await asyncio.wait_for(stream.read(), 20)).result
        stream.cancel()

        async def value(**metadata: str) -> pb.MetricValue:
            (found,) = (await keda.GetMetrics(pb.GetMetricsRequest(scaledObjectRef=scaled(**metadata)))).metricValues
            return found

        assert (await value(metric="depth")).metricValueFloat == 3
        assert (await value(metric="depth", lane="interactive")).metricValueFloat == 0
        age = await value(lane="background")
        assert (age.metricName, age.metricValueFloat > 0, age.metricValue >= 1) == (
            "cs-backlog-age-background",
            True,
            True,
        )
        (spec,) = (await keda.GetMetricSpec(scaled(metric="depth", target="2.5"))).metricSpecs
        assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == ("cs-backlog-depth", 3, 2.5)
        for wrong in ({"metric": "size"}, {"lane": "fast"}, {"target": "0"}, {"target": "nan"}, {"target": "x"}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await keda.GetMetricSpec(scaled(**wrong))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert next(iter(wrong)) in (refused.value.details() or "")
    await queue.close()
