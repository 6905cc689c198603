"""`cs secret`: values that functions read by name."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from codesous.control.v1 import secret_service_pb2 as pb

from cs_cli import login
from cs_cli.api import Api
from cs_cli.failure import CALLER, CommandError
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Json, Limit, Namespace
from cs_cli.output import OUT, moment

app = typer.Typer(help="Values that functions read by name.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the secret.")]


@app.command("set")
def set_secret(name: Name, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Write a secret; the value is read from standard input, or asked for at a terminal."""
    if sys.stdin.isatty():
        value = typer.prompt("value", hide_input=True)
    else:
        try:
            value = sys.stdin.buffer.read().decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise CommandError("CS_CLI_INPUT", "the value is not UTF-8 text", CALLER) from None
    with Api(login.load()) as api:
        request = pb.SetSecretRequest(tenant=api.tenant, namespace=namespace, secret=name, value=value)
        secret = api.call(api.secrets.SetSecret, request).secret
    if OUT.json:
        OUT.data(to_data(secret))
    else:
        OUT.line(f"[green]set[/green] {namespace}/{name}")


@app.command("list")
def list_secrets(namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 1000, json: Json = False) -> None:
    """List the secrets of a namespace, without their values."""
    with Api(login.load()) as api:
        request = pb.ListSecretsRequest(tenant=api.tenant, namespace=namespace)
        found = [to_data(secret) for secret in api.pages(api.secrets.ListSecrets, request, "secrets", limit)]
    if OUT.json:
        OUT.data({"secrets": found})
        return
    OUT.table(
        ("secret", "written", "by", "key"),
        ((item["secret"], moment(item["update_time"]), item["updater"], item["key_id"]) for item in found),
        empty=f"{namespace} has no secrets",
    )


@app.command("delete")
def delete_secret(name: Name, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Delete a secret."""
    with Api(login.load()) as api:
        api.call(api.secrets.DeleteSecret, pb.DeleteSecretRequest(tenant=api.tenant, namespace=namespace, secret=name))
    if OUT.json:
        OUT.data({"secret": name, "deleted": True})
    else:
        OUT.line(f"[green]deleted[/green] {namespace}/{name}")
