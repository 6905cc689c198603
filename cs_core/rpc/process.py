"""The frame of a service's main: arguments, settings, logs, metrics, and one event loop."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from cs_core import ids
from cs_core.config import ProcessSettings, Settings, SettingsError, load_settings
from cs_core.rpc.tls import server_credentials
from cs_core.telemetry.log_level import LogLevel
from cs_core.telemetry.logs import configure_logs
from cs_core.telemetry.metrics import metrics_page

Run = Callable[[Settings, str, CollectorRegistry, LogLevel], Awaitable[None]]


def run_process(service: str, section: Callable[[Settings], ProcessSettings], run: Run) -> int:
    """Run a service until it is told to stop; returns the exit code.

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
        await run(settings, instance, registry, log_level)

    with metrics_page(registry, section(settings).metrics_port, settings.rpc.metrics_host):
        asyncio.run(main())
    return 0
