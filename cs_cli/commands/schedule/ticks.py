"""`cs schedule preview` and `history`: ticks to come, and past ones."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from codesous.control.v1 import schedule_service_pb2 as pb

from cs_cli import login
from cs_cli.api import Api
from cs_cli.commands.schedule.show import Schedule
from cs_cli.messages import to_data
from cs_cli.options import DEFAULT_NAMESPACE, Json, Limit, Namespace
from cs_cli.output import OUT, moment


def preview(
    name: Schedule,
    count: Annotated[int, typer.Option("--count", min=1, max=100, help="How many ticks.")] = 10,
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Tell the next ticks, and why any of them would not run."""
    with Api(login.load()) as api:
        request = pb.PreviewScheduleRequest(tenant=api.tenant, namespace=namespace, schedule=name, count=count)
        found = [to_data(tick) for tick in api.call(api.schedules.PreviewSchedule, request).ticks]
    if OUT.json:
        OUT.data({"ticks": found})
        return
    rows = ((_number(tick), moment(tick["due_time"]), _outcome(tick), _why(tick)) for tick in found)
    OUT.table(("tick", "due", "would be", "why"), rows, empty=f"{namespace}/{name} has no tick left")


def history(name: Schedule, namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 50, json: Json = False) -> None:
    """List past ticks, newest first: published, skipped, dropped, refused."""
    with Api(login.load()) as api:
        request = pb.ListScheduleTicksRequest(
            tenant=api.tenant, namespace=namespace, schedule=name, page_size=min(limit, 500)
        )
        found = [to_data(tick) for tick in api.pages(api.schedules.ListScheduleTicks, request, "ticks", limit)]
    if OUT.json:
        OUT.data({"ticks": found})
        return
    OUT.table(
        ("tick", "due", "outcome", "activation", "why"),
        (
            (_number(tick), moment(tick["due_time"]), tick["outcome"], tick["activation_id"], _why(tick))
            for tick in found
        ),
        empty=f"{namespace}/{name} has not ticked yet",
    )


def _number(tick: dict[str, Any]) -> str:
    return f"{tick['tick']}-{tick['last_tick']}" if tick["last_tick"] else str(tick["tick"])


def _outcome(tick: dict[str, Any]) -> str:
    return str(tick["outcome"])


def _why(tick: dict[str, Any]) -> str:
    return ": ".join(part for part in (tick["reason"], tick["message"]) if part)
