"""`cs fn invoke`, `activations`, `logs`."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Literal

import typer
from codesous.gateway.v1 import activation_service_pb2, invocation_service_pb2
from codesous.gateway.v1.activation_pb2 import Activation
from codesous.type.v1.activation_status_pb2 import ActivationStatus
from rich.markup import escape

from cs_cli import failure, login, watching
from cs_cli.api import LONG_DEADLINE, Api
from cs_cli.failure import CommandError
from cs_cli.messages import enum_word, to_data
from cs_cli.options import DEFAULT_NAMESPACE, Function, Json, Limit, Namespace
from cs_cli.output import OUT, moment, styled
from cs_cli.sources import read_event

_STATUS = ActivationStatus.DESCRIPTOR
_FAILED = frozenset({"error", "timeout", "cancelled"})


def invoke(
    target: Annotated[str, typer.Argument(metavar="NAME@ALIAS|NAME@VERSION", help="What to run.")],
    event: Annotated[str, typer.Option("--event", help="File of the event (JSON), or - for standard input.")] = "",
    mode: Annotated[Literal["sync", "async"], typer.Option("--mode", help="Wait for the result, or not.")] = "sync",
    idempotency_key: Annotated[str, typer.Option("--idempotency-key", help="Repeats meet the same activation.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the log and the states until the end.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 3 when the function fails.")] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Run a function."""
    name, at, ref = target.partition("@")
    if not at or not name or not ref:
        raise CommandError("CS_VALIDATION_FIELD", f"{target}: must be NAME@ALIAS or NAME@VERSION")
    modes = invocation_service_pb2.InvokeMode
    request = invocation_service_pb2.InvokeRequest(
        namespace=namespace,
        function=name,
        ref=ref,
        mode=modes.INVOKE_MODE_ASYNC if mode == "async" or watch else modes.INVOKE_MODE_SYNC,
        idempotency_key=idempotency_key,
    )
    if event:
        request.event_json = read_event(event, iter([sys.stdin.buffer.read()]) if event == "-" else None)
    with Api(login.load()) as api:
        request.tenant = api.tenant
        activation = api.call(api.invocations.Invoke, request, LONG_DEADLINE).activation
        if watch:
            activation = _follow(api, activation.activation_id)
    if not (watch and OUT.json):
        _show(activation)
    if fail and enum_word(_STATUS, activation.status) in _FAILED:
        raise typer.Exit(failure.FUNCTION)


def activations(
    name: Function, namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 20, json: Json = False
) -> None:
    """List the latest activations of a function, newest first."""
    with Api(login.load()) as api:
        request = activation_service_pb2.ListActivationsRequest(
            tenant=api.tenant, namespace=namespace, function=name, page_size=min(limit, 500)
        )
        found = [to_data(item) for item in api.pages(api.activations.ListActivations, request, "activations", limit)]
    if OUT.json:
        OUT.data({"activations": found})
        return
    OUT.table(
        ("activation", "version", "status", "trigger", "accepted", "reason"),
        (
            (
                item["activation_id"],
                item["function"]["version"],
                item["status"],
                next(iter(item["trigger"]), ""),
                moment(item["accept_time"]),
                item.get("error", {}).get("reason", ""),
            )
            for item in found
        ),
        empty=f"{namespace}/{name} has not run yet",
    )


def logs(
    activation_id: Annotated[str, typer.Argument(metavar="ACTIVATION_ID", help="Id of the activation.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the activation ends.")] = False,
    limit: Limit = 100_000,
    json: Json = False,
) -> None:
    """Print what an activation logged."""
    with Api(login.load()) as api:
        if follow:
            for event in watching.watch(api, activation_id):
                if event.HasField("log"):
                    _show_line(to_data(event.log))
            return
        request = activation_service_pb2.ListActivationLogsRequest(tenant=api.tenant, activation_id=activation_id)
        lines = [to_data(line) for line in api.pages(api.activations.ListActivationLogs, request, "entries", limit)]
    if OUT.json:
        OUT.data({"entries": lines})
        return
    for line in lines:
        _show_line(line)


def _follow(api: Api, activation_id: str) -> Activation:
    """Print what happens until the end; for programs, one JSON object a line: `log` or `activation`."""
    activation = Activation()
    for event in watching.watch(api, activation_id):
        if event.HasField("log"):
            line = to_data(event.log)
            if OUT.json:
                OUT.record({"log": line})
            else:
                _show_line(line)
            continue
        activation = event.activation
        if OUT.json:
            OUT.record({"activation": to_data(activation)})
        elif not activation.HasField("end_time"):
            OUT.note(f"{styled(enum_word(_STATUS, activation.status))} [dim]attempt {activation.attempt}[/dim]")
    return activation


def _show_line(line: dict[str, Any]) -> None:
    if OUT.json:
        OUT.record(line)
        return
    OUT.line(f"[dim]{moment(line['time'])}[/dim] {styled(line['level'])} {escape(line['message'])}")


def _show(activation: Activation) -> None:
    if OUT.json:
        OUT.data(to_data(activation))
        return
    OUT.note(
        f"{styled(enum_word(_STATUS, activation.status))} [dim]activation {activation.activation_id} "
        f"version {activation.function.version}[/dim]"
    )
    if activation.HasField("response"):
        OUT.note(f"[dim]status code[/dim] {activation.response.status_code}")
        OUT.text(activation.response.body)
    if activation.HasField("error"):
        kind = f"{activation.error.type}: " if activation.error.type else ""
        OUT.note(f"[red]{activation.error.reason}[/red] {escape(kind + activation.error.message)}")
        if activation.error.stack:
            OUT.note(f"[dim]{escape(activation.error.stack)}[/dim]")
