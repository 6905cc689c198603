"""A process before it may work: it waits for the store, and learns whether the store's schema is one that it knows.

A store that is away at the start is waited for, and health says so meanwhile. Nothing else is served and no loop runs
until the store has answered: what a newer release has written must not be touched by one that cannot read it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from cs_core.backoff import Backoff
from cs_core.clock import SystemClock
from cs_core.config import RpcSettings, Settings
from cs_core.errors import UnavailableError
from cs_core.rpc.server import stop_on_signals
from cs_core.rpc.tls import server_credentials
from cs_core.store.client import KvClient
from cs_core.store.schema import SchemaStore

_log = structlog.get_logger(__name__)


async def await_store(settings: Settings, port: int) -> bool:
    """Return True once the store has answered and is one that this release works on; False when told to stop before.

    Health answers NOT_SERVING on `port` while the store does not answer.

    Raises:
        StoreSchemaError: this release does not work on such a store.
    """
    stopping = stop_on_signals()
    backoff = Backoff()
    client = KvClient(settings.store.url, settings.store.timeout)
    schema = SchemaStore(client, SystemClock())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        while not stopping.is_set():
            try:
                await schema.open()
            except UnavailableError as error:
                if not backoff.failures:
                    _log.warning("waiting for the store", reason=error.reason)
                    await stack.enter_async_context(_not_serving(settings.rpc, port))
            else:
                return not stopping.is_set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await stopping.wait()
    return False


@asynccontextmanager
async def _not_serving(settings: RpcSettings, port: int) -> AsyncIterator[None]:
    """Answer health with NOT_SERVING for the length of the block."""
    health = HealthServicer()
    await health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    address, credentials = f"{settings.host}:{port}", server_credentials(settings)
    if credentials is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)
