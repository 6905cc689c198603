"""`cs schedule`: functions that run by the clock."""

from __future__ import annotations

import typer

from cs_cli.commands.schedule import define, lifecycle, ticks

app = typer.Typer(help="Functions that run by the clock.", no_args_is_help=True)
app.command("create")(define.create)
app.command("update")(define.update)
app.command("list")(lifecycle.list_all)
app.command("get")(lifecycle.get)
app.command("pause")(lifecycle.pause)
app.command("resume")(lifecycle.resume)
app.command("run")(lifecycle.run)
app.command("preview")(ticks.preview)
app.command("history")(ticks.history)
app.command("delete")(lifecycle.delete)
