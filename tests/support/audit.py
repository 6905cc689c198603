"""What happened to each activation's record, as the server itself saw it: every write of a state, in order.

Reads MONITOR, which tells the commands of scripts too, so it does not depend on what any client believes.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

_STATE = re.compile(rb'"HSET" "cs:\{p\d+\}:activation:[^"/]+/([^"]+)" "state" "([A-Z]+)"(.*)')
_OWNER = re.compile(rb'"owner" "([^"]*)"')
_RUN = re.compile(rb'"(?:INCRBY|SET)" "cs:\{[^}]+\}:kv:v:runs:([0-9a-f-]{36})"')
_FINISH = re.compile(
    rb'"cs:\{p\d+\}:activation:[^"/]+/([^"]+)" "cs:\{p\d+\}:logs:[^"]+" "cs:\{p\d+\}:open:[^"]+"'
    rb' "cs:\{p\d+\}:ends" "([^"]*)"'
)
TERMINAL = frozenset({"SUCCESS", "ERROR", "TIMEOUT", "CANCELLED"})


@dataclass
class Audit:
    """The writes so far, by activation. A run is noted as `RUN` when its code counts itself (see `COUNTED`)."""

    states: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    """Pairs of state and owner."""
    begun: list[tuple[str, str]] = field(default_factory=list)
    """Pairs of activation and instance, of all begins in order."""
    _finishers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _marks: set[bytes] = field(default_factory=set)

    def take(self, line: bytes) -> None:
        """Note one line of MONITOR."""
        if found := _STATE.search(line):
            owner = _OWNER.search(found[3])
            event = (found[2].decode(), owner[1].decode() if owner else "")
            self.states[found[1].decode()].append(event)
            if event[0] == "RUNNING":
                self.begun.append((found[1].decode(), event[1].partition("/")[0]))
        elif found := _RUN.search(line):
            self.states[found[1].decode()].append(("RUN", ""))
        elif found := _FINISH.search(line):
            self._finishers[found[1].decode()].add(found[2].decode().partition("/")[0])
        elif b'"ECHO"' in line:
            self._marks.add(line.rsplit(b'"', 2)[1])

    def seen(self, mark: str) -> bool:
        """Whether everything before this mark was read."""
        return mark.encode() in self._marks

    def begins(self, activation: str) -> int:
        """How many runs were begun."""
        return sum(state == "RUNNING" for state, _ in self.states[activation])

    def runs(self, activation: str) -> int:
        """How many runs reached the code."""
        return sum(state == "RUN" for state, _ in self.states[activation])

    def begun_again(self, activation: str) -> int:
        """How often it was begun after a run that was not handed back before it reached the code."""
        count, begun, ran, handed_back = 0, False, False, False
        for state, _ in self.states[activation]:
            if state == "RUNNING":
                count += begun and (ran or not handed_back)
                begun, ran, handed_back = True, False, False
            ran = ran or state == "RUN"
            handed_back = handed_back or state == "QUEUED"
        return count

    def running(self, instance: str) -> set[str]:
        """What an instance holds now."""
        return {activation for activation, owner in self._holders() if owner.partition("/")[0] == instance}

    def finishers(self, activation: str) -> set[str]:
        """The instances that tried to finish it."""
        return self._finishers[activation]

    def terminal_writes(self, activation: str) -> int:
        """How often a terminal state was written."""
        return sum(state in TERMINAL for state, _ in self.states[activation])

    def written_after_the_end(self) -> list[str]:
        """Activations whose record was written, or whose code ran, after their terminal state."""
        found = []
        for activation, events in self.states.items():
            names = [state for state, _ in events]
            first = next((index for index, name in enumerate(names) if name in TERMINAL), len(names))
            if len(names) > first + 1:
                found.append(activation)
        return found

    def _holders(self) -> list[tuple[str, str]]:
        found = []
        for activation, events in self.states.items():
            states = [event for event in events if event[0] != "RUN"]
            if states and states[-1][0] == "RUNNING":
                found.append((activation, states[-1][1]))
        return found


class Auditor:
    """Reads along while a test runs."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._marks = 0
        self.audit = Audit()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Audit]:
        """Read for the length of the block."""
        reader, writer = await asyncio.open_unix_connection(str(self._server.socket), limit=2**26)
        writer.write(b"MONITOR\r\n")
        assert await reader.readline() == b"+OK\r\n"
        task = asyncio.create_task(self._read(reader))
        try:
            yield self.audit
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            writer.close()

    async def caught_up(self) -> Audit:
        """The audit, when everything that the server did before this call is in it."""
        self._marks += 1
        mark = f"mark-{self._marks}"
        reader, writer = await asyncio.open_unix_connection(str(self._server.socket))
        writer.write(f"ECHO {mark}\r\n".encode())
        await reader.readline()
        writer.close()
        await wait_until(lambda: self.audit.seen(mark), within=60)
        return self.audit

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            self.audit.take(line)
