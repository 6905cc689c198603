"""Both planes in this process: the real servicers and server chain, over a redis-server of their own."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
from codesous.control.v1 import function_service_pb2 as functions
from codesous.control.v1 import version_service_pb2 as versions
from codesous.control.v1.function_service_pb2_grpc import FunctionServiceStub
from codesous.control.v1.version_service_pb2_grpc import VersionServiceStub

from cs_control.__main__ import services_of
from cs_core.clock import SystemClock
from cs_core.codeq.open import open_queue
from cs_core.config import Settings
from cs_core.operations.installation import open_installation
from cs_core.store.client import KvClient
from cs_core.store.mutation_bell import MutationBell
from cs_gateway.__main__ import assemble
from tests.support.fuzzing import describe
from tests.support.redis_server import RedisServer
from tests.support.rpc import TENANT, Served, serving

LIMITS = {
    "tenant_rps": 1_000_000,
    "tenant_inflight": 1_000_000,
    "tenant_waiting": 10_000,
    "queue_depth": 10_000_000,
    "watch_length": 0.02,
    "wait_default": 0.02,
    "wait_max": 0.05,
    "timeout_default": 0.02,
    "correlation_slack": 0.01,
    "bundle_bytes": 64 * 1024,
}
FAULTS: list[str] = []
"""What the server logged of the call that is under way."""


class NoFaults:
    """Finds no fault in any code: what reads code has a suite of its own."""

    async def check_syntax(self, files: object) -> list[Any]:
        return []


def note_fault(_logger: Any, _method: str, event: Any) -> Any:
    """Keep what the server logs of a fault, for the finding."""
    error = event.get("exc_info")
    FAULTS.append(describe(error) if isinstance(error, BaseException) else str(event))
    raise structlog.DropEvent


@asynccontextmanager
async def both_planes(folder: Path) -> AsyncIterator[tuple[Served, KvClient]]:
    """The services of both planes in this process, over a real redis-server."""
    store = RedisServer()
    store.start()
    settings = {"limits": LIMITS, "store": {"url": store.url, "partitions": 4}}
    tree = Settings.model_validate(settings)
    client, bell, clock = KvClient(store.url), MutationBell(store.url), SystemClock()
    queue = open_queue(tree, client)
    parts = assemble(tree, client, queue, clock, "gateway-1")
    told = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR), processors=[note_fault])
    services = [*services_of(tree, client, queue, NoFaults(), bell, clock), *parts.services]
    owns = {
        "queue": queue,
        "dead_letters": parts.dead_letters,
        "caches": parts.caches,
        "installation": open_installation(tree, client, queue, clock),
    }
    try:
        async with (
            bell.running(),
            parts.waiters.running(),
            serving(folder, services, settings=settings, owns=owns) as served,
        ):
            await furnish(served)
            yield served, client
    finally:
        structlog.configure(**told)
        await queue.close()
        await client.close()
        store.close()


async def furnish(served: Served) -> None:
    """Make a function with a version and an alias, so that calls get far."""
    metadata = served.bearer("admin")
    name = {"tenant": TENANT, "namespace": "default", "function": "hello"}
    function: Any = FunctionServiceStub(served.channel)
    version: Any = VersionServiceStub(served.channel)
    await function.CreateFunction(functions.CreateFunctionRequest(**name), metadata=metadata)
    manifest = {"runtime": "cs-js", "config": {"invokeHttpRoles": ["admin"], "timeout": "0.02s"}}
    files = {"manifest.json": json.dumps(manifest).encode(), "index.js": b"export default () => 1"}
    uploaded = await version.UploadDraft(versions.UploadDraftRequest(**name, files=files), metadata=metadata)
    await version.PublishVersion(
        versions.PublishVersionRequest(**name, draft_id=uploaded.draft.draft_id, alias="live"), metadata=metadata
    )
