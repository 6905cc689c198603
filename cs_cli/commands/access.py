"""`cs auth can`: whether a caller may, and why."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from codesous.control.v1 import access_service_pb2 as pb
from codesous.control.v1.access_pb2 import AccessDecision
from rich.markup import escape

from cs_cli import login as logins
from cs_cli.api import Api
from cs_cli.messages import to_data
from cs_cli.options import Json
from cs_cli.output import OUT

_INVOKE = "cs:function:invoke"


def can(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="For example cs:function:publish.")],
    resource: Annotated[
        str, typer.Argument(metavar="[RESOURCE]", help="NAMESPACE:KIND/NAME, for example default:function/greet.")
    ] = "",
    role: Annotated[
        list[str] | None, typer.Option("--role", help="Decide for a caller with this role instead; may be repeated.")
    ] = None,
    token: Annotated[str, typer.Option("--token", help="Decide for this token instead of the login's.")] = "",
    json: Json = False,
) -> None:
    """Tell whether the caller may do ACTION on RESOURCE, and which entry of the policy decides. Exits with 1 on no."""
    saved = logins.load()
    with Api(replace(saved, token=token.strip()) if token else saved) as api:
        request = pb.ExplainAccessRequest(tenant=api.tenant, action=action, resource=resource, roles=role or [])
        decision: AccessDecision = api.call(api.access.ExplainAccess, request).decision
    if OUT.json:
        OUT.data(to_data(decision))
    else:
        _show(decision)
    if not decision.allowed:
        raise typer.Exit(1)


def _show(decision: AccessDecision) -> None:
    word = "[green]yes[/green]" if decision.allowed else "[red]no[/red]"
    OUT.line(f"{word}  {escape(decision.reason)}")
    OUT.line(f"[dim]{escape(decision.action)} on {escape(decision.resource)}[/dim]")
    OUT.table(
        ("role", "entry", "action", "resource"),
        (
            (
                "(everyone)" if entry.role == "*" else entry.role,
                entry.entry,
                "fits" if entry.action_fits else "no",
                "fits" if entry.resource_fits else "no",
            )
            for entry in decision.entries
        ),
        empty="no role of the caller has an entry",
    )
    for role in decision.unknown_roles:
        OUT.note(f"[dim]the policy says nothing of role {escape(role)}[/dim]")
    if decision.action == _INVOKE:
        OUT.note("[dim]a version's own lists (invoke_http_roles and so on) decide as well[/dim]")
