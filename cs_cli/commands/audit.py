"""`cs audit`: what was changed, by whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.mutation_service_pb2 import ListMutationsRequest
from rich.markup import escape

from cs_cli import login, watching
from cs_cli.api import Api
from cs_cli.failure import CommandError
from cs_cli.messages import to_data
from cs_cli.options import Json, Limit
from cs_cli.output import OUT, moment
from cs_core.changes import MutationFilter, changed
from cs_core.clock import to_timestamp
from cs_core.errors import ValidationError

app = typer.Typer(help="What was changed, by whom.", no_args_is_help=True)


@app.command("log")
def show_log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is changed from now on.")] = False,
    tenant: Annotated[str, typer.Option("--tenant", help="Tenant. Default: that of the login.")] = "",
    resource: Annotated[str, typer.Option("--resource", metavar="NAMESPACE[/NAME]", help="Only changes of this.")] = "",
    subject: Annotated[str, typer.Option("--by", metavar="SUBJECT", help="Only changes by this subject.")] = "",
    since: Annotated[datetime | None, typer.Option("--since", help="Only changes at or after this time (UTC).")] = None,
    limit: Limit = 1000,
    json: Json = False,
) -> None:
    """Print the latest changes, oldest first; for programs, one JSON object a line."""
    wanted = MutationFilter(resource, subject, None if since is None else since.replace(tzinfo=UTC))
    try:
        wanted.check()
    except ValidationError as error:
        raise CommandError(error.reason, error.message) from error
    with Api(login.load()) as api:
        api.tenant = tenant or api.tenant
        for mutation in _read(api, wanted, limit, follow):
            _show(mutation)


def _read(api: Api, wanted: MutationFilter, limit: int, follow: bool) -> Iterator[LifecycleMutation]:
    coming = watching.watch_mutations(api) if follow else iter(())
    # Watched before it is listed: what is changed in between is in both, and told once.
    next(coming, None)
    request = ListMutationsRequest(tenant=api.tenant, page_size=500, resource=wanted.resource, subject=wanted.subject)
    if wanted.start is not None:
        request.start_time.CopyFrom(to_timestamp(wanted.start))
    latest = deque(_pages(api, request), limit)
    yield from latest
    told = {mutation.mutation_id for mutation in latest}
    for answer in coming:
        if answer.mutation.mutation_id not in told and wanted.fits(answer.mutation):
            yield answer.mutation


def _pages(api: Api, request: ListMutationsRequest) -> Iterator[LifecycleMutation]:
    while True:
        answer = api.call(api.mutations.ListMutations, request)
        yield from answer.mutations
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _show(mutation: LifecycleMutation) -> None:
    if OUT.json:
        OUT.record(to_data(mutation))
        return
    what = changed(mutation)
    where = f"{mutation.namespace}/{what.name}"
    OUT.line(
        f"[dim]{moment(mutation.time.ToJsonString())}[/dim] {what.kind.replace('_', ' ')} "
        f"[bold]{escape(where)}[/bold]{escape(_detail(mutation))} [dim]by {escape(mutation.actor.subject)}[/dim]"
    )


def _detail(mutation: LifecycleMutation) -> str:
    """What is worth telling of a change beside its name."""
    match mutation.WhichOneof("change"):
        case "draft_uploaded":
            return f" {mutation.draft_uploaded.draft_id}"
        case "version_published":
            published = mutation.version_published
            return f" version {published.version}" + (f", {published.alias.alias}" if published.alias.alias else "")
        case "alias_set":
            alias = mutation.alias_set.alias
            back = " (rollback)" if mutation.alias_set.rollback else ""
            return f" {alias.alias}: {alias.previous_version or 'nothing'} to {alias.version}{back}"
        case "alias_deleted":
            return f" {mutation.alias_deleted.alias.alias}"
        case _:
            return ""
