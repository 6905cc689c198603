"""Cells for the sandbox's tests: one pool for a worker's whole session, and a short way to run a function in it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from cs_sandbox import Bundle, CellPool, HostCalls, Job, Limits, Outcome, PoolSettings
from cs_sandbox.local import LocalHostCalls

TENANT = "t_test01"
RunFunction = Callable[..., Awaitable[Outcome]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool() -> AsyncIterator[CellPool]:
    async with CellPool(PoolSettings(cells_max=4)) as running:
        yield running


@pytest.fixture
def run(pool: CellPool) -> RunFunction:
    async def run_function(
        source: str | dict[str, str],
        *,
        event: Any = None,
        host: HostCalls | None = None,
        tenant: str = TENANT,
        env: dict[str, str] | None = None,
        context: dict[str, Any] | None = None,
        within: CellPool = pool,
        wall: float = 10.0,
        **limits: int,
    ) -> Outcome:
        job = make_job(source, event=event, tenant=tenant, env=env, context=context, wall=wall, **limits)
        return await within.run(job, host or LocalHostCalls())

    return run_function


def make_job(
    source: str | dict[str, str],
    *,
    event: Any = None,
    tenant: str = TENANT,
    env: dict[str, str] | None = None,
    context: dict[str, Any] | None = None,
    wall: float = 10.0,
    **limits: int,
) -> Job:
    files = {"index.js": source} if isinstance(source, str) else source
    return Job(
        tenant=tenant,
        bundle=Bundle.of_files({path: text.encode() for path, text in files.items()}),
        event=json.dumps(event).encode(),
        context=context or {"activation_id": "a", "attempt": 1},
        limits=Limits(wall=timedelta(seconds=wall), **limits),
        env=env or {},
    )


@pytest.fixture
def job() -> Callable[..., Job]:
    return make_job
