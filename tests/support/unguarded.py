"""An invoker with some of its guards off, or with a fault that a test can set off: for control runs.

`python -m tests.support.unguarded NAME... -- ARGUMENTS` patches what the names stand for, then runs the invoker's main
with the arguments. The product has no such switches.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from cs_core.codeq import Delivery
from cs_core.store import activations, keys
from cs_core.store.activations import Renewal
from cs_core.store.scripts import Script
from cs_invoker import __main__ as invoker_main
from cs_invoker import consumer, execution, job, renewal, runner, slots
from cs_sandbox import cell_process

STALL_SECONDS = 5.0
CRASH_MARK = "crashes its cell"
"""In a bundle's entry: what `crashes` looks for."""


def ack_first() -> None:
    """Acknowledge a message when it is received: whoever dies takes it along."""
    process = execution.Execution.process

    async def acked(self: Any, delivery: Delivery) -> None:
        await self._parts.conclusion.queue.ack([delivery])
        await process(self, delivery)

    execution.Execution.process = acked  # type: ignore[method-assign]


def no_fence() -> None:
    """Let finish write whatever the record's state and owner are."""
    activations._FINISH = unfenced(activations._FINISH)


def unfenced(finish: Script) -> Script:
    """The finish script without its two refusals."""
    first = finish.text.index("if state ~= 'QUEUED' and state ~= 'RUNNING' then")
    last = finish.text.index("redis.call('HSET', KEYS[1], 'state', ARGV[2]")
    text = finish.text[:first] + finish.text[last:]
    return Script(text, "0" * 40)


def blind() -> None:
    """Renew nothing, and believe that all is well: a holder that does not notice what it lost."""

    async def ask(*_: Any) -> tuple[Renewal, bool]:
        return Renewal(owned=True), True

    renewal.RenewalThread._ask = ask  # type: ignore[method-assign]


def renew_on_the_loop() -> None:
    """Renew in the event loop of the process instead of in a thread."""

    @asynccontextmanager
    async def running(self: Any) -> AsyncIterator[None]:
        self._holder = asyncio.get_running_loop()
        self._sign = float("inf")
        task = asyncio.create_task(self._renew_all())
        yield
        self._stopping.set()
        await task

    renewal.RenewalThread.running = running  # type: ignore[method-assign]


def stalls() -> None:
    """Hold the event loop up on SIGUSR1: asleep, or on SIGUSR2, at work. A fault, not a guard."""
    run = invoker_main.run

    def work() -> None:
        end = time.monotonic() + STALL_SECONDS
        while time.monotonic() < end:
            pass

    async def stallable(*arguments: Any) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, time.sleep, STALL_SECONDS)
        loop.add_signal_handler(signal.SIGUSR2, work)
        await run(*arguments)

    invoker_main.run = stallable


def crashes() -> None:
    """Kill the cell in the middle of every run of a bundle that bears the mark. A fault, not a guard."""
    run = cell_process.CellProcess.run

    async def crashing(self: Any, job: Any, *others: Any) -> Any:
        if CRASH_MARK.encode() in job.bundle.files[job.bundle.entry]:
            asyncio.get_running_loop().call_later(0.1, _kill, self.pid)
        return await run(self, job, *others)

    cell_process.CellProcess.run = crashing  # type: ignore[method-assign]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def no_crash_limit() -> None:
    """Begin an activation again however often it has crashed."""
    init = execution.Execution.__init__

    def unlimited(self: Any, parts: Any, policy: execution.Policy, *others: Any, **named: Any) -> None:
        init(self, parts, replace(policy, max_deliveries=10**9), *others, **named)

    execution.Execution.__init__ = unlimited  # type: ignore[method-assign]


def one_partition() -> None:
    """Put all tenants into one partition."""
    keys.tenant_partitions = lambda _tenant, _partitions: (0,)


def no_share() -> None:
    """Let the messages of one partition take every permit."""
    consumer.Consumer._room = lambda self, _partition: self._permits.total  # type: ignore[method-assign]
    consumer.Consumer._any_full = lambda _self: False  # type: ignore[method-assign]


def no_deadline() -> None:
    """Take no notice of deadlines."""
    for module in (execution, runner):
        module.expired = lambda _request, _now: False  # type: ignore[attr-defined]
    for module in (job, runner):
        module.deadline_of = lambda _request: None  # type: ignore[attr-defined]


def keep_slots() -> None:
    """Give no slot back."""

    def kept(*_: Any) -> None:
        return

    slots.Slots._give_back = kept  # type: ignore[method-assign]


OFF: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        ack_first,
        no_fence,
        blind,
        renew_on_the_loop,
        stalls,
        crashes,
        no_crash_limit,
        one_partition,
        no_share,
        no_deadline,
        keep_slots,
    )
}


if __name__ == "__main__":
    split = sys.argv.index("--")
    for name in sys.argv[1:split]:
        OFF[name]()
    sys.argv[1:] = sys.argv[split + 1 :]
    sys.exit(invoker_main.main())
