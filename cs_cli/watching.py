"""Following an activation over the wire: breaks of the stream are bridged by its cursor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import grpc
from codesous.gateway.v1.activation_service_pb2 import WatchActivationRequest, WatchActivationResponse

from cs_cli.api import Api

_BREAKS_MOST: Final = 10
_WAIT_FIRST, _WAIT_LAST = 0.2, 3.0


def watch(api: Api, activation_id: str) -> Iterator[WatchActivationResponse]:
    """What happens to the activation, to its end. Raises CommandError with what the server said."""
    request = WatchActivationRequest(tenant=api.tenant, activation_id=activation_id)
    breaks, wait = 0, _WAIT_FIRST
    while True:
        try:
            for event in api.stream(api.activations.WatchActivation, request):
                request.cursor = event.cursor
                breaks, wait = 0, _WAIT_FIRST
                yield event
        except grpc.RpcError as error:
            breaks += 1
            if error.code() is not grpc.StatusCode.UNAVAILABLE or breaks > _BREAKS_MOST:
                raise api.failure(error) from error
        else:
            return
        time.sleep(wait)
        wait = min(wait * 2, _WAIT_LAST)
