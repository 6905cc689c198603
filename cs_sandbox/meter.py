"""How much work a cell may make for its supervisor: an allowance that refills with time, and what is over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(slots=True)
class Meter:
    """An allowance in bytes. Spending is never refused: what is over it is a debt, told as the time until it is paid.

    Host calls cost their supervisor parsing and checking whether they are allowed or not, and a cell can make them as
    fast as it runs. The supervisor is one thread for all tenants, so it stops reading from a cell in debt.

    Attributes:
        rate: bytes a second that come back.
        burst: bytes at most.
        call_cost: bytes that a host call counts beyond its arguments.
    """

    rate: float = 8 * MIB
    burst: float = 8 * MIB
    call_cost: float = 1024
    _left: float = 0.0
    _since: float = float("-inf")

    def spend(self, amount: float, now: float) -> float:
        """Take bytes at a time in seconds; the seconds until the debt is paid, 0 when there is none."""
        self._left = min(self.burst, self._left + (now - self._since) * self.rate) - amount
        self._since = now
        return max(0.0, -self._left / self.rate)
