"""`cs doctor`: what this machine grants, layer by layer, and what it costs where it does not."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from cs_cli import failure
from cs_cli.options import DataDir, Json
from cs_cli.output import OUT


def doctor(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Public port to look at; 0: none.")] = 8080,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Look at this machine: the jail of the cells, the kernel, the embedded stack.

    Exits with 2 when something mandatory is missing.
    """
    from cs_cli.stack.folders import find_data_dir
    from cs_cli.stack.machine import MISSING, look

    checks = list(look(port, find_data_dir(data_dir)))
    lacking = [check.name for check in checks if check.mandatory and check.state == MISSING]
    if OUT.json:
        OUT.data({"ready": not lacking, "checks": [asdict(check) for check in checks]})
    else:
        OUT.table(
            ("area", "check", "state", "needed", "found", "without it"),
            ((c.area, c.name, c.state, "yes" if c.mandatory else "", c.found, c.without) for c in checks),
        )
        OUT.note(_verdict(lacking, [check.name for check in checks if check.state == MISSING]))
    if lacking:
        raise typer.Exit(failure.SERVER)


def _verdict(lacking: list[str], missing: list[str]) -> str:
    if lacking:
        return f"[red bold]not usable[/red bold]: {', '.join(lacking)} missing"
    if missing:
        return f"[yellow]usable[/yellow], with fewer layers: {', '.join(missing)} missing"
    return "[green]everything is there[/green]"
