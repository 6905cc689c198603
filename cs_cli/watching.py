"""Following what goes on, over the wire: breaks of the stream are bridged by its cursor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from codesous.control.v1.mutation_service_pb2 import WatchMutationsRequest, WatchMutationsResponse
from codesous.gateway.v1.activation_service_pb2 import WatchActivationRequest, WatchActivationResponse

from cs_cli.api import Api

_BREAKS_MOST: Final = 10
_WAIT_FIRST, _WAIT_LAST = 0.2, 3.0


def watch(api: Api, activation_id: str) -> Iterator[WatchActivationResponse]:
    """What happens to the activation, to its end. Raises CommandError with what the server said."""
    request = WatchActivationRequest(tenant=api.tenant, activation_id=activation_id)
    yield from _resume(api, api.activations.WatchActivation, request)


def watch_mutations(api: Api) -> Iterator[WatchMutationsResponse]:
    """What is changed from now on, for ever; the first answer has no mutation. Raises CommandError as `watch` does."""
    request = WatchMutationsRequest(tenant=api.tenant)
    while True:
        # It ends when the server stops or has watched for long enough, and goes on elsewhere.
        yield from _resume(api, api.mutations.WatchMutations, request)


def _resume(api: Api, method: Callable[..., Iterator[Any]], request: Any) -> Iterator[Any]:
    """Follow a stream to its end, and keep the cursor of `request` in step."""
    breaks, wait = 0, _WAIT_FIRST
    while True:
        try:
            for event in api.stream(method, request):
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
