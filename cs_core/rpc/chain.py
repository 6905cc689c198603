"""Everything around a call, in one place and few steps.

Theory of operation: gRPC asks an interceptor for the handler of every single call. The chain answers from a table of
handlers that it wrapped once, so a call costs one lookup and one extra coroutine, however many interceptors there are.
An interceptor has up to four hooks: `begin` sees metadata only, `check` sees the decoded request, `during` is asked
before each message of a stream, `end` sees how it ended. What they or the servicer raise is translated once, in
`interceptors.errors`.

Requests are decoded here, not by gRPC: what gRPC says about a request that it cannot decode is internal text.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError

from cs_core.errors import CodeSousError, NotFoundError, UnimplementedError, ValidationError
from cs_core.iam.access import MethodRule
from cs_core.rpc.context import Interceptor, Passive, RequestContext, enter
from cs_core.rpc.interceptors.errors import Failure, abort, failure_of

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]
_log = structlog.get_logger(__name__)
_EXEMPT = ("/grpc.health.", "/grpc.reflection.", "/grpc.channelz.", "/externalscaler.")


class CallChain(grpc.aio.ServerInterceptor):
    """Runs the interceptors around every call of our services; health, reflection and channelz pass untouched."""

    def __init__(self, interceptors: Sequence[Interceptor], rules: Mapping[str, MethodRule]) -> None:
        self._rules = rules
        self._begin = _own(interceptors, "begin")
        self._check = _own(interceptors, "check")
        self._during = _own(interceptors, "during")
        self._end = _own(interceptors, "end")
        self._wrapped: dict[str, _Handler] = {}
        self._unknown = self._wrap_unary("unknown", None, _refuse_unknown)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Answer the wrapped handler of a call."""
        path = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None:
            return self._unknown
        if path.startswith(_EXEMPT):
            return handler
        if path not in self._rules:
            # Added to the server and not declared to it: nobody could say who may call it, so nobody can.
            _log.error("a method without an access rule is not served", method=path)
            return self._unknown
        self._wrapped[path] = wrapped = self._wrap(path, handler)
        return wrapped

    def _wrap(self, path: str, handler: _Handler) -> _Handler:
        if handler.request_streaming:
            raise RuntimeError(f"{path}: a stream of requests cannot be served")
        if not handler.response_streaming:
            return self._wrap_unary(path, handler, handler.unary_unary)
        if inspect.isasyncgenfunction(handler.unary_stream):
            return self._wrap_stream(path, handler)
        return self._wrap_writer(path, handler)

    def _wrap_unary(self, path: str, handler: _Handler | None, serve: Any) -> _Handler:
        decode = handler.request_deserializer if handler else None
        encode = handler.response_serializer if handler else None

        async def call_unary(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            call = self._open(path, context)
            try:
                request = await self._admit(call, raw, decode)
                response = await _outcome(serve(request, context), path)
                answer = encode(response) if encode else response
                if call.headers:
                    await _send_headers(call, context)
            except BaseException as error:  # noqa: BLE001 - it is translated, or raised again
                await self._fail(call, context, error)
            self._close(call, grpc.StatusCode.OK, None)
            return answer

        return grpc.unary_unary_rpc_method_handler(call_unary)

    def _wrap_stream(self, path: str, handler: _Handler) -> _Handler:
        decode, encode = handler.request_deserializer, handler.response_serializer
        serve: Any = handler.unary_stream

        async def call_stream(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            call = self._open(path, context)
            try:
                request = await self._admit(call, raw, decode)
                async with aclosing(serve(request, context)) as responses:
                    async for response in responses:
                        await self._go_on(call)
                        if call.headers:
                            await _send_headers(call, context)
                        yield response
            except BaseException as error:  # noqa: BLE001 - it is translated, or raised again
                await self._fail(call, context, error)
            self._close(call, grpc.StatusCode.OK, None)

        return grpc.unary_stream_rpc_method_handler(call_stream, response_serializer=encode)

    def _wrap_writer(self, path: str, handler: _Handler) -> _Handler:
        decode, encode = handler.request_deserializer, handler.response_serializer
        serve: Any = handler.unary_stream

        async def call_writer(raw: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            call = self._open(path, context)
            try:
                request = await self._admit(call, raw, decode)
                await _outcome(serve(request, context), path)
            except BaseException as error:  # noqa: BLE001 - it is translated, or raised again
                await self._fail(call, context, error)
            self._close(call, grpc.StatusCode.OK, None)

        return grpc.unary_stream_rpc_method_handler(call_writer, response_serializer=encode)

    def _open(self, path: str, context: grpc.aio.ServicerContext[Any, Any]) -> RequestContext:
        call = RequestContext(path, context.invocation_metadata() or (), context.peer(), self._rules.get(path))
        enter(call)
        return call

    async def _admit(self, call: RequestContext, raw: Any, decode: Any) -> Any:
        for begin in self._begin:
            waiting = begin(call)
            if waiting is not None:
                await waiting
        try:
            request = decode(raw) if decode else raw
        except DecodeError as error:
            raise ValidationError("CS_VALIDATION_MALFORMED", "the request could not be decoded") from error
        for check in self._check:
            check(call, request)
        return request

    async def _go_on(self, call: RequestContext) -> None:
        for during in self._during:
            waiting = during(call)
            if waiting is not None:
                await waiting

    async def _fail(
        self, call: RequestContext, context: grpc.aio.ServicerContext[Any, Any], error: BaseException
    ) -> NoReturn:
        failure: Failure = failure_of(call, error)
        self._close(call, failure.code, failure.error)
        if failure.error is None:
            raise error
        await abort(call, context, failure.error)

    def _close(self, call: RequestContext, code: grpc.StatusCode, error: CodeSousError | None) -> None:
        for end in self._end:
            end(call, code, error)


def _own(interceptors: Sequence[Interceptor], hook: str) -> tuple[Any, ...]:
    """Collect a hook of those that have one of their own."""
    return tuple(
        getattr(interceptor, hook)
        for interceptor in interceptors
        if getattr(type(interceptor), hook) is not getattr(Passive, hook)
    )


async def _refuse_unknown(_request: Any, _context: Any) -> NoReturn:
    raise NotFoundError("method", "the path of this call")


async def _outcome(result: Any, path: str) -> Any:
    """Wait for a servicer's method. Only the generated defaults are plain functions, and they raise at once."""
    if inspect.isawaitable(result):
        return await result
    raise UnimplementedError(path)


async def _send_headers(call: RequestContext, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    headers, call.headers = tuple(call.headers), []
    # A servicer that sent its own cannot be followed by ours.
    with suppress(grpc.aio.UsageError):
        await context.send_initial_metadata(headers)
