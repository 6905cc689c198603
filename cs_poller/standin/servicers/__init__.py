"""The stand-in's way in by gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from cs_poller.standin.refusals import RefusalError

Context = grpc.aio.ServicerContext[Any, Any]
_Method = TypeVar("_Method", bound=Callable[..., Awaitable[Any]])
_LONGEST: Final = 60.0
# An empty answer leaves this long before the caller's deadline, in seconds.
_MARGIN: Final = 0.5


def longest_wait(context: Context) -> float:
    """How long a poll may wait, in seconds."""
    left = context.time_remaining()
    return _LONGEST if left is None else min(_LONGEST, max(left - _MARGIN, 0.0))


def refusing(method: _Method) -> _Method:
    """Answer what a method refuses as Cadence does."""

    @wraps(method)
    async def wrapped(self: Any, request: Any, context: Context) -> Any:
        try:
            return await method(self, request, context)
        except RefusalError as error:
            details = []
            if error.detail is not None:
                packed = AnyMessage()
                packed.Pack(error.detail)
                details.append(packed)
            code = grpc.StatusCode[error.code]
            status = Status(code=code.value[0], message=error.message, details=details)
            await context.abort_with_status(rpc_status.to_status(status))

    return wrapped  # type: ignore[return-value]
