"""Asking the parts of a stack whether they are ready."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cs_core.errors import UnavailableError
from cs_core.store.client import KvClient

_ANSWER_WITHIN: Final = 1.0


async def redis_ready(socket: Path) -> bool:
    """Whether redis-server answers."""
    client = KvClient(f"unix://{socket}", timeout=_ANSWER_WITHIN)
    try:
        await client.ping()
    except UnavailableError:
        return False
    finally:
        await client.close()
    return True


async def grpc_ready(host: str, port: int) -> bool:
    """Whether the health service at an address says SERVING."""
    async with grpc.aio.insecure_channel(f"{host}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                answer = await stub.Check(health_pb2.HealthCheckRequest())
        except (grpc.aio.AioRpcError, TimeoutError):
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
