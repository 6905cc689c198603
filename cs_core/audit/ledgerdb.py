"""The ledger on a ledgerDB repository, driven by its command: https://github.com/osvaldoandrade/ledgerdb.

Theory of operation. Each mutation is one document: its collection is the tenant, its id the mutation's. A put is one
commit of the repository, whose history is append-only, so the order of the commits is the order of the mutations and
the head is the id of the newest commit.

The command knows no batch. Whether a mutation is there already is asked until one of its tenant is not: from there on
the tenant's are those that this opening put, which are remembered, or new, because one process at a time has the
ledger open and appends in order.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from cs_core.audit.contract import (
    NOTHING,
    LedgerDamagedError,
    LedgerEntry,
    LedgerUnavailableError,
    Verification,
)

_NOT_FOUND: Final = 3
_ERROR_CHARS: Final = 500
_REMEMBERED: Final = 10_000


class LedgerDb:
    """A ledger in a bare git repository of ledgerDB.

    Args:
        command: the ledgerdb executable, by path or as found on PATH. `git` must be on PATH too.
        repository: the repository; made when it is not there and nothing is known of it.
        name: name of the database, written when the repository is made.
        timeout: longest wait for one command, in seconds.
    """

    def __init__(self, command: str, repository: Path, name: str, timeout: float) -> None:
        self._command = command
        self._repository = repository
        self._name = name
        self._timeout = timeout
        self._lock: int | None = None
        self._head = NOTHING
        self._only_new: set[str] = set()
        self._put_here: OrderedDict[str, None] = OrderedDict()

    async def open(self, head: str) -> str:
        """See Ledger.open."""
        try:
            if head == NOTHING:
                self._repository.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            if head == NOTHING and not self._repository.exists():
                await self._run("init", "--name", self._name, "--layout", "sharded", "--history-mode", "append")
            await self._check_head(head)
            self._head = await self._status()
        except OSError as error:
            await self.close()
            raise LedgerUnavailableError(str(error)) from error
        except BaseException:
            await self.close()
            raise
        self._only_new.clear()
        self._put_here.clear()
        return self._head

    async def append(self, entries: Sequence[LedgerEntry]) -> str:
        """See Ledger.append."""
        if self._lock is None:
            raise LedgerUnavailableError("the ledger is not open")
        try:
            for entry in entries:
                await self._put(entry)
        except BaseException:
            # A put that was given up may have been made all the same.
            self._only_new.clear()
            raise
        return self._head

    async def verify(self, head: str) -> Verification:
        """See Ledger.verify."""
        faults = []
        try:
            await self._check_head(head)
        except LedgerDamagedError as error:
            faults.append(str(error))
        code, report = await self._try("integrity", "verify", "--deep")
        for issue in report.get("issues") or ():
            faults.append(f"{issue.get('stream_path', '')}: {issue.get('message', issue.get('code', ''))}")
        if code != 0 and not faults:
            faults.append(f"ledgerdb integrity verify ended with {code}")
        return Verification(int(report.get("valid", 0)), await self._status(), tuple(faults))

    async def close(self) -> None:
        """See Ledger.close."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        path = self._repository.with_name(f"{self._repository.name}.lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerUnavailableError(f"another process has {self._repository} open") from error

    async def _put(self, entry: LedgerEntry) -> None:
        mutation = entry.mutation
        if mutation.mutation_id in self._put_here:
            return
        if mutation.tenant not in self._only_new:
            code, _ = await self._try("doc", "get", mutation.tenant, mutation.mutation_id, accepted=(0, _NOT_FOUND))
            if code == 0:
                return
        document = {"position": entry.position, "mutation": MessageToDict(mutation, preserving_proto_field_name=True)}
        answer = await self._run(
            *("doc", "put", mutation.tenant, mutation.mutation_id, "--file", "/dev/stdin"),
            given=json.dumps(document).encode(),
        )
        self._only_new.add(mutation.tenant)
        self._put_here[mutation.mutation_id] = None
        if len(self._put_here) > _REMEMBERED:
            self._put_here.popitem(last=False)
        self._head = str(answer.get("commit", self._head))

    async def _status(self) -> str:
        return str((await self._run("status")).get("head", NOTHING))

    async def _check_head(self, head: str) -> None:
        if not self._repository.exists():
            raise LedgerUnavailableError(f"{self._repository} is not there")
        if head == NOTHING:
            return
        code, _, said = await self._execute(
            "git", "-C", str(self._repository), "merge-base", "--is-ancestor", head, "HEAD"
        )
        if code != 0:
            raise LedgerDamagedError(f"the ledger was known to reach commit {head}, and does not: {said}")

    async def _run(self, *arguments: str, given: bytes = b"") -> dict[str, Any]:
        return (await self._try(*arguments, given=given, accepted=(0,)))[1]

    async def _try(
        self, *arguments: str, given: bytes = b"", accepted: Sequence[int] = ()
    ) -> tuple[int, dict[str, Any]]:
        """Run a command of ledgerdb; its exit code and what it answered. With `accepted`, other codes are an error."""
        # Writes go to the remote, if there is one, when its operator says so: not once per mutation.
        code, out, said = await self._execute(
            self._command, "--repo", str(self._repository), "--json", "--sync=false", *arguments, given=given
        )
        if accepted and code not in accepted:
            raise LedgerUnavailableError(f"ledgerdb {' '.join(arguments[:2])} ended with {code}: {said}")
        try:
            answer = json.loads(out) if out.strip() else {}
        except ValueError as error:
            raise LedgerUnavailableError(f"ledgerdb {' '.join(arguments[:2])} answered no JSON") from error
        return code, answer if isinstance(answer, dict) else {}

    async def _execute(self, *command: str, given: bytes = b"") -> tuple[int, bytes, str]:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise LedgerUnavailableError(f"{command[0]} cannot be run: {error}") from error
        try:
            async with asyncio.timeout(self._timeout):
                out, said = await process.communicate(given)
        except TimeoutError as error:
            raise LedgerUnavailableError(f"{command[0]} did not end within {self._timeout:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, out, said.decode("utf-8", "replace").strip()[:_ERROR_CHARS]
