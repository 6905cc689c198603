"""The default ledger: files of hash-chained JSON lines in one folder.

Theory of operation. One process at a time has the ledger open: it holds a lock on the file `lock` in the folder. Each
append is one write and one fdatasync, so what was acknowledged survives a crash of the machine. A crash in the middle
of a write leaves a last line without its newline, which the next opening cuts off: it was never acknowledged.

Duplicates are found among the ids of the last two files, which are read when the ledger is opened. The relay repeats
at most what it appended since it last stored its cursor, which is one batch.

Before each append the file must be the one that was left: its folder moved away, removed, cut or written to by another
are all seen, because an append to a file that nobody finds again would be a loss that nobody notices.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from cs_core.audit.chain import (
    ZERO,
    BrokenLineError,
    Link,
    Segment,
    decode,
    encode,
    lines,
    parse_head,
    segments,
    verify_chain,
)
from cs_core.audit.contract import (
    NOTHING,
    LedgerDamagedError,
    LedgerEntry,
    LedgerUnavailableError,
    Verification,
)

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")
_START: Final = Link(0, "", ZERO, "")


class FileLedger:
    """A ledger in a folder.

    Args:
        folder: where it is; made when it is not there and nothing is known of it.
        file_bytes: size at which the next file is begun.
    """

    def __init__(self, folder: Path, file_bytes: int) -> None:
        self._folder = folder
        self._file_bytes = file_bytes
        self._one_at_a_time = threading.Lock()
        self._lock: int | None = None
        self._file: int | None = None
        self._segment = Segment.starting_at(folder, 1)
        self._size = 0
        self._last = _START
        # Of the file before, and of the present one.
        self._ids: tuple[set[str], set[str]] = (set(), set())

    async def open(self, head: str) -> str:
        """See Ledger.open."""
        return await asyncio.to_thread(self._alone, self._open, head)

    async def append(self, entries: Sequence[LedgerEntry]) -> str:
        """See Ledger.append."""
        return await asyncio.to_thread(self._alone, self._append, entries)

    async def verify(self, head: str) -> Verification:
        """See Ledger.verify."""
        try:
            held, last, faults = await asyncio.to_thread(verify_chain, self._folder, head)
        except OSError as error:
            raise _unavailable(error) from error
        except ValueError as error:
            return Verification(0, NOTHING, (str(error),))
        return Verification(held, last, tuple(faults))

    async def close(self) -> None:
        """See Ledger.close."""
        await asyncio.to_thread(self._alone, self._close)

    def _alone(self, step: Callable[..., _T], *arguments: Any) -> _T:
        """Run a step when no other runs: one that its caller no longer waits for goes on in its thread."""
        with self._one_at_a_time:
            return step(*arguments)

    def _open(self, head: str) -> str:
        try:
            if head == NOTHING:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            self._read_tail()
            self._check_head(head)
            self._open_file()
        except OSError as error:
            self._close()
            raise _unavailable(error) from error
        except BaseException:
            self._close()
            raise
        return self._last.head if self._last.sequence else NOTHING

    def _take_lock(self) -> None:
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LedgerUnavailableError(f"another process has {self._folder} open") from error

    def _read_tail(self) -> None:
        """Find the end of the chain and the ids of the last two files; cut off a line that was not finished."""
        self._last, self._ids = _START, (set(), set())
        found = segments(self._folder)
        for segment in found[-2:]:
            self._ids = (self._ids[1], set())
            size = 0
            for number, line in enumerate(lines(segment.path), 1):
                if not line.endswith(b"\n") and segment is found[-1]:
                    _log.warning("an unfinished line was cut off", file=str(segment.path), bytes=len(line))
                    os.truncate(segment.path, size)
                    break
                link = self._follow(line, f"{segment.path.name} line {number}")
                self._last = link
                self._ids[1].add(link.mutation_id)
                size += len(line)
            self._segment, self._size = segment, size
        if not found:
            self._segment, self._size = Segment.starting_at(self._folder, 1), 0

    def _follow(self, line: bytes, place: str) -> Link:
        try:
            link = decode(line.removesuffix(b"\n"))
        except BrokenLineError as error:
            raise LedgerDamagedError(f"{place}: {error}") from error
        before = self._last
        if before.sequence and (link.sequence, link.previous) != (before.sequence + 1, before.hash):
            raise LedgerDamagedError(f"{place}: it does not follow from the line before it")
        return link

    def _check_head(self, head: str) -> None:
        if head == NOTHING:
            return
        try:
            sequence, digest = parse_head(head)
        except ValueError as error:
            raise LedgerDamagedError(str(error)) from error
        if self._hash_of(sequence) != digest:
            raise LedgerDamagedError(f"the ledger was known to reach entry {sequence} with hash {digest}, and does not")

    def _hash_of(self, sequence: int) -> str:
        """The hash of the line with a sequence; empty when there is none. Raises LedgerDamagedError."""
        holding = [segment for segment in segments(self._folder) if segment.first <= sequence]
        for line in lines(holding[-1].path) if holding else ():
            try:
                link = decode(line.removesuffix(b"\n"))
            except BrokenLineError as error:
                raise LedgerDamagedError(f"{holding[-1].path.name}: {error}") from error
            if link.sequence == sequence:
                return link.hash
        return ""

    def _open_file(self) -> None:
        created = not self._segment.path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(self._segment.path, flags, 0o600)
        # What a process that died wrote counts as there, so it has to stay there.
        os.fdatasync(self._file)
        if created:
            _sync_folder(self._folder)

    def _append(self, entries: Sequence[LedgerEntry]) -> str:
        try:
            self._check_unchanged(self._opened())
            if self._size >= self._file_bytes:
                self._rotate(self._opened())
            self._write(self._opened(), entries)
        except OSError as error:
            # How much of it was written is not known; the next opening finds out.
            self._close()
            raise _unavailable(error) from error
        return self._last.head if self._last.sequence else NOTHING

    def _opened(self) -> int:
        if self._file is None:
            raise LedgerUnavailableError("the ledger is not open")
        return self._file

    def _write(self, file: int, entries: Sequence[LedgerEntry]) -> None:
        last, added, data = self._last, set[str](), bytearray()
        for entry in entries:
            mutation_id = entry.mutation.mutation_id
            if mutation_id in added or any(mutation_id in known for known in self._ids):
                continue
            line, last = encode(entry, last.sequence + 1, last.hash)
            added.add(mutation_id)
            data += line
        if not data:
            return
        written = os.write(file, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")
        os.fdatasync(file)
        self._last, self._size = last, self._size + len(data)
        self._ids[1].update(added)

    def _check_unchanged(self, file: int) -> None:
        here, there = os.fstat(file), self._segment.path.stat()
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            self._close()
            raise LedgerUnavailableError(f"{self._segment.path} is not the file that was opened")
        if here.st_size != self._size:
            self._close()
            raise LedgerDamagedError(
                f"{self._segment.path} has {here.st_size} bytes and was left with {self._size}: another wrote to it"
            )

    def _rotate(self, file: int) -> None:
        os.close(file)
        self._file = None
        self._segment, self._size = Segment.starting_at(self._folder, self._last.sequence + 1), 0
        self._ids = (self._ids[1], set())
        self._open_file()

    def _close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor is not None:
                os.close(descriptor)
        self._file = self._lock = None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(error: OSError) -> LedgerUnavailableError:
    return LedgerUnavailableError(str(error))
