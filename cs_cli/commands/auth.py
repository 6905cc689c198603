"""`cs auth`: who calls."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from cs_cli import login as logins
from cs_cli.commands import access, signing_in
from cs_cli.options import DataDir, Json
from cs_cli.output import OUT

app = typer.Typer(help="Log in, ask what you may do, and make tokens for development.", no_args_is_help=True)
app.command("login")(signing_in.login)
app.command("logout")(signing_in.logout)
app.command("can")(access.can)


@app.command()
def whoami(json: Json = False) -> None:
    """Tell the tenant, the address and the first 8 characters of the token; with --json also when it ends."""
    saved = logins.load()
    about = signing_in.about(saved.token, saved.renewal)
    if OUT.json_asked:
        OUT.data({"tenant": saved.tenant, "api_url": saved.api_url, "token_prefix": saved.token[:8], **about})
        return
    OUT.text(f"tenant={saved.tenant}\napi_url={saved.api_url}\ntoken={saved.token[:8]}")


@app.command("dev-token")
def dev_token(
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant of the token.")],
    role: Annotated[list[str], typer.Option("--role", help="Role; once for each, or several after one --role.")],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    data_dir: DataDir = None,
    subject: Annotated[str, typer.Option("--subject", help="Subject of the token.")] = "dev",
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="Action that the token is narrowed to; may be repeated.")
    ] = None,
    ttl_hours: Annotated[float, typer.Option("--ttl-hours", min=0.01, max=8760, help="Life of the token.")] = 24,
    json: Json = False,
) -> None:
    """Mint a token with the development issuer of a stack, and print the token alone."""
    from cs_cli.stack import identity
    from cs_cli.stack.folders import find_data_dir

    roles = [*role, *(more or [])]
    token = identity.mint(find_data_dir(data_dir), tenant, roles, subject, timedelta(hours=ttl_hours), scope or [])
    if OUT.json_asked:
        OUT.data({"token": token, "tenant": tenant, "roles": roles})
    else:
        OUT.text(token)
