"""The frame of a service's main: arguments, settings, logs, metrics, and one event loop."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from cs_core import ids
from cs_core.config import ProcessSettings, Settings, SettingsError, load_settings
from cs_core.errors import StoreSchemaError
from cs_core.rpc.admittance import await_store
from cs_core.rpc.tls import server_credentials
from cs_core.telemetry.log_level import LogLevel
from cs_core.telemetry.logs import configure_logs
from cs_core.telemetry.metrics import metrics_page

EXIT_SCHEMA: Final = 3
"""Exit code of a process that does not work on such a store. 1: the settings cannot be used; 2: nor the arguments."""
Run = Callable[[Settings, str, CollectorRegistry, LogLevel], Awaitable[None]]


def run_process(service: str, section: Callable[[Settings], ProcessSettings], run: Run) -> int:
    """Run a service until it is told to stop; returns the exit code. It runs once the store is known to fit.

    Args:
        service: name of the process, for example `cs-control`.
        section: picks the process's own section of the settings.
        run: the service itself, given the settings, the instance's id, the metrics registry, and the log's level.
    """
    parser = argparse.ArgumentParser(prog=service)
    parser.add_argument("--config", type=Path, help="settings file (TOML); the environment wins over it")
    options = parser.parse_args()
    try:
        settings = load_settings(options.config)
        # A file that cannot be read is told here, in one line, and not by whatever meets it first.
        server_credentials(settings.rpc)
    except SettingsError as error:
        sys.stderr.write(f"{service}: {error}\n")
        return 1
    instance = ids.instance_id(service.removeprefix("cs-"))
    log_level = configure_logs(settings.log, service, instance)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)

    async def main() -> None:
        if await await_store(settings, section(settings).port):
            await run(settings, instance, registry, log_level)

    try:
        with metrics_page(registry, section(settings).metrics_port, settings.rpc.metrics_host):
            asyncio.run(main())
    except StoreSchemaError as error:
        sys.stderr.write(f"{service}: {error.reason}: {error.message}\n")
        return EXIT_SCHEMA
    return 0
