"""The store of an earlier commit, as `tests/fixtures/store_v0` has it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).parents[1] / "fixtures" / "store_v0" / "store.tar.gz"


def unpack_old_store(folder: Path) -> dict[str, Any]:
    """Put the data directory into a folder (redis-server's files are in `store/`); what is known of it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    known: dict[str, Any] = json.loads((folder / "known.json").read_text())
    return known
