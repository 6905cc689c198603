"""`cs fn alias` and `cs fn rollback`: which version callers get."""

from __future__ import annotations

from typing import Annotated

import typer
from codesous.control.v1 import alias_service_pb2 as pb

from cs_cli import login
from cs_cli.api import Api
from cs_cli.commands.fn.diff import diff_data, show_diff
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Function, Json, Limit, Namespace
from cs_cli.output import OUT, moment

app = typer.Typer(help="Which version callers get.", no_args_is_help=True)
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="Name of the alias.")]


@app.command("set")
def set_alias(
    name: Function,
    alias: Alias,
    version: Annotated[int, typer.Option("--version", min=1, help="Version to point at.")],
    expected_version: Annotated[
        int | None, typer.Option("--expected-version", min=0, help="Version that it points at now; 0: it is not there.")
    ] = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Point an alias at a version."""
    with Api(login.load()) as api:
        request = pb.SetAliasRequest(
            tenant=api.tenant, namespace=namespace, function=name, alias=alias, version=version
        )
        if expected_version is not None:
            request.expected_version = expected_version
        _show(api.call(api.aliases.SetAlias, request))


@app.command("list")
def list_aliases(
    name: Function, namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 1000, json: Json = False
) -> None:
    """List the aliases of a function."""
    with Api(login.load()) as api:
        request = pb.ListAliasesRequest(tenant=api.tenant, namespace=namespace, function=name)
        found = [to_data(alias) for alias in api.pages(api.aliases.ListAliases, request, "aliases", limit)]
    if OUT.json:
        OUT.data({"aliases": found})
        return
    OUT.table(
        ("alias", "version", "before", "moved", "by"),
        (
            (
                item["alias"],
                item["version"],
                item["previous_version"] or "",
                moment(item["update_time"]),
                item["updater"],
            )
            for item in found
        ),
        empty=f"{namespace}/{name} has no aliases",
    )


@app.command("delete")
def delete_alias(name: Function, alias: Alias, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Delete an alias."""
    with Api(login.load()) as api:
        api.call(
            api.aliases.DeleteAlias,
            pb.DeleteAliasRequest(tenant=api.tenant, namespace=namespace, function=name, alias=alias),
        )
    if OUT.json:
        OUT.data({"alias": alias, "deleted": True})
    else:
        OUT.line(f"[green]deleted[/green] {namespace}/{name}@{alias}")


def rollback(name: Function, alias: Alias, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Point an alias at the version that it pointed at before."""
    with Api(login.load()) as api:
        request = pb.RollbackAliasRequest(tenant=api.tenant, namespace=namespace, function=name, alias=alias)
        _show(api.call(api.aliases.RollbackAlias, request))


def _show(answer: pb.SetAliasResponse | pb.RollbackAliasResponse) -> None:
    alias = answer.alias
    if OUT.json:
        changed = diff_data(answer.capability_diff) if answer.HasField("capability_diff") else None
        OUT.data({**to_data(alias), "capability_diff": changed})
        return
    before = f" [dim](before: {alias.previous_version})[/dim]" if alias.previous_version else ""
    OUT.line(
        f"{alias.namespace}/{alias.function}@[cyan]{alias.alias}[/cyan] -> version [bold]{alias.version}[/bold]{before}"
    )
    show_diff(answer.capability_diff)
