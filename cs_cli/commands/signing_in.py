"""`cs auth login`: a token given, or the first of many from an issuer."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cs_cli import login as logins
from cs_cli import renewal as renewals
from cs_cli.failure import CommandError
from cs_cli.login import Login
from cs_cli.options import Json
from cs_cli.output import OUT
from cs_cli.renewal import Renewal

_FILE = "; - is standard input."


def login(
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant of the token.")],
    token: Annotated[str, typer.Option("--token", help="Access token.")] = "",
    api_url: Annotated[str, typer.Option("--api-url", help="Public port of the mesh.")] = logins.DEFAULT_API_URL,
    token_url: Annotated[str, typer.Option("--token-url", help="Token endpoint of the issuer (RFC 6749).")] = "",
    refresh_token_file: Annotated[
        Path | None, typer.Option("--refresh-token-file", metavar="FILE", help=f"Refresh token{_FILE}")
    ] = None,
    client_id: Annotated[str, typer.Option("--client-id", help="Id of the client, or of a service.")] = "",
    client_secret_file: Annotated[
        Path | None, typer.Option("--client-secret-file", metavar="FILE", help=f"Its secret{_FILE}")
    ] = None,
    tikti_url: Annotated[str, typer.Option("--tikti-url", help="Tikti's base address, to sign in there.")] = "",
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", metavar="FILE", help=f"API key for Tikti{_FILE}")
    ] = None,
    email: Annotated[str, typer.Option("--email", help="Who signs in at Tikti.")] = "",
    password_file: Annotated[
        Path | None, typer.Option("--password-file", metavar="FILE", help=f"Their password{_FILE}")
    ] = None,
    audience: Annotated[str, typer.Option("--audience", help="Audience of Tikti's token.")] = "code-sous",
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="What the token is asked for; may be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Save a tenant, a token and the address of the mesh for the commands that follow.

    With --token that token is used until it ends. With --token-url and a refresh token or a client's secret, or with
    --tikti-url, tokens are fetched and renewed before they end.
    """
    scopes = " ".join(scope or [])
    renewal: Renewal | None = None
    if token_url:
        renewal = _by_endpoint(token_url, refresh_token_file, client_id, client_secret_file, scopes)
    elif tikti_url:
        renewals.check_renewal_url(tikti_url)
        api_key, password = _secret(api_key_file, "api-key-file"), _secret(password_file, "password-file")
        base = tikti_url.rstrip("/")
        identity = renewals.sign_in(base, api_key, email, password)
        renewal = Renewal("tikti", base, api_key=api_key, id_token=identity, audience=audience, scope=scopes)
    if renewal is not None:
        renewals.check_renewal_url(renewal.url)
        if not token:
            token, renewal = renewals.renew(renewal, tenant)
    if not token:
        raise CommandError("CS_VALIDATION_FIELD", "one of --token, --token-url and --tikti-url is needed")
    path = logins.save(Login(tenant, token.strip(), api_url.rstrip("/"), renewal))
    if OUT.json:
        OUT.data({"tenant": tenant, "api_url": api_url.rstrip("/"), "path": str(path), **about(token, renewal)})
    else:
        OUT.line(f"[green]logged in[/green] as {tenant} at {api_url} [dim]({path})[/dim]")


def logout(json: Json = False) -> None:
    """Forget the login."""
    removed = logins.forget()
    if OUT.json:
        OUT.data({"removed": removed})
    else:
        OUT.line("[green]logged out[/green]" if removed else "there was no login")


def about(token: str, renewal: Renewal | None) -> dict[str, Any]:
    """What may be shown of a token: when it ends, and what renews it."""
    ends = renewals.ends_at(token)
    try:
        moment = None if ends is None else datetime.fromtimestamp(ends, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        moment = None
    return {"token_ends": moment, "renewed_by": renewal.kind if renewal is not None else None}


def _by_endpoint(
    url: str, refresh_token_file: Path | None, client_id: str, client_secret_file: Path | None, scopes: str
) -> Renewal:
    secret = _secret(client_secret_file, "client-secret-file") if client_secret_file is not None else ""
    if refresh_token_file is not None:
        refresh = _secret(refresh_token_file, "refresh-token-file")
        return Renewal("refresh_token", url, client_id, secret, refresh_token=refresh, scope=scopes)
    if not client_id or not secret:
        message = "--token-url needs --refresh-token-file, or --client-id and --client-secret-file"
        raise CommandError("CS_VALIDATION_FIELD", message)
    return Renewal("client_credentials", url, client_id, secret, scope=scopes)


def _secret(path: Path | None, option: str) -> str:
    if path is None:
        raise CommandError("CS_VALIDATION_FIELD", f"--{option} is needed")
    try:
        text = sys.stdin.readline() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError("CS_CLI_NO_FILE", f"{path} cannot be read: {error}") from error
    if not text.strip():
        raise CommandError("CS_VALIDATION_FIELD", f"--{option}: {path} is empty")
    return text.strip()
