"""Run as a program: owns a pool, runs hostile functions in it, and prints what it holds itself as it goes.

`python hostile_owner.py RUNS [--keep]` prints one JSON object a line: runs so far, and of this process its resident
bytes, open descriptors, tasks and live objects. `--keep` holds on to every outcome, as an owner that leaks would.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

from cs_sandbox import CellPool, PoolSettings
from cs_sandbox.job import MIB
from tests.sandbox.conftest import make_job
from tests.sandbox.hostile import TIMEOUT, Hostile, handler
from tests.sandbox.hostile_functions import ALLOCATIONS, HOSTILE
from tests.sandbox.test_hostile_functions import Host

SAMPLES = 50
AT_ONCE = 4
SHORT = 0.03
"""Seconds of wall clock for functions that do not end: this many runs are to fit into minutes."""


def functions() -> list[Hostile]:
    """The table and the allocations, those that do not end with little time."""
    hogs = [Hostile("allocations", name, handler(body), ("MEMORY_LIMIT",)) for name, body in ALLOCATIONS.items()]
    table = [*HOSTILE, *(replace(hog, wall=0.15, memory_mib=16) for hog in hogs)]
    return [
        replace(found, wall=SHORT) if TIMEOUT in found.ends else replace(found, wall=min(found.wall, 0.5))
        for found in table
    ]


def held() -> dict[str, int]:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return {
        "resident": resident,
        "descriptors": descriptors,
        "tasks": len(asyncio.all_tasks()),
        "objects": len(gc.get_objects()),
    }


async def main(runs: int, *, keep: bool) -> None:
    logging.disable(logging.CRITICAL)
    choice = random.Random(7)
    table = functions()
    kept = []
    async with CellPool(PoolSettings(cells_max=AT_ONCE)) as pool:

        async def one(number: int) -> None:
            found = choice.choice(table)
            tenant = f"t_hostile{number % 3}"
            job = make_job(found.source, tenant=tenant, wall=found.wall, memory_bytes=found.memory_mib * MIB)
            outcome = await pool.run(job, Host())
            if keep:
                kept.append((outcome, job))

        done = 0
        step = max(AT_ONCE, runs // SAMPLES)
        while done < runs:
            for _ in range(max(1, step // AT_ONCE)):
                await asyncio.gather(*(one(done + n) for n in range(AT_ONCE)))
                done += AT_ONCE
            print(json.dumps({"runs": done, **held()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), keep="--keep" in sys.argv))
