"""The least severity of this process's log lines: as configured, or as an operator set it, for good or for a time."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from cs_core.clock import Clock

_SEVERITIES: Final = logging.getLevelNamesMapping()
_OF_METHOD: Final = {
    **{name.lower(): number for name, number in _SEVERITIES.items()},
    "exception": logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class LevelState:
    """How it is set: names such as `info`. `reverts` is when the configured one is back (None: never by itself)."""

    level: str
    configured: str
    reverts: datetime | None = None


class LogLevel:
    """Drops lines below a severity. It is the first processor of every logger, so a dropped line costs little."""

    def __init__(self, configured: str) -> None:
        self._configured = self._level = configured
        self._least = _SEVERITIES[configured.upper()]
        self._until: tuple[Clock, float, datetime] | None = None

    def state(self) -> LevelState:
        """How it is set now."""
        self._revert_when_due()
        return LevelState(self._level, self._configured, None if self._until is None else self._until[2])

    def set(self, level: str, clock: Clock, length: timedelta | None = None) -> None:
        """Set it, for `length` (None: until it is set again). An empty `level` means the configured one."""
        self._level = level or self._configured
        self._least = _SEVERITIES[self._level.upper()]
        self._until = None
        if length is not None and self._level != self._configured:
            self._until = (clock, clock.monotonic() + length.total_seconds(), clock.now() + length)

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Let a line pass, or raise structlog.DropEvent."""
        if self._until is not None:
            self._revert_when_due()
        if _OF_METHOD.get(method, logging.ERROR) < self._least:
            raise structlog.DropEvent
        return event

    def _revert_when_due(self) -> None:
        # Looked at when it matters instead of by a timer: it needs no loop, and cannot be late.
        if self._until is not None and self._until[0].monotonic() >= self._until[1]:
            self._level, self._until = self._configured, None
            self._least = _SEVERITIES[self._level.upper()]
