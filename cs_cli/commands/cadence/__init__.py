"""`cs cadence`: Cadence activities that functions serve."""

from __future__ import annotations

import typer

from cs_cli.commands.cadence import run, worker

app = typer.Typer(help="Cadence activities that functions serve.", no_args_is_help=True)
app.add_typer(worker.app, name="worker")
app.command("run")(run.run)
