"""Structured logs on standard error."""

from __future__ import annotations

import logging
import sys

import structlog

from cs_core.config import LogSettings
from cs_core.telemetry.log_level import LogLevel

GRPC_LOGGER = "grpc._cython.cygrpc"


def configure_logs(settings: LogSettings, service: str, instance: str) -> LogLevel:
    """Set this process's logs up: JSON lines (or text for people), each with service, instance and bound names.

    Answers what decides which lines are written.
    """
    level = LogLevel(settings.level)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if settings.format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            level,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks
            if settings.format == "json"
            else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        # Loggers are made once and kept; the level is looked at for each line, so that it can be changed.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service, instance=instance)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, force=True)
    logging.getLogger(GRPC_LOGGER).addFilter(is_worth_a_line)
    return level


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Tell gRPC's complaints about the callers' metadata from its faults.

    It writes two tracebacks for every header that is not UTF-8 and goes on: any caller could fill the log.
    """
    return not str(record.msg).startswith("Invalid encoding on")
