"""`cs fn`: functions, from the first file to the last log line."""

from __future__ import annotations

import typer

from cs_cli.commands.fn import alias, code, diff, draft, lifecycle, local, run

app = typer.Typer(help="Write, publish and run functions.", no_args_is_help=True)
app.command("init")(local.init)
app.command("test")(local.test)
app.command("create")(lifecycle.create)
app.command("get")(lifecycle.get)
app.command("list")(lifecycle.list_all)
app.command("delete")(lifecycle.delete)
app.command("undelete")(lifecycle.undelete)
app.add_typer(draft.app, name="draft")
app.command("publish")(code.publish)
app.command("deploy")(code.deploy)
app.command("versions")(code.versions)
app.command("diff")(diff.diff)
app.add_typer(alias.app, name="alias")
app.command("rollback")(alias.rollback)
app.command("invoke")(run.invoke)
app.command("activations")(run.activations)
app.command("logs")(run.logs)
