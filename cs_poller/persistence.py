"""Steps on the store that are tried until the store is back, or until they are of no use any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from cs_core.backoff import Backoff
from cs_core.clock import Clock
from cs_core.errors import UnavailableError

_T = TypeVar("_T")


async def insist(step: Callable[[], Awaitable[_T]], clock: Clock, until: datetime) -> _T:
    """Do a step that may be repeated. Raises UnavailableError when it did not work until then."""
    backoff = Backoff()
    while True:
        try:
            return await step()
        except UnavailableError:
            wait = backoff.next()
            if (until - clock.now()).total_seconds() < wait:
                raise
            await asyncio.sleep(wait)
