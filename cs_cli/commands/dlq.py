"""`cs dlq`: requests that were given up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.dead_letter_pb2 import DeadLetterFilter
from codesous.queue.v1.envelope_pb2 import Envelope

from cs_cli.admin import GATEWAY, Admin, address_of
from cs_cli.failure import CommandError
from cs_cli.messages import to_data
from cs_cli.options import DataDir, Json, Limit
from cs_cli.output import OUT, moment

app = typer.Typer(no_args_is_help=True, help="Requests that were given up: look at them, run them again, remove them.")

_LONG = 3600.0
"""Seconds for a redrive, whose rate may be low."""

Address = Annotated[str, typer.Option("--admin", help="Internal port of a gateway. Default: the stack of --data-dir.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Dead letters. None: use a filter, or --all.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Only those of a tenant.")]
Space = Annotated[str, typer.Option("--namespace", "-n", help="Only those of a namespace.")]
Name = Annotated[str, typer.Option("--function", help="Only those of a function.")]
Reason = Annotated[str, typer.Option("--reason", help="Only those given up for this reason, as CS_RUNTIME_CRASH.")]
Since = Annotated[datetime | None, typer.Option("--since", help="Only those given up at or after; UTC.")]
Until = Annotated[datetime | None, typer.Option("--until", help="Only those given up before; UTC.")]
Everything = Annotated[bool, typer.Option("--all", help="All of them, when no id and no filter is given.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")]


@app.command("list")
def list_(
    tenant: Tenant = "",
    namespace: Space = "",
    function: Name = "",
    reason: Reason = "",
    since: Since = None,
    until: Until = None,
    limit: Limit = 100,
    admin: Address = "",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """List dead letters, oldest first."""
    chosen = _filter(tenant, namespace, function, reason, since, until)
    request = pb.ListDeadLettersRequest(filter=chosen, page_size=min(limit, 500))
    found: list[dict[str, Any]] = []
    with Admin(address_of(GATEWAY, admin, data_dir)) as gateway:
        while len(found) < limit:
            answer = gateway.call(gateway.service.ListDeadLetters, request)
            found += [to_data(letter) for letter in answer.dead_letters]
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                break
    if OUT.json:
        OUT.data({"dead_letters": found[:limit]})
        return
    OUT.table(
        ("dead letter", "function", "reason", "given up", "redriven"),
        (
            (
                letter["dead_letter_id"],
                _target(letter.get("function", {})),
                letter["cause"]["reason"],
                moment(letter["cause"].get("time")),
                len(letter["redrive_activation_ids"]),
            )
            for letter in found[:limit]
        ),
        empty="there are no dead letters",
    )


@app.command()
def show(
    dead_letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the dead letter.")],
    admin: Address = "",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Show a dead letter and what it was to run."""
    with Admin(address_of(GATEWAY, admin, data_dir)) as gateway:
        answer = gateway.call(gateway.service.GetDeadLetter, pb.GetDeadLetterRequest(dead_letter_id=dead_letter_id))
    data, envelope = to_data(answer.dead_letter), Envelope.FromString(answer.envelope)
    request = envelope.invocation_request
    event = request.event.decode("utf-8", "replace")
    if OUT.json:
        OUT.data({**data, "request_id": request.request_id, "event": event})
        return
    OUT.fields(
        (
            ("dead letter", data["dead_letter_id"]),
            ("function", _target(data.get("function", {}))),
            ("activation", data["activation_id"]),
            ("reason", data["cause"]["reason"]),
            ("message", data["cause"]["message"]),
            ("given up", moment(data["cause"].get("time"))),
            ("deliveries", data["cause"]["deliveries"]),
            ("redriven by", ", ".join(data["redrive_activation_ids"])),
            ("event", event),
        )
    )


@app.command()
def redrive(
    ids: Ids = None,
    tenant: Tenant = "",
    namespace: Space = "",
    function: Name = "",
    reason: Reason = "",
    since: Since = None,
    until: Until = None,
    version: Annotated[int, typer.Option("--version", min=0, help="Version to run. Default: the one that failed.")] = 0,
    rate: Annotated[int, typer.Option("--rate", min=1, max=1000, help="Redriven per second, at most.")] = 10,
    everything: Everything = False,
    dry_run: DryRun = False,
    admin: Address = "",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Run dead letters again, as new activations. By filter: those that nobody redrove yet."""
    chosen = _filter(tenant, namespace, function, reason, since, until)
    _check_chosen(ids, chosen, everything)
    request = pb.RedriveDeadLettersRequest(
        dead_letter_ids=ids or [], filter=chosen, version=version, rate_per_second=rate, dry_run=dry_run
    )
    with Admin(address_of(GATEWAY, admin, data_dir)) as gateway:
        answer = gateway.call(gateway.service.RedriveDeadLetters, request, _LONG)
    redrives = [to_data(redrive) for redrive in answer.redrives]
    if OUT.json:
        OUT.data({"redrives": redrives, "dry_run": dry_run})
        return
    OUT.table(
        ("dead letter", "version", "new activation"),
        ((item["dead_letter_id"], item["version"], item["activation_id"] or "-") for item in redrives),
        empty="nothing to redrive",
    )


@app.command()
def purge(
    ids: Ids = None,
    tenant: Tenant = "",
    namespace: Space = "",
    function: Name = "",
    reason: Reason = "",
    since: Since = None,
    until: Until = None,
    everything: Everything = False,
    dry_run: DryRun = False,
    admin: Address = "",
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Remove dead letters for good."""
    chosen = _filter(tenant, namespace, function, reason, since, until)
    _check_chosen(ids, chosen, everything)
    request = pb.PurgeDeadLettersRequest(dead_letter_ids=ids or [], filter=chosen, dry_run=dry_run)
    with Admin(address_of(GATEWAY, admin, data_dir)) as gateway:
        purged = gateway.call(gateway.service.PurgeDeadLetters, request, _LONG).purged
    if OUT.json:
        OUT.data({"purged": purged, "dry_run": dry_run})
    else:
        OUT.line(f"{'would remove' if dry_run else 'removed'} [bold]{purged}[/bold]")


def _filter(
    tenant: str, namespace: str, function: str, reason: str, since: datetime | None, until: datetime | None
) -> DeadLetterFilter:
    chosen = DeadLetterFilter(tenant=tenant, namespace=namespace, function=function, reason=reason)
    if since is not None:
        chosen.start_time.FromDatetime(since.replace(tzinfo=UTC))
    if until is not None:
        chosen.end_time.FromDatetime(until.replace(tzinfo=UTC))
    return chosen


def _check_chosen(ids: list[str] | None, chosen: DeadLetterFilter, everything: bool) -> None:
    """Nothing given must not mean everything."""
    if not ids and not everything and chosen == DeadLetterFilter():
        raise CommandError("CS_VALIDATION_FIELD", "name dead letters, give a filter, or say --all")


def _target(function: dict[str, Any]) -> str:
    if not function.get("function"):
        return ""
    return f"{function['tenant']}/{function['namespace']}/{function['function']}@{function['version']}"
