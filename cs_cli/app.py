"""The commands put together."""

from __future__ import annotations

import typer

from cs_cli.commands import (
    admin,
    audit,
    auth,
    cadence,
    certs,
    config,
    dlq,
    doctor,
    http,
    proxy,
    secret,
    stack,
    store,
    top,
    trace,
    version,
)
from cs_cli.commands.fn import app as fn
from cs_cli.commands.schedule import app as schedule

app = typer.Typer(
    name="cs",
    help="code-sous: write a function as text, publish it, have it invoked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
stack.add_commands(app)
app.command("doctor")(doctor.doctor)
app.command("top")(top.top)
app.command("trace")(trace.trace)
app.command("version")(version.version)
app.add_typer(admin.app, name="admin")
app.add_typer(fn, name="fn")
app.add_typer(schedule, name="schedule")
app.add_typer(http.app, name="http")
app.add_typer(secret.app, name="secret")
app.add_typer(cadence.app, name="cadence")
app.add_typer(dlq.app, name="dlq")
app.add_typer(audit.app, name="audit")
app.add_typer(auth.app, name="auth")
app.add_typer(certs.app, name="certs")
app.add_typer(config.app, name="config")
app.add_typer(proxy.app, name="proxy")
app.add_typer(store.app, name="store")
