"""`cs admin`: what an operator asks of the processes."""

from __future__ import annotations

import json as json_text
import re
from typing import Annotated, Final

import typer
from codesous.admin.v1 import admin_service_pb2 as pb
from codesous.admin.v1.process_pb2 import LogLevel

from cs_cli import admin_tables as tables
from cs_cli import failure
from cs_cli.failure import CommandError
from cs_cli.messages import to_data
from cs_cli.options import DataDir, Form, Json
from cs_cli.output import OUT, moment
from cs_cli.processes import ask, ask_all, ask_any, ask_owners, named, targets

app = typer.Typer(
    no_args_is_help=True, help="The processes: health, drains, log levels, queues, and why something waits."
)

Addresses = Annotated[
    list[str] | None,
    typer.Option(
        "--address", "--admin", help="Internal address of a process, HOST:PORT; may be repeated. Default: the stack."
    ),
]
ProcessName = Annotated[
    str, typer.Argument(metavar="PROCESS", help="control, gateway, scheduler, poller, invoker, or the long name.")
]
_LENGTH: Final = re.compile(r"(\d+)([smh])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}
_GRACE: Final = 10.0


@app.command()
def health(address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = "") -> None:
    """Tell who is ready, since when, and what is wrong. Exits with 2 unless everybody is."""
    answers = ask_all(targets(address or [], data_dir), lambda stub: stub.GetReadiness, pb.GetReadinessRequest())
    rows = [tables.health_data(answer) for answer in answers]
    if OUT.json:
        OUT.data({"ready": all(row["state"] == "ready" for row in rows), "processes": rows})
    else:
        OUT.table(("process", "state", "since", "what"), (tables.health_row(row) for row in rows))
    if any(row["state"] != "ready" for row in rows):
        raise typer.Exit(failure.SERVER)


@app.command()
def info(
    process: ProcessName, address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = ""
) -> None:
    """Show what a process is and how it is configured, secrets hidden."""
    answer = ask(named(process, address or [], data_dir), lambda stub: stub.GetInfo, pb.GetInfoRequest())
    data = to_data(answer.info)
    config = json_text.loads(data.pop("config_json"))
    if OUT.json:
        OUT.data({**data, "config": config})
        return
    OUT.fields(
        (
            ("process", data["service"]),
            ("instance", data["instance"]),
            ("release", data["release"]),
            ("started", moment(data.get("start_time"))),
        )
    )
    OUT.text(json_text.dumps(config, indent=2, sort_keys=True))


@app.command()
def drain(
    process: ProcessName,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, max=3600, help="Longest wait for work in flight, in seconds.")
    ] = 30.0,
    address: Addresses = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Take a process out of service and wait for what it does. Exits with 2 when something is still in flight."""
    request = pb.DrainRequest()
    request.timeout.FromMilliseconds(int(timeout * 1000))
    target = named(process, address or [], data_dir)
    inflight = ask(target, lambda stub: stub.Drain, request, timeout + _GRACE).inflight
    if OUT.json:
        OUT.data({"process": target.name, "inflight": inflight})
    elif inflight:
        OUT.line(f"[yellow]draining[/yellow] {target.name}: {inflight} still in flight")
    else:
        OUT.line(f"[green]drained[/green] {target.name}; `cs admin undrain {process}` puts it back")
    if inflight:
        raise typer.Exit(failure.SERVER)


@app.command()
def undrain(
    process: ProcessName, address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = ""
) -> None:
    """Put a drained process back into service."""
    target = named(process, address or [], data_dir)
    ask(target, lambda stub: stub.Undrain, pb.UndrainRequest())
    if OUT.json:
        OUT.data({"process": target.name})
    else:
        OUT.line(f"[green]in service[/green] {target.name}")


@app.command("log-level")
def log_level(
    process: ProcessName,
    level: Annotated[
        str, typer.Argument(metavar="[LEVEL]", help="debug, info, warning, error, or `configured`. None: show it.")
    ] = "",
    length: Annotated[str, typer.Option("--for", help="For how long, as 30s, 10m, 2h; then the configured one.")] = "",
    address: Addresses = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Show or set which log lines a process writes."""
    target = named(process, address or [], data_dir)
    if level:
        request = pb.SetLogLevelRequest(level=_level(level))
        if length:
            request.duration.FromSeconds(_seconds(length))
        state = ask(target, lambda stub: stub.SetLogLevel, request).state
    elif length:
        raise CommandError("CS_VALIDATION_FIELD", "--for: needs a level")
    else:
        state = ask(target, lambda stub: stub.GetLogLevel, pb.GetLogLevelRequest()).state
    data = to_data(state)
    if OUT.json:
        OUT.data({"process": target.name, **data})
        return
    until = f" until {moment(data['revert_time'])}" if "revert_time" in data else ""
    OUT.line(f"{target.name} writes [bold]{data['level']}[/bold]{until}; configured: {data['configured']}")


