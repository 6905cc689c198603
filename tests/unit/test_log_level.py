"""The log level of a process: set for good or for a time, seen in the lines that are written."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from cs_core.clock import ManualClock
from cs_core.config import LogSettings
from cs_core.telemetry.log_level import LogLevel
from cs_core.telemetry.logs import configure_logs

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def passes(level: LogLevel, method: str) -> bool:
    try:
        level(None, method, {})
    except structlog.DropEvent:
        return False
    return True


def test_lines_below_the_level_are_dropped(clock: ManualClock) -> None:
    level = LogLevel("info")
    assert [passes(level, each) for each in ("debug", "info", "warning", "exception")] == [False, True, True, True]
    level.set("debug", clock)
    assert passes(level, "debug")
    level.set("error", clock)
    assert [passes(level, each) for each in ("info", "warning", "warn", "error", "exception")] == [
        *(False, False, False),
        *(True, True),
    ]


def test_a_level_for_a_time_is_followed_by_the_configured_one(clock: ManualClock) -> None:
    level = LogLevel("info")
    level.set("debug", clock, timedelta(seconds=60))
    assert level.state().reverts == NOW + timedelta(seconds=60)
    clock.advance(timedelta(seconds=59))
    assert passes(level, "debug")
    clock.advance(timedelta(seconds=1))
    assert not passes(level, "debug")
    assert level.state().level == "info"
    assert level.state().reverts is None


def test_a_level_that_is_set_again_does_not_end_when_the_first_would_have(clock: ManualClock) -> None:
    level = LogLevel("info")
    level.set("debug", clock, timedelta(seconds=60))
    level.set("warning", clock)
    clock.advance(timedelta(seconds=61))
    assert level.state().level == "warning"
    level.set("", clock)
    assert level.state().level == "info"


def test_a_logger_that_was_used_before_follows(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(structlog.reset_defaults)
    request.addfinalizer(structlog.contextvars.clear_contextvars)
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    level = configure_logs(LogSettings(), "cs-test", "test-1")
    log = structlog.get_logger("test").bind()
    log.debug("first")
    level.set("debug", clock)
    log.debug("second")
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["second"]
