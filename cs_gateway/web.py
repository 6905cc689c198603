"""The generic HTTP endpoint: a web request becomes an event, and the function's response the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from codesous.gateway.v1.web_service_pb2 import HandleRequest
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.principal_pb2 import Principal
from codesous.type.v1.trigger_pb2 import HttpTrigger, Trigger

from cs_core.clock import Clock
from cs_core.config import LimitSettings
from cs_core.errors import RuntimeFailure
from cs_core.trace_context import TraceContext
from cs_gateway.http_event import read_request, to_event
from cs_gateway.http_response import WebResponse, to_web
from cs_gateway.ingress import Invocation, Target
from cs_gateway.invocations import Invocations


class Web:
    """Serves functions as if they were web servers."""

    def __init__(self, invocations: Invocations, limits: LimitSettings, clock: Clock) -> None:
        self._invocations = invocations
        self._limits = limits
        self._clock = clock

    async def handle(
        self,
        request: HandleRequest,
        metadata: Iterable[tuple[str, str | bytes]],
        *,
        principal: Principal,
        request_id: str,
        trace: TraceContext,
        idempotency_key: str,
        on_activation: Callable[[str], None],
    ) -> WebResponse:
        """Run the function that the path names. `on_activation` is told the activation's id.

        Raises:
            RuntimeFailure: the function failed, or its response breaks a rule.
            CodeSousError: everything that Invocations raises.
        """
        target = Target(request.tenant, request.namespace, request.function, request.ref)
        with self._invocations.seat(target.tenant):
            version = await self._invocations.admit(target, principal)
            web = read_request(request, metadata, self._limits)
            activation = await self._invocations.run(
                Invocation(
                    target=target,
                    principal=principal,
                    request_id=request_id,
                    trace=trace,
                    trigger=Trigger(http=HttpTrigger(method=web.method, path=web.path)),
                    event=to_event(web, principal, request_id, self._clock.now()),
                    idempotency_key=idempotency_key,
                    digest=web.digest(),
                ),
                version,
            )
        on_activation(activation.activation_id)
        if activation.status != ActivationStatus.ACTIVATION_STATUS_SUCCESS:
            raise RuntimeFailure(activation.error, activation.activation_id)
        return to_web(activation.response, activation.activation_id)
