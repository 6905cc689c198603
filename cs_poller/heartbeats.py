"""Heartbeats of tasks: what user code says is forwarded at a limited rate, and what Cadence answers is acted on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from codesous.queue.v1.envelope_pb2 import Envelope

from cs_core.errors import CadenceRefusedError, UnavailableError

from .metrics import Metrics

_log = structlog.get_logger(__name__)


class Pulse:
    """The heartbeats of one task. The first is sent at once, later ones at most one per interval, each the latest.

    Args:
        send: sends details; returns whether Cadence asks to cancel. Raises as Frontend does.
        interval: seconds.
        on_cancel: called once, when Cadence asks to cancel.
        on_gone: called once, when Cadence has given the task up.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[bool]],
        interval: float,
        on_cancel: Callable[[], Awaitable[None]],
        on_gone: Callable[[], Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        self._send = send
        self._interval = interval
        self._on_cancel = on_cancel
        self._on_gone = on_gone
        self._metrics = metrics
        self._latest = b""
        self._given = asyncio.Event()

    def give(self, details: bytes) -> None:
        """Take a heartbeat of user code; one that was not sent yet is replaced."""
        if self._given.is_set():
            self._metrics.count_heartbeat("replaced")
        self._latest = details
        self._given.set()

    async def run(self) -> None:
        """Send heartbeats until Cadence has given the task up, or until cancelled."""
        asked = False
        while True:
            await self._given.wait()
            self._given.clear()
            try:
                cancel = await self._send(self._latest)
            except CadenceRefusedError as error:
                self._metrics.count_heartbeat("refused")
                if error.missing:
                    await self._on_gone()
                    return
                _log.warning("Cadence refused a heartbeat", error=error.message)
            except UnavailableError as error:
                self._metrics.count_heartbeat("lost")
                _log.info("a heartbeat was lost", error=error.message)
            else:
                self._metrics.count_heartbeat("sent")
                if cancel and not asked:
                    asked = True
                    await self._on_cancel()
            await asyncio.sleep(self._interval)


class Heartbeats:
    """The pulses of the tasks in this process, found by activation."""

    def __init__(self) -> None:
        self._pulses: dict[tuple[str, str], Pulse] = {}

    def take(self, envelope: Envelope) -> None:
        """Look at what arrived on this instance's channel."""
        if envelope.WhichOneof("body") != "activity_heartbeat":
            _log.warning("ignored an envelope that is no heartbeat", message_id=envelope.message_id)
            return
        heartbeat = envelope.activity_heartbeat
        pulse = self._pulses.get((heartbeat.tenant, heartbeat.activation_id))
        if pulse is not None:
            pulse.give(heartbeat.details)

    def add(self, tenant: str, activation_id: str, pulse: Pulse) -> None:
        """Give a task's heartbeats to its pulse."""
        self._pulses[(tenant, activation_id)] = pulse

    def remove(self, tenant: str, activation_id: str, pulse: Pulse) -> None:
        """Give them to nobody."""
        if self._pulses.get((tenant, activation_id)) is pulse:
            del self._pulses[(tenant, activation_id)]
