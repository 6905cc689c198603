"""What a ledger promises, whatever driver serves it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from codesous.control.v1.mutation_pb2 import LifecycleMutation

NOTHING = ""
"""The head of a ledger that has no entry."""


class LedgerError(Exception):
    """The ledger did not take what was to be appended; the message says why. Nothing is lost: the log still has it."""


class LedgerUnavailableError(LedgerError):
    """The ledger cannot be reached or written now."""


class LedgerDamagedError(LedgerError):
    """The ledger is not what was left there. It takes nothing more until somebody has looked at it."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A mutation, and its position in the log of its tenant."""

    position: str
    mutation: LifecycleMutation


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at the whole ledger found: how many entries hold, the head, and what is wrong, the first first."""

    entries: int
    head: str
    faults: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class Ledger(Protocol):
    """An append-only record of mutations that shows tampering.

    A head is opaque text that stands for the ledger up to some entry. Whoever keeps a head elsewhere can tell later
    that the end was cut off. One process at a time has a ledger open.
    """

    async def open(self, head: str) -> str:
        """Make the ledger ready for `append`; returns its head.

        Args:
            head: what `append` returned last, as it was kept elsewhere; `NOTHING` when nothing was kept.

        Raises:
            LedgerUnavailableError: it cannot be written, or another process has it open.
            LedgerDamagedError: it does not hold what `head` stands for.
        """
        ...

    async def append(self, entries: Sequence[LedgerEntry]) -> str:
        """Add entries in their order and return the head; they are durable by then.

        An entry whose mutation id is there already is left out.

        Raises:
            LedgerUnavailableError: it cannot be written; some of the entries may have been added.
            LedgerDamagedError: it was changed from outside while it was open.
        """
        ...

    async def verify(self, head: str) -> Verification:
        """Look at everything, without opening it; `head` as in `open`. Raises LedgerUnavailableError."""
        ...

    async def close(self) -> None:
        """Let go of it, so that another process may open it."""
        ...
