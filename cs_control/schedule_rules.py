"""The rules of schedules: what a spec, an action and policies may hold, and their defaults."""

from __future__ import annotations

from typing import Final

from codesous.control.v1.schedule_pb2 import OverlapPolicy, Schedule, ScheduleAction, SchedulePolicies, ScheduleSpec
from google.protobuf.timestamp_pb2 import Timestamp

from cs_core.errors import ValidationError
from cs_core.event import check_json
from cs_core.names import Violations, check_function, parse_ref
from cs_core.schedules.misfire import CATCHUP_MAX
from cs_core.schedules.placing import rule_of
from cs_core.schedules.rule import END_OF_TIME, CronError, check_cron, stamp_ms, timezones

INTERVAL_MAX: Final = 86_400
JITTER_MAX: Final = 3_600
PAYLOAD_BYTES: Final = 256 * 1024
_END_OF_TIME: Final = int(END_OF_TIME.timestamp())
_NANOS: Final = 1_000_000_000
_RULES: Final = ("interval", "cron", "once")


def complete(schedule: Schedule) -> None:
    """Fill in the defaults of what a caller left out."""
    if schedule.spec.WhichOneof("rule") == "cron":
        schedule.spec.timezone = schedule.spec.timezone or "UTC"
    schedule.action.payload_json = schedule.action.payload_json or b"null"
    policies = schedule.policies
    policies.overlap = policies.overlap or OverlapPolicy.OVERLAP_POLICY_SKIP
    if not policies.HasField("max_catchup_ticks"):
        policies.max_catchup_ticks = CATCHUP_MAX


def check(schedule: Schedule) -> None:
    """Raise ValidationError with every rule that spec, action and policies break."""
    violations = Violations()
    _check_rule(schedule.spec, violations)
    _check_span(schedule.spec, violations)
    _check_action(schedule.action, violations)
    _check_policies(schedule.policies, violations)
    violations.raise_if_any()


def check_ticks(schedule: Schedule, now_ms: int) -> None:
    """Raise ValidationError when no tick of a checked schedule is to come after a moment."""
    if rule_of(schedule).after(now_ms) is not None:
        return
    spec = schedule.spec
    kind = spec.WhichOneof("rule")
    if kind == "once" and stamp_ms(spec.once) <= now_ms:
        raise ValidationError.field("spec.once", "must be in the future")
    if spec.HasField("end_time"):
        raise ValidationError.field("spec.end_time", "must leave a tick: none is due between now and then")
    raise ValidationError.field(f"spec.{kind}", "must leave a tick: none is ever due")


def _check_rule(spec: ScheduleSpec, violations: Violations) -> None:
    match spec.WhichOneof("rule"):
        case "interval":
            if spec.interval.nanos or not 1 <= spec.interval.seconds <= INTERVAL_MAX:
                violations.add("spec.interval", f"must be whole seconds, 1 s to {INTERVAL_MAX} s")
        case "cron":
            try:
                check_cron(spec.cron)
            except CronError as error:
                violations.add("spec.cron", str(error))
            if spec.timezone and spec.timezone not in timezones():
                violations.add("spec.timezone", "must be the IANA name of a timezone, for example Europe/Berlin")
        case "once":
            _check_time(spec.once, "spec.once", violations)
        case _:
            violations.add("spec", f"required: one of {', '.join(_RULES)}")
    if spec.timezone and spec.WhichOneof("rule") != "cron":
        violations.add("spec.timezone", "must stand beside cron only")


def _check_span(spec: ScheduleSpec, violations: Violations) -> None:
    for name in ("start_time", "end_time"):
        if spec.HasField(name):
            _check_time(getattr(spec, name), f"spec.{name}", violations)
    spanned = spec.HasField("start_time") and spec.HasField("end_time")
    if spanned and stamp_ms(spec.end_time) <= stamp_ms(spec.start_time):
        violations.add("spec.end_time", "must be after start_time")
    length = spec.jitter.seconds + spec.jitter.nanos / _NANOS
    if not 0 <= length <= JITTER_MAX:
        violations.add("spec.jitter", f"must be 0 s to {JITTER_MAX} s")


def _check_time(stamp: Timestamp, field: str, violations: Violations) -> None:
    if not (0 < stamp.seconds < _END_OF_TIME and 0 <= stamp.nanos < _NANOS):
        violations.add(field, "must be a moment after 1970 and before the year 3000")


def _check_action(action: ScheduleAction, violations: Violations) -> None:
    violations.check(check_function, action.function, "action.function")
    violations.check(parse_ref, action.ref, "action.ref")
    if len(action.payload_json) > PAYLOAD_BYTES:
        violations.add("action.payload_json", f"must be at most {PAYLOAD_BYTES} bytes")
    elif action.payload_json:
        violations.check(lambda _, field: check_json(action.payload_json, field), "", "action.payload_json")


def _check_policies(policies: SchedulePolicies, violations: Violations) -> None:
    if policies.overlap not in OverlapPolicy.values():
        violations.add("policies.overlap", "must be a known policy")
    if policies.max_catchup_ticks > CATCHUP_MAX:
        violations.add("policies.max_catchup_ticks", f"must be 0 to {CATCHUP_MAX}")
