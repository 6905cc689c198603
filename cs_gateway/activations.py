"""Reading, waiting for and cancelling activations."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from codesous.gateway.v1.activation_pb2 import Activation
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.cancellation import Cancellation
from cs_core.errors import NotFoundError
from cs_core.names import Violations, check_activation_id, check_function, check_namespace
from cs_core.store.activations import ActivationStore
from cs_core.waiters import Waiters
from cs_gateway.watching import TERMINAL


class Activations:
    """What can be done with activations."""

    def __init__(self, store: ActivationStore, waiters: Waiters, cancellation: Cancellation) -> None:
        self._store = store
        self._waiters = waiters
        self._cancellation = cancellation

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
        await self._cancellation.cancel(tenant, activation_id, "cancelled by a caller")
        return await self.get(tenant, activation_id)
