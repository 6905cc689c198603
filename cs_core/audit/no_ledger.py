"""No ledger: the mutation log alone, for as long as its retention says."""

from __future__ import annotations

from collections.abc import Sequence

from cs_core.audit.contract import NOTHING, LedgerEntry, Verification


class NoLedger:
    """Takes everything and keeps nothing."""

    async def open(self, head: str) -> str:  # noqa: ARG002 - the contract's shape
        """See Ledger.open."""
        return NOTHING

    async def append(self, entries: Sequence[LedgerEntry]) -> str:  # noqa: ARG002 - the contract's shape
        """See Ledger.append."""
        return NOTHING

    async def verify(self, head: str) -> Verification:  # noqa: ARG002 - the contract's shape
        """See Ledger.verify."""
        return Verification(0, NOTHING)

    async def close(self) -> None:
        """See Ledger.close."""
