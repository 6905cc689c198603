"""Turns what a call raises into a status, once, here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import structlog
from grpc_status import rpc_status

from cs_core.errors import CodeSousError, UnimplementedError
from cs_core.rpc.context import HTTP_STATUS, RequestContext
from cs_core.rpc.interceptors.request_id import HEADER
from cs_core.rpc.status import internal_error, mapping_of, proxy_override, to_status

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """How a call failed. Without an `error` there is nobody to tell: what was raised is to be raised again."""

    code: grpc.StatusCode
    error: CodeSousError | None


def failure_of(call: RequestContext, error: BaseException) -> Failure:
    """Find what the caller may know. What is no domain error is logged here and told as CS_INTERNAL."""
    match error:
        case CodeSousError():
            return Failure(mapping_of(error).code, error)
        case NotImplementedError():
            # The generated default of a method that no servicer overrides.
            unimplemented = UnimplementedError(call.method.rpartition("/")[2])
            return Failure(mapping_of(unimplemented).code, unimplemented)
        case asyncio.CancelledError() | GeneratorExit():
            return Failure(grpc.StatusCode.CANCELLED, None)
        case grpc.aio.AbortError():
            return Failure(grpc.StatusCode.UNKNOWN, None)
        case Exception():
            _log.error("a call failed", method=call.method, exc_info=error)
            return Failure(grpc.StatusCode.INTERNAL, internal_error(call.request_id))
        case _:
            return Failure(grpc.StatusCode.ABORTED, None)


async def abort(call: RequestContext, context: grpc.aio.ServicerContext[Any, Any], error: CodeSousError) -> NoReturn:
    """End the call with the status of `error`: rich details, the request id, and what the proxy must know."""
    status = rpc_status.to_status(to_status(error, call.request_id))
    # What would have been the answer's headers; its HTTP status was for success.
    told = [(name, value) for name, value in call.headers if name != HTTP_STATUS]
    trailers = [*status.trailing_metadata, *told]
    if not told:
        trailers.append((HEADER, call.request_id))
    override = proxy_override(error)
    if override is not None:
        trailers.append((HTTP_STATUS, str(override)))
    if error.retry_after is not None:
        trailers.append(("retry-after", str(max(1, round(error.retry_after.total_seconds())))))
    await context.abort(status.code, status.details, tuple(trailers))
