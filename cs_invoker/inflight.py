"""The activations that this process runs now: counted, listed by AdminService.ListLeases, cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from codesous.admin.v1.process_pb2 import Lease
from codesous.queue.v1.invocation_pb2 import InvocationRequest

from cs_core.clock import Clock, to_timestamp

from .function_runs import FunctionRuns
from .interruption import Cancellation


@dataclass(slots=True)
class Entry:
    """One activation that is held."""

    tenant: str
    activation_id: str
    owner: str
    lease_until: datetime
    now: Callable[[], datetime]
    cancel: Cancellation = field(default_factory=Cancellation)

    def extend(self, length: timedelta) -> None:
        """Note that the lease holds for `length` from now."""
        self.lease_until = self.now() + length


class Inflight:
    """The set of held activations."""

    def __init__(self, clock: Clock, on_change: Callable[[int], None] = lambda _count: None) -> None:
        """`on_change` is told the number of entries after each change."""
        self._entries: dict[str, Entry] = {}
        self._held: set[tuple[str, str]] = set()
        self._clock = clock
        self.functions = FunctionRuns()
        self._on_change = on_change

    def __len__(self) -> int:
        return len(self._entries)

    def runs(self, tenant: str, activation_id: str) -> bool:
        """Whether this process holds the activation now."""
        return (tenant, activation_id) in self._held

    @contextmanager
    def hold(self, request: InvocationRequest, owner: str, lease: timedelta) -> Iterator[Entry]:
        """Count the activation in for the length of the block."""
        now = self._clock.now
        entry = Entry(request.function.tenant, request.activation_id, owner, now() + lease, now)
        self._entries[owner] = entry
        self._held.add((entry.tenant, entry.activation_id))
        self._on_change(len(self._entries))
        try:
            with self.functions.run(request.function):
                yield entry
        finally:
            del self._entries[owner]
            self._held.discard((entry.tenant, entry.activation_id))
            self._on_change(len(self._entries))

    def cancel(self, owner: str) -> bool:
        """Ask the run that this owner token stands for to stop; False when it is not here (any more)."""
        entry = self._entries.get(owner)
        if entry is None:
            return False
        entry.cancel.set()
        return True

    def leases(self) -> list[Lease]:
        """What is held, by activation id."""
        return [
            Lease(tenant=e.tenant, activation_id=e.activation_id, expire_time=to_timestamp(e.lease_until))
            for e in sorted(self._entries.values(), key=lambda entry: entry.activation_id)
        ]
