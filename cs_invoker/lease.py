"""Keeps what an activation holds while it runs: the leases on its record, on its queue message, and on its slot.

Theory of operation: all leases are renewed at a quarter of their length, so three renewals may fail before anyone
else may take the activation. The record's lease decides. A refused renewal means that somebody else owns the
activation or that it is terminal: the work is cancelled and its outcome dropped. A refused extension of the message
alone changes nothing: whoever receives the message finds the record busy and puts it back. A store that is away says
nothing about ownership, so the work goes on: nobody can take the activation over through a store that is away, and
the owner token decides at finish.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import structlog
from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.codeq import Delivery, Queue
from cs_core.errors import UnavailableError
from cs_core.store.activations import ActivationStore

from .backoff import Backoff
from .slots import Slots

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

RENEWALS_PER_LEASE = 4


class LeaseLostError(Exception):
    """The activation belongs to another owner now, or it is terminal."""


class Renewals(Protocol):
    """Renews the two leases of one activation."""

    async def renew_activation(self) -> bool:
        """Renew the lease on the record; False when it is lost. Raises UnavailableError."""
        ...

    async def extend_message(self) -> bool:
        """Extend the lease on the message; False when it is lost. Raises UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long each lease holds from its last renewal."""

    record: timedelta
    """Of the activation's record."""
    message: timedelta
    """Of the message. Longer than the record's, so that a message comes back to a record that can be begun."""

    @property
    def renewal(self) -> timedelta:
        """Time between two renewals."""
        return min(self.record, self.message) / RENEWALS_PER_LEASE


@dataclass(frozen=True, slots=True)
class ActivationLease:
    """The two leases of one activation, as the store and the queue keep them."""

    activations: ActivationStore
    queue: Queue
    lengths: Lengths
    delivery: Delivery
    request: InvocationRequest
    owner: str
    slots: Slots
    on_renewed: Callable[[timedelta], None]

    async def renew_activation(self) -> bool:
        """Renew the lease on the record; False when it is lost. Raises UnavailableError."""
        owned, _ = await asyncio.gather(
            self._renew(self.lengths.record), self.slots.renew(self.request.function, self.owner)
        )
        if owned:
            self.on_renewed(self.lengths.record)
        return owned

    async def extend_message(self) -> bool:
        """Extend the lease on the message; False when it is lost. Raises UnavailableError."""
        return await self.queue.extend(self.delivery, self.lengths.message)

    async def release(self) -> None:
        """Hand the activation back, so that the next delivery can begin; best effort, the lease would end by itself."""
        ref = self.request.function
        try:
            await self.activations.release(ref.tenant, self.request.activation_id, self.owner)
        except UnavailableError as error:
            _log.warning("the activation could not be handed back", reason=error.reason)

    async def lapse(self) -> None:
        """End the lease now, as if its owner had died: the next delivery counts a crash. Best effort."""
        try:
            await self._renew(timedelta(0))
        except UnavailableError as error:
            _log.warning("the lease on the record could not be ended", reason=error.reason)

    async def _renew(self, length: timedelta) -> bool:
        ref = self.request.function
        return await self.activations.renew(ref.tenant, self.request.activation_id, self.owner, length)


@dataclass(frozen=True, slots=True)
class Leases:
    """Makes the leases of activations."""

    activations: ActivationStore
    queue: Queue
    slots: Slots
    lengths: Lengths

    def of(
        self,
        delivery: Delivery,
        request: InvocationRequest,
        owner: str,
        *,
        on_renewed: Callable[[timedelta], None] = lambda _length: None,
    ) -> ActivationLease:
        """The leases that `owner` holds. `on_renewed` is told the length from now on at each renewal."""
        return ActivationLease(
            self.activations, self.queue, self.lengths, delivery, request, owner, self.slots, on_renewed
        )


class LeaseKeeper:
    """Runs work under the leases of one activation."""

    def __init__(self, renewals: Renewals, lengths: Lengths) -> None:
        self._renewals = renewals
        self._interval = lengths.renewal.total_seconds()
        self._backoff = Backoff(longest=lengths.renewal)

    async def hold(self, work: Coroutine[Any, Any, _T]) -> _T:
        """The outcome of `work`. Raises LeaseLostError, the work cancelled and ended, when the activation is lost."""
        running = asyncio.ensure_future(work)
        renewal = asyncio.ensure_future(self._renew_until_lost())
        try:
            await asyncio.wait({running, renewal}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            renewal.result()
            raise LeaseLostError
        finally:
            running.cancel()
            renewal.cancel()
            await asyncio.gather(running, renewal, return_exceptions=True)

    async def _renew_until_lost(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            if not await self._renew():
                return

    async def _renew(self) -> bool:
        self._backoff.reset()
        while True:
            try:
                owned, held = await asyncio.gather(self._renewals.renew_activation(), self._renewals.extend_message())
            except UnavailableError as error:
                _log.warning("the leases could not be renewed, trying again", reason=error.reason)
                await asyncio.sleep(self._backoff.next())
                continue
            if owned and not held:
                _log.info("the message is leased to another consumer, who will find the activation busy")
            return owned
