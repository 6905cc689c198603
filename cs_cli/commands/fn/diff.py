"""`cs fn diff`, and how a change of what a function may reach is shown wherever an alias moves."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from codesous.control.v1 import alias_service_pb2, version_service_pb2
from codesous.control.v1.capability_diff_pb2 import CapabilityDiff, Reach
from rich.markup import escape

from cs_cli import login
from cs_cli.api import Api
from cs_cli.failure import CommandError
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Function, Json, Namespace
from cs_cli.output import OUT

_KINDS = ("hosts", "topics", "key_prefixes", "key_operations", "secrets")


def diff(
    name: Function,
    before: Annotated[str, typer.Argument(metavar="V1", help="Version or alias; 0: nothing at all.")],
    after: Annotated[str, typer.Argument(metavar="V2", help="Version or alias.")],
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Show what V2 may reach that V1 may not, and the other way round.

    An alias that moves from V1 to V2 needs cs:function:grant for what is new.
    """
    with Api(login.load()) as api:
        request = version_service_pb2.DiffVersionsRequest(
            tenant=api.tenant,
            namespace=namespace,
            function=name,
            version=_number(api, namespace, name, after),
            from_version=_number(api, namespace, name, before),
        )
        answer: version_service_pb2.DiffVersionsResponse = api.call(api.versions.DiffVersions, request)
    if OUT.json:
        OUT.data({**diff_data(answer.diff), "same_bundle": answer.same_bundle})
        return
    code = "the same files" if answer.same_bundle else "other files"
    OUT.line(f"version {answer.diff.from_version} -> [bold]{answer.diff.to_version}[/bold], {code}")
    if not show_diff(answer.diff):
        OUT.line("[dim]both may reach the same[/dim]")


def diff_data(diff: CapabilityDiff) -> dict[str, Any]:
    """A difference as plain data; what is added and removed is always there."""
    empty = to_data(Reach())
    return {"added": empty, "removed": empty, **to_data(diff)}


def show_diff(diff: CapabilityDiff) -> bool:
    """Print a difference for people, one line for each kind; tells whether there was any."""
    any_shown = False
    for sign, style, reach in (("+", "yellow", diff.added), ("-", "green", diff.removed)):
        data = to_data(reach)
        for kind in _KINDS:
            if data[kind]:
                any_shown = True
                values = escape(", ".join(map(str, data[kind])))
                OUT.line(f"  [{style}]{sign} {kind.replace('_', ' ')}[/{style}] {values}")
    return any_shown


def _number(api: Api, namespace: str, name: str, ref: str) -> int:
    """The version that a number or an alias means."""
    if ref.isascii() and ref.isdigit():
        return int(ref)
    request = alias_service_pb2.ListAliasesRequest(tenant=api.tenant, namespace=namespace, function=name)
    for alias in api.pages(api.aliases.ListAliases, request, "aliases", 10_000):
        if alias.alias == ref:
            return int(alias.version)
    raise CommandError("CS_NOT_FOUND_ALIAS", f"no such alias: {namespace}/{name}@{ref}")
