"""Whether a process is ready for work, told truthfully and with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from cs_core.clock import Clock
from cs_core.errors import CodeSousError

_log = structlog.get_logger(__name__)
# A probe returns when its thing is there, and raises otherwise.
Probe = Callable[[], Awaitable[None]]
_Status = health_pb2.HealthCheckResponse


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one probe; `message` says what is wrong.

    `since` is from when on it has been there, or not; `last_error` is what was wrong last, whether or not it is now.
    """

    name: str
    ready: bool
    message: str = ""
    since: datetime | None = None
    last_error: str = ""
    last_error_time: datetime | None = None


class Readiness:
    """Runs the probes again and again and keeps the health service in step with them."""

    def __init__(self, probes: Mapping[str, Probe], services: Sequence[str], interval: float, clock: Clock) -> None:
        """`services` are the names besides the empty one that health answers for; `interval` is in seconds."""
        self._clock = clock
        self.since: datetime | None = None
        self.health = HealthServicer()
        self.draining = False
        self.checks: tuple[Check, ...] = tuple(Check(name, False, "not probed yet") for name in probes)
        self._probes = dict(probes)
        self._services = ("", *services)
        self._interval = interval
        self._told: bool | None = None

    @property
    def ready(self) -> bool:
        """Whether every probe succeeded last time and the process is not draining."""
        return not self.draining and all(check.ready for check in self.checks)

    async def probe(self) -> None:
        """Run every probe once and tell the health service."""
        found = await asyncio.gather(*(self._check(name, probe) for name, probe in self._probes.items()))
        now = self._clock.now()
        self.checks = tuple(_after(before, check, now) for before, check in zip(self.checks, found, strict=True))
        await self.tell()

    async def tell(self) -> None:
        """Tell the health service how things stand, when that has changed."""
        ready = self.ready
        if ready is self._told:
            return
        self._told = ready
        self.since = self._clock.now()
        _log.info("ready" if ready else "not ready", checks={c.name: c.message or "ok" for c in self.checks})
        status = _Status.SERVING if ready else _Status.NOT_SERVING
        for name in self._services:
            await self.health.set(name, status)

    async def watch(self) -> None:
        """Probe for ever."""
        while True:
            await self.probe()
            await asyncio.sleep(self._interval)

    async def _check(self, name: str, probe: Probe) -> Check:
        try:
            async with asyncio.timeout(max(1.0, 2 * self._interval)):
                await probe()
        except CodeSousError as error:
            return Check(name, False, error.message)
        except TimeoutError:
            return Check(name, False, "does not answer in time")
        except Exception as error:  # noqa: BLE001 - a probe that fails in any way is a thing that is not there
            return Check(name, False, type(error).__name__)
        return Check(name, True)


def _after(before: Check, check: Check, now: datetime) -> Check:
    """A check with what is remembered of those before it."""
    same = before.since is not None and before.ready is check.ready
    return replace(
        check,
        since=before.since if same else now,
        last_error=check.message or before.last_error,
        last_error_time=now if check.message else before.last_error_time,
    )
