"""Steps that must reach the store: tried again while it is away, within a limit of time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import structlog

from cs_core.backoff import Backoff
from cs_core.errors import UnavailableError

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


async def persist(step: str, call: Callable[[], Awaitable[_T]], *, within: timedelta | None) -> _T:
    """The outcome of `call`, tried again with jittered backoff while the store is away.

    `within` bounds the tries; None tries until cancelled, for a step that the caller's lease bounds. Raises the last
    UnavailableError when the time is over. `call` must be safe to repeat.
    """
    backoff: Backoff | None = None
    loop = asyncio.get_running_loop()
    end = None if within is None else loop.time() + within.total_seconds()
    while True:
        try:
            return await call()
        except UnavailableError as error:
            backoff = backoff or Backoff()
            wait = backoff.next()
            if end is not None and loop.time() + wait >= end:
                raise
            _log.warning("the store is away, trying again", step=step, reason=error.reason, wait_seconds=round(wait, 3))
            await asyncio.sleep(wait)
