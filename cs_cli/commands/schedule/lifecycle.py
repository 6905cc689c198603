"""`cs schedule list`, `get`, `pause`, `resume`, `run`, `delete`."""

from __future__ import annotations

from codesous.control.v1 import schedule_service_pb2 as pb

from cs_cli import login
from cs_cli.api import Api
from cs_cli.commands.schedule.show import Schedule, rule_text, schedule_data, show
from cs_cli.options import DEFAULT_NAMESPACE, Json, Limit, Namespace
from cs_cli.output import OUT, moment


def list_all(namespace: Namespace = DEFAULT_NAMESPACE, limit: Limit = 1000, json: Json = False) -> None:
    """List the schedules of a namespace."""
    with Api(login.load()) as api:
        request = pb.ListSchedulesRequest(tenant=api.tenant, namespace=namespace, page_size=min(limit, 500))
        found = [schedule_data(item) for item in api.pages(api.schedules.ListSchedules, request, "schedules", limit)]
    if OUT.json:
        OUT.data({"schedules": found})
        return
    OUT.table(
        ("schedule", "state", "ticks", "runs", "next tick", "published", "skipped", "dropped", "refused", "last error"),
        (
            (
                item["schedule"],
                item["status"]["state"],
                rule_text(item["spec"]),
                f"{item['action']['function']}@{item['action']['ref']}",
                moment(item["status"].get("next_tick_time")),
                *(item["status"][f"{count}_ticks"] for count in ("published", "skipped", "dropped", "refused")),
                item["status"]["last_error_reason"],
            )
            for item in found
        ),
        empty=f"{namespace} has no schedules",
    )


def get(name: Schedule, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Show a schedule and what is the case with it."""
    with Api(login.load()) as api:
        request = pb.GetScheduleRequest(tenant=api.tenant, namespace=namespace, schedule=name)
        show(api.call(api.schedules.GetSchedule, request).schedule)


def pause(name: Schedule, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Let a schedule tick no more until it is resumed."""
    with Api(login.load()) as api:
        request = pb.PauseScheduleRequest(tenant=api.tenant, namespace=namespace, schedule=name)
        show(api.call(api.schedules.PauseSchedule, request).schedule)


def resume(name: Schedule, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Let a paused schedule tick again, from now."""
    with Api(login.load()) as api:
        request = pb.ResumeScheduleRequest(tenant=api.tenant, namespace=namespace, schedule=name)
        show(api.call(api.schedules.ResumeSchedule, request).schedule)


def run(name: Schedule, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Run what a schedule runs, now and beside its ticks."""
    with Api(login.load()) as api:
        request = pb.RunScheduleRequest(tenant=api.tenant, namespace=namespace, schedule=name)
        activation_id = api.call(api.schedules.RunSchedule, request).activation_id
    if OUT.json:
        OUT.data({"activation_id": activation_id})
    else:
        OUT.line(f"[green]started[/green] {activation_id}")


def delete(name: Schedule, namespace: Namespace = DEFAULT_NAMESPACE, json: Json = False) -> None:
    """Delete a schedule and its history."""
    with Api(login.load()) as api:
        request = pb.DeleteScheduleRequest(tenant=api.tenant, namespace=namespace, schedule=name)
        api.call(api.schedules.DeleteSchedule, request)
    if OUT.json:
        OUT.data({"schedule": name, "deleted": True})
    else:
        OUT.line(f"[green]deleted[/green] {namespace}/{name}")
