"""Starts the parts of a stack, keeps them running, and stops them in order.

Theory of operation. The store comes first, because every service's health depends on it, and is brought to the schema
of this release; the rest starts at once. One
task keeps each child. The stack is ready when each part says so itself, the proxy by what lies behind it. Stopping goes
from the outside in, so that nothing new comes in while what is there is finished: proxy, services, invoker, store.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from cs_cli.failure import SERVER, CommandError
from cs_cli.stack.child import Child
from cs_cli.stack.folders import Folders
from cs_cli.stack.plan import CADENCE, PROXY, REDIS, Plan
from cs_cli.stack.ports import HOST
from cs_cli.stack.readiness import grpc_ready, redis_ready
from cs_cli.stack.state import ProcessState, StackState, kill_leftovers, read_state, start_of
from cs_cli.stack.store_schema import prepare_store

READY_WITHIN: Final = 60.0
_POLL: Final = 0.05
_DEATHS_AT_START: Final = 2
_INVOKER: Final = "cs-invoker-pool"


@contextmanager
def sole_owner(folders: Folders) -> Iterator[None]:
    """Own the data directory for the length of the block. Raises CommandError when another stack does."""
    with folders.lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"a mesh runs on {folders.root} already; `cs status` shows it, `cs down` stops it"
            raise CommandError("CS_CLI_RUNNING", message) from error
        yield


class Supervisor:
    """The processes of one stack."""

    def __init__(
        self, plan: Plan, on_ready_part: Callable[[str], None] = lambda _name: None, *, migrate: bool = False
    ) -> None:
        """`on_ready_part` is told the name of each part that is ready; `migrate` is for a store that is not its own."""
        self._plan, self._migrate = plan, migrate
        self._on_ready_part = on_ready_part
        pid = os.getpid()
        self.state = StackState(ProcessState("supervisor", pid, start_of(pid)), plan.ports)
        self._children = {name: Child(spec, self._write) for name, spec in plan.specs().items()}
        self.state.children = [child.state for child in self._children.values()]

    async def run(self, stopping: asyncio.Event, on_ready: Callable[[], Awaitable[None]]) -> None:
        """Start everything, call `on_ready`, keep all running until `stopping` is set, then stop everything.

        Raises:
            CommandError: a part did not become ready; everything is stopped again.
        """
        earlier = read_state(self._plan.folders.state)
        if earlier is not None:
            kill_leftovers(earlier)
        self._write()
        try:
            async with asyncio.TaskGroup() as group:
                stop = asyncio.create_task(stopping.wait())
                try:
                    await _first(self._start(group, on_ready), stop)
                    await stopping.wait()
                finally:
                    stop.cancel()
                    await asyncio.shield(self._stop())
        except BaseExceptionGroup as errors:
            # What keeps the children raises nothing of its own: there is one error, and it says what is wrong.
            raise errors.exceptions[0] from None

    def kill(self) -> None:
        """End everything at once."""
        for child in self._children.values():
            child.kill()

    async def _start(self, group: asyncio.TaskGroup, on_ready: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._start_store(group)
            # This takes as long as there is data.
            self.state.migrated_from = await prepare_store(self._plan, migrate=self._migrate)
            async with asyncio.timeout(READY_WITHIN):
                await self._start_parts(group)
        except TimeoutError as error:
            raise self._late() from error
        await on_ready()
        self.state.ready = True
        self._write()

    async def _start_store(self, group: asyncio.TaskGroup) -> None:
        group.create_task(self._children[REDIS].keep())
        await self._wait_ready(REDIS)

    async def _start_parts(self, group: asyncio.TaskGroup) -> None:
        rest = [name for name in self._children if name != REDIS]
        for name in rest:
            group.create_task(self._children[name].keep())
        await asyncio.gather(*(self._wait_ready(name) for name in rest))

    async def _wait_ready(self, name: str) -> None:
        child = self._children[name]
        while not await self._is_ready(name):
            if child.deaths >= _DEATHS_AT_START:
                raise CommandError("CS_CLI_START", _why(child, "does not stay up"), SERVER)
            await asyncio.sleep(_POLL)
        self._on_ready_part(name)

    async def _is_ready(self, name: str) -> bool:
        if name == REDIS:
            return await redis_ready(self._plan.redis_socket)
        return await grpc_ready(HOST, self._children[name].spec.port)

    def _late(self) -> CommandError:
        late = [child for child in self._children.values() if child.deaths or not child.state.pid]
        child = late[0] if late else self._children[PROXY]
        return CommandError("CS_CLI_START", _why(child, f"is not ready within {READY_WITHIN:.0f} s"), SERVER)

    async def _stop(self) -> None:
        self.state.ready = False
        self._write()
        middle = [name for name in self._children if name not in (PROXY, REDIS, CADENCE, _INVOKER)]
        # Tasks in flight are answered before who asked for them is stopped.
        cadence = [name for name in self._children if name == CADENCE]
        for names in ([PROXY], middle, [_INVOKER, *cadence], [REDIS]):
            await asyncio.gather(*(self._children[name].stop() for name in names))
        self._plan.folders.state.unlink(missing_ok=True)

    def _write(self) -> None:
        self.state.write(self._plan.folders.state)


def _why(child: Child, what: str) -> str:
    lines = "\n".join(child.last_lines())
    return f"{child.spec.name} {what}; the end of its log ({child.spec.log}):\n{lines}"


async def _first(work: Awaitable[None], stop: asyncio.Task[bool]) -> None:
    """Do the work, unless `stop` comes first."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not working.done():
            working.cancel()
    try:
        await working
    except asyncio.CancelledError:
        if not stop.done():
            raise
