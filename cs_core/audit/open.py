"""The ledger that the settings name."""

from __future__ import annotations

from pathlib import Path

from cs_core.audit.contract import Ledger
from cs_core.audit.file_ledger import FileLedger
from cs_core.audit.ledgerdb import LedgerDb
from cs_core.audit.no_ledger import NoLedger
from cs_core.config import AuditSettings


def ledger_of(settings: AuditSettings) -> Ledger:
    """Make the ledger; it opens nothing yet."""
    match settings.driver:
        case "file":
            return FileLedger(Path(settings.path), settings.file_bytes)
        case "ledgerdb":
            return LedgerDb(settings.ledgerdb_command, Path(settings.path), settings.name, settings.timeout)
        case "none":
            return NoLedger()
