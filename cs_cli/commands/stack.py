"""`cs up`, `down`, `restart`, `status`, `logs`: the embedded stack."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cs_cli import failure
from cs_cli.failure import CommandError
from cs_cli.options import DataDir, Json
from cs_cli.output import OUT


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the top level."""
    for command in (up, down, restart, status, logs):
        app.command()(command)


def up(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Public port; 0 takes free ports.")] = 8080,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the mesh is ready; `cs down` stops it.")
    ] = False,
    example: Annotated[
        Path | None, typer.Option("--example", help="Folder of a function to deploy and call once.")
    ] = None,
    with_cadence: Annotated[
        bool, typer.Option("--with-cadence", help="Bring a stand-in for a Cadence server up too, with the domain demo.")
    ] = False,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Migrate a store that is not this stack's own, too (CS_STORE__URL).")
    ] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Bring the whole mesh up on this machine. Data of an earlier release is migrated."""
    from cs_cli.stack import foreground
    from cs_cli.stack.daemon import start_detached
    from cs_cli.stack.folders import Folders, find_data_dir

    folders = Folders(find_data_dir(data_dir))
    if detach:
        start_detached(folders, port, example, with_cadence=with_cadence, migrate=migrate)
    else:
        foreground.run(folders, port, example, with_cadence=with_cadence, migrate=migrate)


def down(data_dir: DataDir = None, json: Json = False) -> None:
    """Stop the mesh. Its data stays."""
    from cs_cli.stack.daemon import stop
    from cs_cli.stack.folders import Folders, find_data_dir

    folders = Folders(find_data_dir(data_dir))
    stopped = stop(folders)
    if OUT.json:
        OUT.data({"data_dir": str(folders.root), "stopped": stopped})
    else:
        OUT.line("[green]stopped[/green]" if stopped else f"nothing runs on {folders.root}")


def restart(
    processes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROCESS...]", help="For example invoker, or cs-invoker-pool. None: every service."),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, max=3600, help="Longest wait for the work of each, in seconds.")
    ] = 30.0,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Restart services one after the other, each drained first, while the others go on."""
    from cs_cli.processes import long_name
    from cs_cli.stack.folders import Folders, find_data_dir
    from cs_cli.stack.restart import ORDER
    from cs_cli.stack.restart import restart as restart_one

    names = [long_name(process) for process in processes or ORDER]
    for name in names:
        if name not in ORDER:
            raise CommandError("CS_VALIDATION_FIELD", f"process: must be one of {', '.join(ORDER)}")
    folders = Folders(find_data_dir(data_dir))
    done = []
    for name in names:
        restarted = restart_one(folders, name, timeout)
        done.append(asdict(restarted))
        if not OUT.json:
            how = " [yellow](killed: it did not end in time)[/yellow]" if restarted.killed else ""
            OUT.line(f"[green]restarted[/green] {name} in {restarted.seconds:.1f} s{how}")
    if OUT.json:
        OUT.data({"data_dir": str(folders.root), "restarted": done})


def status(data_dir: DataDir = None, json: Json = False) -> None:
    """Show what runs. Exits with 2 unless everything is ready."""
    from cs_cli.stack.folders import Folders, find_data_dir
    from cs_cli.stack.status import look

    folders = Folders(find_data_dir(data_dir))
    parts = asyncio.run(look(folders))
    ready = bool(parts) and all(part["state"] == "ready" for part in parts)
    if OUT.json:
        OUT.data({"data_dir": str(folders.root), "ready": ready, "parts": parts})
    else:
        OUT.table(
            ("part", "state", "pid", "port", "restarts", "memory", "up"),
            (
                (p["name"], p["state"], p["pid"] or "", p["port"] or "", p["restarts"], p["memory"], p["uptime"])
                for p in parts
            ),
            empty=f"nothing runs on {folders.root}",
        )
    if not ready:
        raise typer.Exit(failure.SERVER)


def logs(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Part of the mesh, for example cs-control.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines to begin with.")] = 100,
    data_dir: DataDir = None,
) -> None:
    """Print the log of a part of the mesh."""
    from cs_cli.stack.folders import Folders, find_data_dir
    from cs_cli.stack.log_file import follow_log, last_lines
    from cs_cli.stack.plan import CADENCE, NAMES

    names = (*NAMES, CADENCE, "supervisor")
    if service not in names:
        raise CommandError("CS_VALIDATION_FIELD", f"service: must be one of {', '.join(names)}")
    path = Folders(find_data_dir(data_dir)).log(service)
    if not path.exists():
        raise CommandError("CS_CLI_NO_STACK", f"there is no log at {path}")
    if follow:
        follow_log(path, lines)
    else:
        for line in last_lines(path, lines):
            OUT.text(line)
