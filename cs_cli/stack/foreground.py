"""Running a stack in the foreground until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from cs_cli.failure import SERVER, CommandError
from cs_cli.output import OUT
from cs_cli.stack.folders import Folders
from cs_cli.stack.plan import Plan
from cs_cli.stack.ports import choose_ports
from cs_cli.stack.supervisor import Supervisor, sole_owner
from cs_cli.stack.welcome import Welcome


def run(folders: Folders, port: int, example: Path | None, *, with_cadence: bool, migrate: bool) -> None:
    """Bring a stack up and keep it until a signal. Raises CommandError when it cannot be brought up."""
    if example is not None:
        # Found now, not after everything has been started.
        from cs_cli.sources import read_files

        read_files(example)
    try:
        folders.make()
    except OSError as error:
        raise CommandError("CS_CLI_DATA_DIR", f"{folders.root} cannot be used: {error}", SERVER) from error
    with sole_owner(folders):
        plan = Plan(folders, choose_ports(port), with_cadence)
        plan.write()
        asyncio.run(_serve(plan, example, migrate=migrate))


async def _serve(plan: Plan, example: Path | None, *, migrate: bool) -> None:
    stopping = asyncio.Event()
    welcome = Welcome(plan, example)
    supervisor = Supervisor(plan, welcome.part_ready, migrate=migrate)

    def stop() -> None:
        if stopping.is_set():
            # Asked twice: whoever asks has waited long enough.
            supervisor.kill()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    welcome.begin()
    try:
        await supervisor.run(stopping, welcome.ready)
    finally:
        welcome.end()
    OUT.note("[dim]stopped[/dim]")
