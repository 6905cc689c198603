"""`cs schedule create` and `update`: what is wanted of a schedule."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal

import typer
from codesous.control.v1 import schedule_service_pb2 as pb
from codesous.control.v1.schedule_pb2 import OverlapPolicy, ScheduleAction, SchedulePolicies, ScheduleSpec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from cs_cli import login
from cs_cli.api import Api
from cs_cli.commands.schedule.show import Schedule, show
from cs_cli.failure import CommandError
from cs_cli.options import DEFAULT_NAMESPACE, Json, Namespace
from cs_cli.sources import read_event

_UNITS = {"s": 1, "m": 60, "h": 3600}
Every = Annotated[str, typer.Option("--every", metavar="N", help="Interval in seconds, or as 90s, 5m, 1h.")]
Cron = Annotated[str, typer.Option("--cron", metavar="EXPR", help="Cron expression of five fields.")]
At = Annotated[str, typer.Option("--at", metavar="TIME", help="A single tick, as 2026-03-01T12:00:00Z.")]
Zone = Annotated[str, typer.Option("--tz", metavar="TZ", help="Timezone of --cron, as Europe/Berlin. Default UTC.")]
Target = Annotated[str, typer.Option("--fn", metavar="NAME@ALIAS|NAME@VERSION", help="What a tick runs.")]
Payload = Annotated[str, typer.Option("--payload", metavar="FILE", help="File of the event (JSON). Default null.")]
Overlap = Annotated[
    Literal["skip", "queue", "parallel"] | None,
    typer.Option("--overlap", help="When the tick before still runs. Default skip."),
]
Catchup = Annotated[
    int | None, typer.Option("--max-catchup", help="Missed ticks that are made up for, 0 to 60. Default 60.")
]
Jitter = Annotated[str, typer.Option("--jitter", metavar="N", help="Delay each tick by up to this, as for --every.")]
Start = Annotated[str, typer.Option("--start", metavar="TIME", help="No tick before. UTC unless it says otherwise.")]
End = Annotated[str, typer.Option("--end", metavar="TIME", help="No tick at or after.")]


def create(
    name: Schedule,
    fn: Target,
    every: Every = "",
    cron: Cron = "",
    at: At = "",
    tz: Zone = "",
    payload: Payload = "",
    overlap: Overlap = None,
    max_catchup: Catchup = None,
    jitter: Jitter = "",
    start: Start = "",
    end: End = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Make a schedule."""
    request = pb.CreateScheduleRequest(namespace=namespace, schedule=name)
    _fill(request, every, cron, at, tz, fn, payload, overlap, max_catchup, jitter, start, end)
    with Api(login.load()) as api:
        request.tenant = api.tenant
        show(api.call(api.schedules.CreateSchedule, request).schedule)


def update(
    name: Schedule,
    fn: Target = "",
    every: Every = "",
    cron: Cron = "",
    at: At = "",
    tz: Zone = "",
    payload: Payload = "",
    overlap: Overlap = None,
    max_catchup: Catchup = None,
    jitter: Jitter = "",
    start: Start = "",
    end: End = "",
    etag: Annotated[str, typer.Option("--etag", help="Change it only if it is still the one of this etag.")] = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    json: Json = False,
) -> None:
    """Change what is given of a schedule, and leave the rest."""
    request = pb.UpdateScheduleRequest(namespace=namespace, schedule=name, etag=etag)
    request.update_mask.paths.extend(
        _fill(request, every, cron, at, tz, fn, payload, overlap, max_catchup, jitter, start, end)
    )
    with Api(login.load()) as api:
        request.tenant = api.tenant
        show(api.call(api.schedules.UpdateSchedule, request).schedule)


def _fill(
    request: pb.CreateScheduleRequest | pb.UpdateScheduleRequest,
    every: str,
    cron: str,
    at: str,
    tz: str,
    fn: str,
    payload: str,
    overlap: str | None,
    max_catchup: int | None,
    jitter: str,
    start: str,
    end: str,
) -> list[str]:
    """Put what was given into a request; returns the paths of it."""
    paths = [
        *_fill_spec(request.spec, every, cron, at, tz, jitter, start, end),
        *_fill_action(request.action, fn, payload),
        *_fill_policies(request.policies, overlap, max_catchup),
    ]
    return list(dict.fromkeys(paths))


def _fill_spec(
    spec: ScheduleSpec, every: str, cron: str, at: str, tz: str, jitter: str, start: str, end: str
) -> list[str]:
    if sum(map(bool, (every, cron, at))) > 1:
        raise CommandError("CS_VALIDATION_FIELD", "give one of --every, --cron and --at")
    paths = []
    if every:
        spec.interval.CopyFrom(_length(every, "--every"))
        paths.append("spec.interval")
    if cron:
        spec.cron = cron
        paths.append("spec.cron")
    if at:
        spec.once.CopyFrom(_moment(at, "--at"))
        paths.append("spec.once")
    if tz:
        spec.timezone = tz
    # Another kind of rule has no timezone: the one that was there goes.
    if tz or every or at:
        paths.append("spec.timezone")
    if jitter:
        spec.jitter.CopyFrom(_length(jitter, "--jitter"))
        paths.append("spec.jitter")
    if start:
        spec.start_time.CopyFrom(_moment(start, "--start"))
        paths.append("spec.start_time")
    if end:
        spec.end_time.CopyFrom(_moment(end, "--end"))
        paths.append("spec.end_time")
    return paths


def _fill_action(action: ScheduleAction, fn: str, payload: str) -> list[str]:
    paths = []
    if fn:
        action.function, at, action.ref = fn.partition("@")
        if not at:
            raise CommandError("CS_VALIDATION_FIELD", f"{fn}: must be NAME@ALIAS or NAME@VERSION")
        paths += ["action.function", "action.ref"]
    if payload:
        action.payload_json = read_event(payload)
        paths.append("action.payload_json")
    return paths


def _fill_policies(policies: SchedulePolicies, overlap: str | None, max_catchup: int | None) -> list[str]:
    paths = []
    if overlap is not None:
        policies.overlap = OverlapPolicy.Value(f"OVERLAP_POLICY_{overlap.upper()}")
        paths.append("policies.overlap")
    if max_catchup is not None:
        if not 0 <= max_catchup < 2**32:
            raise CommandError("CS_VALIDATION_FIELD", "--max-catchup: must be 0 to 60")
        policies.max_catchup_ticks = max_catchup
        paths.append("policies.max_catchup_ticks")
    return paths


def _length(text: str, option: str) -> Duration:
    unit = _UNITS.get(text[-1])
    try:
        amount = Decimal(text if unit is None else text[:-1]) * (unit or 1)
        seconds = int(amount)
        return Duration(seconds=seconds, nanos=int((amount - seconds) * 1_000_000_000))
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise CommandError("CS_VALIDATION_FIELD", f"{option} {text}: must be seconds, or as 90s, 5m, 1h") from error


def _moment(text: str, option: str) -> Timestamp:
    stamp = Timestamp()
    try:
        moment = datetime.fromisoformat(text)
        stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        raise CommandError("CS_VALIDATION_FIELD", f"{option} {text}: must be as 2026-03-01T12:00:00Z") from error
    return stamp
