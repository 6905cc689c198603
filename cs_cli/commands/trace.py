"""`cs trace`: where the time of one activation went."""

from __future__ import annotations

from typing import Annotated

import typer
from codesous.gateway.v1 import activation_service_pb2
from codesous.type.v1.activation_status_pb2 import ActivationStatus

from cs_cli import login
from cs_cli.api import Api
from cs_cli.messages import enum_word
from cs_cli.options import Json
from cs_cli.output import OUT, moment, styled
from cs_cli.timeline import timeline


def trace(
    activation_id: Annotated[str, typer.Argument(metavar="ACTIVATION_ID", help="Id of the activation.")],
    json: Json = False,
) -> None:
    """Show where the time of an activation went, from its record."""
    with Api(login.load()) as api:
        request = activation_service_pb2.GetActivationRequest(tenant=api.tenant, activation_id=activation_id)
        activation = api.call(api.activations.GetActivation, request).activation
    found = timeline(activation)
    status = enum_word(ActivationStatus.DESCRIPTOR, activation.status)
    if OUT.json:
        OUT.data({"status": status, **found})
        return
    OUT.note(
        f"{styled(status)} [dim]trace[/dim] {found['trace_id']} [dim]request[/dim] {found['request_id']} "
        f"[dim]accepted[/dim] {moment(activation.accept_time.ToJsonString())}"
    )
    OUT.table(
        ("at ms", "took ms", "step", ""),
        (
            (f"{step['at_ms']:.1f}", "" if step["ms"] is None else f"{step['ms']:.1f}", step["step"], step["detail"])
            for step in found["steps"]
        ),
    )
    if found["total_ms"] is not None:
        OUT.note(f"[dim]in all[/dim] {found['total_ms']:.1f} ms")
