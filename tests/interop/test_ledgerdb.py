"""The ledgerdb driver on the real command, and the command's own verification of what it wrote.

The command is installed with the module client of Go, so this runs only when `CODE_SOUS_INTEROP=1`. `LEDGERDB_BIN`
names one that is installed already.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cs_core.audit.contract import NOTHING
from tests.support.ledgers import TENANTS, KeptInGit, ids, make_entries

MODULE = "github.com/osvaldoandrade/ledgerdb/cmd/ledgerdb@latest"
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        os.environ.get("CODE_SOUS_INTEROP") != "1", reason="CODE_SOUS_INTEROP is not 1: the command is installed"
    ),
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("interop"),
]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real command; skips, with what was answered, where it cannot be had."""
    if given := os.environ.get("LEDGERDB_BIN"):
        return given
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None or shutil.which("git") is None:
        pytest.skip("not on this machine: go and git")
    place = tmp_path_factory.mktemp("go")
    environment = {**os.environ, "GOBIN": str(place / "bin"), "GOFLAGS": "-modcacherw", "GOPATH": str(place)}
    done = subprocess.run([go, "install", MODULE], check=False, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        pytest.skip(f"go install {MODULE}: {done.stderr.strip()}")
    return str(place / "bin" / "ledgerdb")


async def test_what_the_driver_writes_the_command_verifies(command: str, tmp_path: Path) -> None:
    kept = KeptInGit(command, tmp_path / "ledger.git")
    entries = [*make_entries(3), *make_entries(2, TENANTS[1])]
    ledger = kept.ledger()
    await ledger.open(NOTHING)
    head = await ledger.append(entries[:4])
    await ledger.close()
    again = kept.ledger()
    assert await again.open(head) == head
    head = await again.append(entries)
    assert await kept.read() == ids(entries)
    found = await again.verify(head)
    assert (found.entries, found.head, found.faults) == (5, head, ())
    await again.close()
    report = subprocess.run(
        [command, "--repo", kept.repository, "--json", "integrity", "verify", "--deep"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(report.stdout)["valid"] == 5
