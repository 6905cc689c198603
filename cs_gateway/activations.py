"""Reading, waiting for and cancelling activations."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from codesous.gateway.v1.activation_pb2 import Activation
from codesous.queue.v1.envelope_pb2 import Envelope
from codesous.queue.v1.invocation_pb2 import CancelRequest
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core import ids
from cs_core.clock import Clock, to_timestamp
from cs_core.codeq import ResultChannel
from cs_core.errors import NotFoundError
from cs_core.names import Violations, check_activation_id, check_function, check_namespace
from cs_core.store.activations import ActivationStore
from cs_gateway.waiters import Waiters
from cs_gateway.watching import TERMINAL


class Activations:
    """What can be done with activations."""

    def __init__(self, store: ActivationStore, waiters: Waiters, channel: ResultChannel, clock: Clock) -> None:
        self._store = store
        self._waiters = waiters
        self._channel = channel
        self._clock = clock

    async def get(self, tenant: str, activation_id: str) -> Activation:
        """Read an activation. Raises ValidationError or NotFoundError."""
        check_activation_id(activation_id)
        activation = await self._store.get(tenant, activation_id)
        if activation is None:
            raise NotFoundError("activation", activation_id)
        return activation

    async def wait(self, tenant: str, activation_id: str, longest: timedelta) -> Activation:
        """Read an activation when it has ended, or as it is after `longest`. Raises as `get` does."""
        check_activation_id(activation_id)
        with self._waiters.expect(tenant, activation_id) as future:
            activation = await self.get(tenant, activation_id)
            if activation.status in TERMINAL:
                return activation
            try:
                async with asyncio.timeout(longest.total_seconds()):
                    await future
            except TimeoutError:
                pass
        return await self.get(tenant, activation_id)

    async def list_by_function(
        self, tenant: str, namespace: str, function: str, *, before: tuple[int, str] | None, limit: int
    ) -> tuple[list[Activation], tuple[int, str] | None]:
        """List activations of a function, newest first, and the position to go on before (None: that was all)."""
        violations = Violations()
        violations.check(check_namespace, namespace, "namespace")
        violations.check(check_function, function, "function")
        violations.raise_if_any()
        return await self._store.list_by_function(tenant, namespace, function, before=before, limit=limit)

    async def logs(
        self, tenant: str, activation_id: str, *, start: int, limit: int
    ) -> tuple[list[LogEntry], int | None]:
        """Read log lines from number `start` on, and the number to go on from (None: that was all)."""
        await self.get(tenant, activation_id)
        lines = await self._store.logs(tenant, activation_id, start, limit + 1)
        return lines[:limit], (start + limit if len(lines) > limit else None)

    async def cancel(self, tenant: str, activation_id: str) -> Activation:
        """Cancel an activation and answer it as it then is. Raises ValidationError or NotFoundError."""
        check_activation_id(activation_id)
        message = "cancelled by a caller"
        outcome = await self._store.cancel(tenant, activation_id, message)
        if outcome.kind == "running":
            # The mark on the record stops it at the next renewal of its lease; this is faster.
            await self._tell_owner(tenant, activation_id, outcome.owner, message)
        return await self.get(tenant, activation_id)

    async def _tell_owner(self, tenant: str, activation_id: str, owner: str, message: str) -> None:
        envelope = Envelope(
            message_id=ids.message_id(),
            tenant=tenant,
            publish_time=to_timestamp(self._clock.now()),
            cancel_request=CancelRequest(tenant=tenant, activation_id=activation_id, owner=owner, message=message),
        )
        await self._channel.push(instance_of(owner), envelope)


def instance_of(owner: str) -> str:
    """The instance of an owner token."""
    return owner.partition("/")[0]
