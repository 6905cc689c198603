"""Ledgers of every driver, mutations to put into them, and a way to read them back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from codesous.control.v1.function_pb2 import Function
from codesous.control.v1.mutation_pb2 import FunctionCreated, LifecycleMutation
from ulid import ULID

from cs_core.audit import chain
from cs_core.audit.contract import Ledger, LedgerEntry
from cs_core.audit.file_ledger import FileLedger
from cs_core.audit.ledgerdb import LedgerDb

TENANTS = ("t_alpha0", "t_beta00")


def make_entry(number: int, tenant: str = TENANTS[0]) -> LedgerEntry:
    """The mutation of a new function `fn-<number>`."""
    function = Function(tenant=tenant, namespace="default", function=f"fn-{number}", description="ä\n\u2028")
    return LedgerEntry(
        f"{1000 + number}-0",
        LifecycleMutation(
            mutation_id=f"mut_{ULID()}",
            tenant=tenant,
            namespace="default",
            function_created=FunctionCreated(function=function),
        ),
    )


def make_entries(count: int, tenant: str = TENANTS[0]) -> list[LedgerEntry]:
    """That many of a tenant."""
    return [make_entry(number, tenant) for number in range(count)]


def ids(entries: Sequence[LedgerEntry]) -> list[str]:
    """Their mutation ids."""
    return [entry.mutation.mutation_id for entry in entries]


class Kept(Protocol):
    """A place for a ledger; whoever opens it twice opens the same."""

    def ledger(self) -> Ledger:
        """Another hand on the ledger, as another process would have it."""
        ...

    async def read(self) -> list[str]:
        """The mutation ids that it holds, in its order."""
        ...


@dataclass(frozen=True)
class KeptInFiles:
    """A file ledger."""

    folder: Path
    file_bytes: int = 64 * 1024 * 1024

    def ledger(self) -> Ledger:
        return FileLedger(self.folder, self.file_bytes)

    async def read(self) -> list[str]:
        return ids(self.entries())

    def entries(self) -> list[LedgerEntry]:
        """What it holds."""
        return [
            chain.decode_entry(line.removesuffix(b"\n"))
            for segment in chain.segments(self.folder)
            for line in chain.lines(segment.path)
        ]


@dataclass(frozen=True)
class KeptInGit:
    """A ledgerDB repository."""

    command: str
    repository: Path

    def ledger(self) -> Ledger:
        return LedgerDb(self.command, self.repository, "test", 30.0)

    async def read(self) -> list[str]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[str]:
        """The order is that of the commits; what each put is told by the documents it added."""
        found = []
        for commit in self._git("rev-list", "--reverse", "HEAD").split():
            for path in self._git("diff-tree", "--root", "-r", "--name-only", "--no-commit-id", commit).split("\n"):
                if path.startswith("documents/") and "/tx/" in path:
                    blob = self._git("rev-parse", f"{commit}:{path}").strip()
                    shown = subprocess.run(
                        [self.command, "--repo", self.repository, "--json", "inspect", "blob", blob],
                        check=True,
                        capture_output=True,
                        text=True,
                    )
                    found.append(json.loads(shown.stdout)["doc_id"])
        return found

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.repository), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def stand_in(folder: Path) -> str:
    """An executable that answers as ledgerdb does, for as much of its command line as the driver uses."""
    path = folder / "ledgerdb"
    path.write_text(f"#!{sys.executable}\n" + Path(__file__).with_name("ledgerdb_stand_in.py").read_text())
    path.chmod(0o755)
    return str(path)
