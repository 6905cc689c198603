"""Measure what overlapping runs, prepared contexts and warm contexts are worth, each against doing without, in one run.

Run it as `python -m bench.contexts`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from codesous.cell.v1 import frames_pb2
from rich.console import Console
from rich.table import Table

from cs_sandbox import Bundle, CellPool, Job, Limits, PoolSettings
from cs_sandbox.activation import Activation, warm_up
from cs_sandbox.context import Context
from cs_sandbox.job import MIB

TENANT = "t_bench01"
RUNS = 200
WAIT = 0.1
ROUNDS = 5
ASK = b"export default async () => { await cs.kv.get('k'); return 1 }"


class Sleeper:
    """Host calls that take `WAIT`."""

    async def call(self, _method: str, _arguments: list[Any]) -> None:
        """Sleep."""
        await asyncio.sleep(WAIT)


def module(size: int, mark: str = "") -> bytes:
    """A module of about `size` bytes, with functions as a bundler would put them there."""
    one = "export function f{n}(a, b) {{ const t = a * {n} + b; return t > 3 ? [t, 'text {n}', {{k: t}}] : t }}\n"
    text, number = f"export default () => 1; // {mark}\n", 0
    while len(text) < size:
        text += one.format(n=number)
        number += 1
    return text.encode()


def job(source: bytes, **fields: Any) -> Job:
    """A job of one file."""
    limits = Limits(wall=timedelta(seconds=30), memory_bytes=64 * MIB)
    return Job(TENANT, Bundle.of_files({"index.js": source}), limits=limits, **fields)


async def seconds(work: Callable[[], Awaitable[object]]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


async def overlap(runs_per_cell: int, cells: int, runs: int) -> tuple[float, float]:
    """Seconds for many runs at once, each of which waits for one host call: the median of the rounds, and the least."""
    settings = PoolSettings(cells_max=cells, cells_per_tenant=cells, runs_per_cell=runs_per_cell)
    async with CellPool(settings) as pool:

        async def burst() -> None:
            outcomes = await asyncio.gather(*(pool.run(job(ASK), Sleeper()) for _ in range(runs)))
            if any(outcome.error for outcome in outcomes):
                raise RuntimeError("a run failed")

        await burst()
        samples = [await seconds(burst) for _ in range(ROUNDS)]
        return median(samples), min(samples)


async def isolation(size: int) -> tuple[float, float]:
    """Seconds of one run with a fresh context each, and with a warm one; by turns in one cell."""
    source = module(size)
    async with CellPool(PoolSettings(cells_max=1)) as pool:

        async def run(key: str) -> float:
            outcome = await pool.run(job(source, warm_key=key), Sleeper())
            return (outcome.end - outcome.start).total_seconds()

        samples: dict[str, list[float]] = {"": [], "v": []}
        for _ in range(50):
            for key, found in samples.items():
                found.append(await run(key))
        return median(samples[""][5:]), median(samples["v"][5:])


def preparation(size: int) -> tuple[float, float, float]:
    """Seconds until a run has its result: from the text of the module, from its bytecode, with a context at hand."""
    source = module(size)
    bundle = frames_pb2.LoadBundle(bundle_sha256="x", entry="index.js", files={"index.js": source})
    request = frames_pb2.Run(event=b"1", context=b"{}", memory_bytes=64 * MIB, timeout_ms=10_000)
    compiled: dict[str, bytes] = {}

    def once(bytecode: dict[str, bytes], ready: Context | None) -> float:
        began = time.perf_counter()
        context = ready or Context(bundle, bytecode)
        Activation(request, context, lambda _: None).advance()
        took = time.perf_counter() - began
        context.close()
        return took

    samples = [(once({}, None), once(compiled, None), once(compiled, Context(bundle, compiled))) for _ in range(100)]
    parsed, read, prepared = (median(column) for column in zip(*samples, strict=True))
    return parsed, read, prepared


async def memory() -> list[tuple[str, int, int]]:
    """Proportional and private memory of an idle cell, in bytes, with more and more on its shelf."""
    found = []
    async with CellPool(PoolSettings(cells_max=1)) as pool:

        def note(what: str) -> None:
            (pid,) = [cell.pid for cell in pool.cells() if cell.tenant]
            fields = {}
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
                name, amount = line.split(":")
                fields[name] = int(amount.split()[0]) * 1024
            found.append((what, fields["Pss"], fields["Private_Clean"] + fields["Private_Dirty"]))

        await pool.run(job(module(0)), Sleeper())
        note("one prepared context, of a small bundle")
        for number in range(8):
            await pool.run(job(module(10_000, str(number))), Sleeper())
        note("eight prepared contexts, of bundles of 10 KB")
        for number in range(8):
            await pool.run(job(module(10_000, str(number)), warm_key=f"v{number}"), Sleeper())
        for number in range(8):
            await pool.run(job(module(10_000, str(number))), Sleeper())
        note("a full shelf: eight warm contexts and eight prepared ones")
    return found


async def main() -> None:
    """Measure, and print a table."""
    warm_up()
    table = Table("what", "without", "with", "ratio")

    def row(what: str, without: float, done: float) -> None:
        table.add_row(what, f"{without * 1000:.2f} ms", f"{done * 1000:.2f} ms", f"{without / done:.1f}")

    (alone, _), (together, least) = await overlap(1, 4, RUNS // 10), await overlap(64, 4, RUNS)
    row(f"{RUNS} runs at once in 4 cells, each waits 100 ms for a host call", alone * 10, together)
    row("the same, the best of the rounds", alone * 10, least)
    parsed, read, prepared = preparation(10_000)
    row("a prepared context, 10 KB, against parsing", parsed, prepared)
    row("a prepared context, 10 KB, against bytecode", read, prepared)
    fresh, warm = await isolation(100_000)
    row("a warm context, 100 KB, against a prepared one", fresh, warm)
    Console().print(table)
    shelf = Table("an idle cell with", "PSS", "private")
    for what, proportional, private in await memory():
        shelf.add_row(what, f"{proportional / MIB:.1f} MiB", f"{private / MIB:.1f} MiB")
    Console().print(shelf)


if __name__ == "__main__":
    asyncio.run(main())
