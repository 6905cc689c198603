"""`cs audit`: what was changed, by whom, and whether the ledger still says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from codesous.control.v1.mutation_pb2 import LifecycleMutation
from codesous.control.v1.mutation_service_pb2 import ListMutationsRequest
from rich.markup import escape

from cs_cli import login, watching
from cs_cli.api import Api
from cs_cli.commands.config import read_settings
from cs_cli.failure import SERVER, CommandError
from cs_cli.messages import to_data
from cs_cli.options import DataDir, Json, Limit
from cs_cli.output import OUT, moment
from cs_core.audit.contract import LedgerError, Verification
from cs_core.audit.open import ledger_of
from cs_core.changes import MutationFilter, changed
from cs_core.clock import to_timestamp
from cs_core.config import Settings
from cs_core.errors import UnavailableError, ValidationError
from cs_core.store.client import KvClient
from cs_core.store.relay import RelayStore

app = typer.Typer(help="What was changed, by whom, and whether the ledger still says so.", no_args_is_help=True)


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


@app.command()
def verify(
    config: Annotated[Path | None, typer.Option("--config", help="Settings file of the services.")] = None,
    data_dir: DataDir = None,
    head: Annotated[
        str, typer.Option("--head", help="Head that the ledger must reach, or `none`. Default: as the store knows it.")
    ] = "",
    json: Json = False,
) -> None:
    """Check the whole ledger, on the machine that has it: every entry, their order, and that its end is there."""
    from cs_cli.stack.folders import Folders, find_data_dir

    stack = Folders(find_data_dir(data_dir)).settings
    settings = read_settings(config or (stack if stack.exists() else None))
    if settings.audit.driver == "none":
        raise CommandError("CS_CLI_NO_LEDGER", "there is no ledger: the setting audit.driver is none")
    found = asyncio.run(_verify(settings, head))
    if OUT.json:
        OUT.data({"sound": found.sound, "entries": found.entries, "head": found.head, "faults": list(found.faults)})
    elif found.sound:
        OUT.line(f"[green]sound[/green] {found.entries} entries, head [dim]{escape(found.head or 'none')}[/dim]")
    else:
        OUT.line(f"[red]not sound[/red] {found.entries} entries hold")
        for fault in found.faults:
            OUT.line(f"  {escape(fault)}")
    if not found.sound:
        raise typer.Exit(SERVER)


async def _verify(settings: Settings, head: str) -> Verification:
    # The head first: what is appended meanwhile only goes beyond it.
    known = await _known_head(settings) if not head else "" if head == "none" else head
    try:
        return await ledger_of(settings.audit).verify(known)
    except LedgerError as error:
        raise CommandError("CS_CLI_LEDGER", f"the ledger cannot be read: {error}", SERVER) from error


async def _known_head(settings: Settings) -> str:
    client = KvClient(settings.store.url, settings.store.timeout)
    try:
        return await RelayStore(client).head(settings.audit.name) or ""
    except UnavailableError as error:
        message = "the store, which knows the ledger's head, does not answer; give --head HEAD, or --head none"
        raise CommandError(error.reason, message, SERVER) from error
    finally:
        await client.close()


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
