"""InvocationService."""

from __future__ import annotations

from codesous.gateway.v1 import invocation_service_pb2 as pb
from codesous.gateway.v1.invocation_service_pb2_grpc import InvocationServiceServicer
from codesous.type.v1.trigger_pb2 import ApiTrigger, Trigger

from cs_core.config import LimitSettings
from cs_core.errors import ValidationError
from cs_core.rpc.context import Context, current
from cs_gateway.activations import Activations
from cs_gateway.event_json import event_of
from cs_gateway.ingress import Invocation, Target
from cs_gateway.invocations import Invocations

IDEMPOTENCY_KEY = "idempotency-key"


class InvocationServicer(InvocationServiceServicer):
    """Serves Invocations."""

    def __init__(self, invocations: Invocations, activations: Activations, limits: LimitSettings) -> None:
        self._invocations = invocations
        self._activations = activations
        self._limits = limits

    async def Invoke(self, request: pb.InvokeRequest, context: Context) -> pb.InvokeResponse:
        call = current()
        if request.mode not in pb.InvokeMode.values():
            raise ValidationError.field("mode", "must be a known mode")
        asynchronous = request.mode == pb.InvokeMode.INVOKE_MODE_ASYNC
        activation = await self._invocations.invoke(
            Invocation(
                target=Target(request.tenant, request.namespace, request.function, request.ref),
                principal=call.caller,
                request_id=call.request_id,
                trigger=Trigger(api=ApiTrigger(asynchronous=asynchronous)),
                event=event_of(request, self._limits),
                trace=call.trace,
                asynchronous=asynchronous,
                idempotency_key=request.idempotency_key or call.header(IDEMPOTENCY_KEY),
            )
        )
        if asynchronous:
            call.answer_status(202)
        return pb.InvokeResponse(activation=activation)

    async def CancelActivation(
        self, request: pb.CancelActivationRequest, context: Context
    ) -> pb.CancelActivationResponse:
        activation = await self._activations.cancel(request.tenant, request.activation_id)
        return pb.CancelActivationResponse(activation=activation)
