"""Schedules as commands print them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from codesous.control.v1.schedule_pb2 import Schedule as ScheduleMessage

from cs_cli.messages import to_data
from cs_cli.output import OUT, moment

Schedule = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]


def schedule_data(schedule: ScheduleMessage) -> dict[str, Any]:
    """A schedule as plain data; its payload as the JSON that it is."""
    data = to_data(schedule)
    data["action"]["payload_json"] = json.loads(schedule.action.payload_json or b"null")
    return data


def rule_text(spec: dict[str, Any]) -> str:
    """When a schedule ticks, in a few words."""
    if "interval" in spec:
        return f"every {spec['interval']}"
    if "once" in spec:
        return f"once at {moment(spec['once'])}"
    return f"{spec.get('cron', '')} {spec['timezone']}"


def show(schedule: ScheduleMessage) -> None:
    """Print one schedule."""
    data = schedule_data(schedule)
    if OUT.json:
        OUT.data(data)
        return
    spec, action, policies, status = data["spec"], data["action"], data["policies"], data["status"]
    error = status["last_error_reason"]
    OUT.fields(
        (
            ("schedule", f"{data['namespace']}/{data['schedule']}"),
            ("state", status["state"]),
            ("ticks", rule_text(spec)),
            ("from", moment(spec.get("start_time"))),
            ("until", moment(spec.get("end_time"))),
            ("jitter", spec.get("jitter")),
            ("runs", f"{action['function']}@{action['ref']}"),
            ("payload", json.dumps(action["payload_json"], ensure_ascii=False)),
            ("overlap", policies["overlap"]),
            ("catch-up", f"{policies['max_catchup_ticks']} ticks"),
            ("as", data["principal"]["subject"]),
            ("next tick", moment(status.get("next_tick_time"))),
            ("last tick", status["last_tick"] or ""),
            ("published", status["published_ticks"]),
            ("skipped", status["skipped_ticks"]),
            ("dropped", status["dropped_ticks"]),
            ("refused", status["refused_ticks"]),
            ("last error", f"{error}: {status['last_error_message']}" if error else ""),
        )
    )
