"""Keeps what an activation holds while it runs: the leases on its record, on its queue message, and on its slot.

Theory of operation: all leases are renewed at a quarter of their length, so three renewals may fail before anyone
else may take the activation. The record's lease decides. A refused renewal means that somebody else owns the
activation or that it is terminal: the work is cancelled and its outcome dropped. A refused extension of the message
alone changes nothing: whoever receives the message finds the record busy and puts it back. A store that is away says
nothing about ownership, so the work goes on: nobody can take the activation over through a store that is away, and
the owner token decides at finish. The renewing itself is done in another thread (`renewal.py`), because this one's
event loop may be held up for longer than a lease.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import structlog
from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.codeq import Delivery
from cs_core.errors import UnavailableError
from cs_core.store.activations import ActivationStore

from .interruption import Interruption

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")

RENEWALS_PER_LEASE = 4


class LeaseLostError(Exception):
    """The activation belongs to another owner now, or it is terminal."""


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
class Holding:
    """An activation that an owner holds, and whom to tell, in the owner's loop, what its renewals find."""

    delivery: Delivery
    request: InvocationRequest
    owner: str
    on_renewed: Callable[[timedelta], None]
    """Told the length for which the record's lease holds from now."""
    on_cancel: Callable[[], None]
    """The record is marked to be stopped."""


class Renewals(Protocol):
    """Renews leases, without help from the event loop of whoever holds them."""

    def keep(self, holding: Holding, on_lost: Callable[[], None]) -> AbstractContextManager[None]:
        """Renew what is held for the length of the block; `on_lost` is told, in the holder's loop, when it is lost."""
        ...


class Leases:
    """Runs work under the leases of an activation, and ends them."""

    def __init__(self, activations: ActivationStore, renewals: Renewals) -> None:
        self._activations = activations
        self._renewals = renewals

    async def hold(self, holding: Holding, work: Coroutine[Any, Any, _T]) -> _T:
        """The outcome of `work`. Raises LeaseLostError, the work cancelled and ended, when the activation is lost."""
        with Interruption() as running, self._renewals.keep(holding, running.interrupt):
            return await work
        raise LeaseLostError

    async def release(self, holding: Holding) -> None:
        """Hand the activation back, so that the next delivery can begin; best effort, the lease would end by itself."""
        ref = holding.request.function
        try:
            await self._activations.release(ref.tenant, holding.request.activation_id, holding.owner)
        except UnavailableError as error:
            _log.warning("the activation could not be handed back", reason=error.reason)

    async def lapse(self, holding: Holding) -> None:
        """End the lease now, as if its owner had died: the next delivery counts a crash. Best effort."""
        ref = holding.request.function
        try:
            await self._activations.renew(ref.tenant, holding.request.activation_id, holding.owner, timedelta(0))
        except UnavailableError as error:
            _log.warning("the lease on the record could not be ended", reason=error.reason)
