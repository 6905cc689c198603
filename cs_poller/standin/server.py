"""The stand-in as a gRPC server."""

from __future__ import annotations

from collections.abc import Callable

import grpc
from cadence.api.v1.service_domain_pb2_grpc import add_DomainAPIServicer_to_server
from cadence.api.v1.service_worker_pb2_grpc import add_WorkerAPIServicer_to_server
from cadence.api.v1.service_workflow_pb2_grpc import add_WorkflowAPIServicer_to_server
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from .engine import Engine
from .servicers.workers import WorkerServicer
from .servicers.workflows import DomainServicer, WorkflowServicer


class StandIn:
    """Serves an engine. Use it as an asynchronous context manager; `port` is known inside."""

    def __init__(
        self,
        engine: Engine,
        address: str,
        on_answer: Callable[[bytes, str, bool], None] = lambda _token, _kind, _taken: None,
    ) -> None:
        """`address` is `host:port`, port 0 for a free one; `on_answer` is told of each answer to an activity."""
        self._engine = engine
        self._address = address
        self._on_answer = on_answer
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self.port = 0

    async def __aenter__(self) -> StandIn:
        add_WorkerAPIServicer_to_server(WorkerServicer(self._engine, self._on_answer), self._server)
        add_WorkflowAPIServicer_to_server(WorkflowServicer(self._engine), self._server)
        add_DomainAPIServicer_to_server(DomainServicer(self._engine), self._server)
        health = HealthServicer()
        await health.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)
        self.port = self._server.add_insecure_port(self._address)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(0)
