"""WebService."""

from __future__ import annotations

from codesous.gateway.v1 import web_service_pb2 as pb
from codesous.gateway.v1.web_service_pb2_grpc import WebServiceServicer
from google.api.httpbody_pb2 import HttpBody

from cs_core.rpc.context import Context, current
from cs_gateway.servicers.invocation import IDEMPOTENCY_KEY
from cs_gateway.web import Web

ACTIVATION_ID = "x-code-sous-activation-id"


class WebServicer(WebServiceServicer):
    """Serves Web."""

    def __init__(self, web: Web) -> None:
        self._web = web

    async def Handle(self, request: pb.HandleRequest, context: Context) -> pb.HandleResponse:
        call = current()
        answer = await self._web.handle(
            request,
            call.metadata,
            principal=call.caller,
            request_id=call.request_id,
            trace=call.trace,
            idempotency_key=call.header(IDEMPOTENCY_KEY),
            on_activation=lambda activation_id: call.answer_header(ACTIVATION_ID, activation_id),
        )
        call.answer_status(answer.status)
        for name, value in answer.headers:
            call.answer_header(name, value)
        return pb.HandleResponse(body=HttpBody(content_type=answer.content_type, data=answer.body))
