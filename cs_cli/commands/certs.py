"""`cs certs`: certificates for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cs_cli.failure import CommandError
from cs_cli.options import Json
from cs_cli.output import OUT

app = typer.Typer(help="Certificates for development.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Certificates for development."""


@app.command()
def dev(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("certs"),
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Host name or address of a server, once or more.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=825, help="How long they are good for.")] = 30,
    json: Json = False,
) -> None:
    """Make an authority and what it signs: `public` and `service` for servers, `client` for who calls the services."""
    from cs_core.iam.dev_certificates import AUTHORITY, PARTS, make_certificates

    names = name or ["localhost", "127.0.0.1", "::1"]
    try:
        make_certificates(out, names, days)
    except OSError as error:
        raise CommandError("CS_CLI_CERTIFICATES", f"{out} cannot be written: {error}") from error
    files = [str(out / f"{part}.pem") for part in (AUTHORITY, *PARTS)]
    if OUT.json:
        OUT.data({"folder": str(out), "names": names, "certificates": files})
        return
    for file in files:
        OUT.line(file)