@app.command()
def queues(
    topic: Annotated[str, typer.Option("--topic", help="Topic of the queue.")] = "cs.invoke",
    address: Addresses = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Show what waits, and for how long, by partition, lane and tenant; and who consumes it."""
    found = targets(address or [], data_dir)
    answer = ask_any(found, lambda stub: stub.GetQueueDepth, pb.GetQueueDepthRequest(topic=topic))
    if OUT.json:
        OUT.data({"topic": topic, **to_data(answer)})
        return
    OUT.table(
        ("partition", "ready", "oldest", "background", "oldest", "leased", "delayed", "tenants"),
        tables.partition_rows(answer.partitions),
        empty=f"nothing waits on {topic}",
    )
    if topic == "cs.invoke":
        OUT.table(
            ("consumer", "state", "permits", "taken", "of one partition"),
            tables.consumer_rows(answer.consumers),
            empty="nobody consumes it",
        )
    if answer.dead_letters:
        OUT.line(f"[red]{answer.dead_letters} dead letters[/red]; `cs dlq list` shows them")


@app.command()
def explain(
    activation_id: Annotated[str, typer.Argument(metavar="ACTIVATION_ID", help="Id of the activation.")],
    tenant: Annotated[
        str, typer.Option("--tenant", help="Its tenant. Default: the one that has it, if it goes on; else the login's.")
    ] = "",
    address: Addresses = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Tell why an activation waits, or what became of it."""
    found = targets(address or [], data_dir)
    request = pb.ExplainActivationRequest(activation_id=activation_id, tenant=tenant)
    told = ask_any(found, lambda stub: stub.ExplainActivation, request).explanation
    if not told.tenant and (own := _own_tenant()):
        request.tenant = own
        told = ask_any(found, lambda stub: stub.ExplainActivation, request).explanation
    data = to_data(told)
    if OUT.json:
        OUT.data(data)
        return
    OUT.line(f"[bold]{data['verdict']}[/bold]  {tables.escaped(data['message'])}")
    OUT.fields(tables.evidence(data))


@app.command()
def cells(address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = "") -> None:
    """List the sandbox cells of the invokers."""
    answers = ask_owners(targets(address or [], data_dir), lambda stub: stub.ListCells, pb.ListCellsRequest())
    rows = [{"process": target.name, **to_data(cell)} for target, value in answers for cell in value.cells]
    if OUT.json:
        OUT.data({"cells": rows})
    else:
        OUT.table(
            ("pid", "tenant", "state", "age", "memory", "runs", "now"),
            (tables.cell_row(row) for row in rows),
            empty="there are no cells",
        )


@app.command()
def leases(address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = "") -> None:
    """List the leases that invokers hold on activations, and schedulers on shards."""
    answers = ask_owners(targets(address or [], data_dir), lambda stub: stub.ListLeases, pb.ListLeasesRequest())
    rows = [{"process": target.name, **to_data(lease)} for target, value in answers for lease in value.leases]
    if OUT.json:
        OUT.data({"leases": rows})
    else:
        OUT.table(
            ("process", "on", "until", "fence"),
            (
                (
                    row["process"],
                    f"shard {row['shard']}" if "shard" in row else f"{row['tenant']}/{row['activation_id']}",
                    moment(row.get("expire_time")),
                    row["fence"] or "",
                )
                for row in rows
            ),
            empty="no leases are held",
        )


@app.command()
def shards(address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = "") -> None:
    """List the scheduler's shards: who leads each, and what is due."""
    found = targets(address or [], data_dir)
    rows = [to_data(s) for s in ask_any(found, lambda stub: stub.ListShards, pb.ListShardsRequest()).shards]
    if OUT.json:
        OUT.data({"shards": rows})
    else:
        OUT.table(
            ("shard", "leader", "fence", "lease until", "schedules", "due", "late by"),
            (
                (
                    row["shard"],
                    row["owner"] or "nobody",
                    row["fence"],
                    moment(row.get("expire_time")),
                    row["schedules"],
                    row["due"],
                    tables.length(row.get("oldest_due")),
                )
                for row in rows
            ),
        )


@app.command()
def caches(address: Addresses = None, data_dir: DataDir = None, json: Json = False, output: Form = "") -> None:
    """List the caches of the processes."""
    answers = ask_all(targets(address or [], data_dir), lambda stub: stub.ListCaches, pb.ListCachesRequest())
    rows = [{"process": a.target.name, **to_data(c)} for a in answers if a.value is not None for c in a.value.caches]
    if OUT.json:
        OUT.data({"caches": rows})
    else:
        OUT.table(
            ("process", "cache", "entries", "most", "size", "hits", "misses", "hit rate"),
            (tables.cache_row(row) for row in rows),
            empty="there are no caches",
        )


@app.command()
def flush(
    process: ProcessName,
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="Name of the cache, as `cs admin caches` shows it.")],
    address: Addresses = None,
    data_dir: DataDir = None,
    json: Json = False,
    output: Form = "",
) -> None:
    """Empty a cache; what is asked for next is read again."""
    target = named(process, address or [], data_dir)
    dropped = ask(target, lambda stub: stub.FlushCache, pb.FlushCacheRequest(name=cache)).dropped
    if OUT.json:
        OUT.data({"process": target.name, "cache": cache, "dropped": dropped})
    else:
        OUT.line(f"dropped [bold]{dropped}[/bold] from {tables.escaped(cache)} of {target.name}")


def _level(name: str) -> LogLevel.ValueType:
    if name == "configured":
        return LogLevel.LOG_LEVEL_UNSPECIFIED
    try:
        return LogLevel.Value(f"LOG_LEVEL_{name.upper()}")
    except ValueError as error:
        raise CommandError(
            "CS_VALIDATION_FIELD", "level: must be debug, info, warning, error, or configured"
        ) from error


def _seconds(text: str) -> int:
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise CommandError("CS_VALIDATION_FIELD", "--for: must be a number and s, m or h, as 30s, 10m, 2h")
    return int(found[1]) * _UNITS[found[2]]


def _own_tenant() -> str:
    """The tenant that the user is logged in as; empty when nobody is."""
    from cs_cli.login import saved_tenant

    return saved_tenant()
