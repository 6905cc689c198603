"""Watching one activation: its states, its log lines, its result, each once and in order.

Theory of operation: the record and its log are read again on a short timer, which costs one round trip to the store
and can miss nothing, whoever runs the activation and whatever breaks in between. A state is told when it differs from
the last that was told; a terminal one is told last, after all lines, because the store writes both in one step.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from codesous.gateway.v1.activation_pb2 import Activation
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from codesous.type.v1.log_entry_pb2 import LogEntry

from cs_core.errors import NotFoundError, ValidationError
from cs_core.names import check_activation_id
from cs_core.store.activations import ActivationStore

TERMINAL = frozenset(
    {
        ActivationStatus.ACTIVATION_STATUS_SUCCESS,
        ActivationStatus.ACTIVATION_STATUS_ERROR,
        ActivationStatus.ACTIVATION_STATUS_TIMEOUT,
        ActivationStatus.ACTIVATION_STATUS_CANCELLED,
    }
)
INTERVAL = 0.1
"""Seconds between two looks."""
_LINES = 500
_CURSOR = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """What was told so far: the last state and the run that it was of, and how many log lines."""

    status: int = 0
    attempt: int = 0
    lines: int = 0

    def __str__(self) -> str:
        return f"{self.status}.{self.attempt}.{self.lines}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor; empty text is the start. Raises ValidationError."""
        if not text:
            return cls()
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValidationError.field("cursor", "must be one that this method gave out")
        return cls(*(int(part) for part in found.groups()))


@dataclass(frozen=True, slots=True)
class Watched:
    """Something that happened, and where it stands."""

    cursor: Cursor
    what: Activation | LogEntry

    @property
    def kind(self) -> str:
        """`activation` or `log`."""
        return "activation" if isinstance(self.what, Activation) else "log"


class Watching:
    """Watches activations."""

    def __init__(self, store: ActivationStore, interval: float = INTERVAL) -> None:
        self._store = store
        self._interval = interval

    async def watch(self, tenant: str, activation_id: str, cursor: str) -> AsyncIterator[Watched]:
        """Tell what happens from `cursor` on; ends after the terminal state.

        Raises:
            ValidationError: the id or the cursor is none.
            NotFoundError: there is no such activation.
            UnavailableError: the store does not answer.
        """
        check_activation_id(activation_id)
        at = Cursor.parse(cursor)
        while True:
            # The record first: a terminal one is read with all of its lines behind it.
            activation, lines = await asyncio.gather(
                self._store.get(tenant, activation_id), self._store.logs(tenant, activation_id, at.lines, _LINES)
            )
            if activation is None:
                raise NotFoundError("activation", activation_id)
            here = replace(at, status=int(activation.status), attempt=activation.attempt)
            ended = activation.status in TERMINAL
            if here != at and not ended:
                at = here
                yield Watched(at, activation)
            for line in lines:
                at = replace(at, lines=at.lines + 1)
                yield Watched(at, line)
            if len(lines) == _LINES:
                continue
            if ended:
                yield Watched(replace(at, status=int(activation.status), attempt=activation.attempt), activation)
                return
            await asyncio.sleep(self._interval)
