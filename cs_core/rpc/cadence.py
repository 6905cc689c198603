"""Calls to a Cadence frontend over gRPC: the headers of YARPC, deadlines, and its errors as ours."""

from __future__ import annotations

from typing import Any, Final

import grpc
from cadence.api.v1.service_domain_pb2_grpc import DomainAPIStub
from cadence.api.v1.service_worker_pb2_grpc import WorkerAPIStub
from cadence.api.v1.service_workflow_pb2_grpc import WorkflowAPIStub

from cs_core.errors import CadenceRefusedError, UnavailableError
from cs_core.rpc.channels import channel_options
from cs_core.rpc.status import one_line

SERVICE: Final = "cadence-frontend"
_Code = grpc.StatusCode
# The same call will be refused again. Every other code may be the weather.
_FINAL: Final = frozenset(
    {
        _Code.NOT_FOUND,
        _Code.INVALID_ARGUMENT,
        _Code.FAILED_PRECONDITION,
        _Code.ALREADY_EXISTS,
        _Code.PERMISSION_DENIED,
        _Code.UNAUTHENTICATED,
        _Code.UNIMPLEMENTED,
        _Code.OUT_OF_RANGE,
    }
)


class CadenceConnection:
    """A channel to a Cadence frontend. Use it as an asynchronous context manager.

    Args:
        target: `host:port`.
        caller: name of the caller, for the server's logs and limits.
        tls: whether to speak TLS.
    """

    def __init__(self, target: str, caller: str, *, tls: bool = False) -> None:
        options = [
            *channel_options(),
            # A proxy in the environment is not for a server that is named here.
            ("grpc.enable_http_proxy", 0),
            # A server that comes back is found within seconds.
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        self._channel = (
            grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=options)
            if tls
            else grpc.aio.insecure_channel(target, options=options)
        )
        self._caller = caller
        self.workers: Any = WorkerAPIStub(self._channel)
        self.workflows: Any = WorkflowAPIStub(self._channel)
        self.domains: Any = DomainAPIStub(self._channel)

    async def __aenter__(self) -> CadenceConnection:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def call(self, method: Any, request: Any, timeout: float) -> Any:  # noqa: ASYNC109 - the call's own deadline
        """Make a call; `timeout` in seconds is told to the server too.

        Raises:
            CadenceRefusedError: the server refuses, and would again.
            UnavailableError: it does not answer, or not now (`CS_CADENCE_UNAVAILABLE`).
        """
        metadata = (
            ("rpc-caller", self._caller),
            ("rpc-service", SERVICE),
            ("rpc-encoding", "proto"),
            ("context-ttl-ms", str(int(timeout * 1000))),
        )
        try:
            return await method(request, timeout=timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error


def _translate(error: grpc.aio.AioRpcError) -> CadenceRefusedError | UnavailableError:
    name = error.code().name.lower()
    text = one_line(error.details() or "no reason given")
    if error.code() in _FINAL:
        return CadenceRefusedError(
            f"the Cadence server refuses: {text} ({name})", missing=error.code() is _Code.NOT_FOUND
        )
    return UnavailableError("CS_CADENCE_UNAVAILABLE", f"the Cadence server does not answer: {text} ({name})")
