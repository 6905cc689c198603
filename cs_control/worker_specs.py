"""The rules of what a worker binding serves: limits, defaults, and updates by mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from codesous.control.v1.worker_binding_pb2 import PayloadCodec, WorkerBindingSpec
from google.protobuf.field_mask_pb2 import FieldMask

from cs_core.errors import ValidationError
from cs_core.names import Violations, check_function, parse_ref

MAX_ACTIVITIES: Final = 256
MAX_INFLIGHT: Final = 256
DEFAULT_INFLIGHT: Final = 16
_NAME_CHARS: Final = 256
_FIELDS: Final = tuple(field.name for field in WorkerBindingSpec.DESCRIPTOR.fields)


def check_spec(spec: WorkerBindingSpec, violations: Violations) -> None:
    """Note what is wrong with a spec."""
    _check_text(spec.domain, "spec.domain", violations)
    _check_text(spec.task_list, "spec.task_list", violations)
    if spec.worker_id:
        _check_text(spec.worker_id, "spec.worker_id", violations)
    if not 1 <= len(spec.activities) <= MAX_ACTIVITIES:
        violations.add("spec.activities", f"must map 1 to {MAX_ACTIVITIES} activity types")
    for activity in sorted(spec.activities):
        target = spec.activities[activity]
        _check_text(activity, "spec.activities", violations)
        violations.check(check_function, target.function, f"spec.activities[{activity[:64]}].function")
        violations.check(parse_ref, target.ref, f"spec.activities[{activity[:64]}].ref")
    if spec.max_inflight_tasks > MAX_INFLIGHT:
        violations.add("spec.max_inflight_tasks", f"must be 1 to {MAX_INFLIGHT}")
    if spec.codec not in PayloadCodec.values():
        violations.add("spec.codec", "is no codec")


def with_defaults(spec: WorkerBindingSpec, worker: str) -> WorkerBindingSpec:
    """The spec with everything that was left to the platform filled in."""
    filled = WorkerBindingSpec()
    filled.CopyFrom(spec)
    filled.worker_id = spec.worker_id or worker
    filled.max_inflight_tasks = spec.max_inflight_tasks or DEFAULT_INFLIGHT
    filled.codec = spec.codec or PayloadCodec.PAYLOAD_CODEC_JSON
    return filled


def check_mask(mask: FieldMask) -> Sequence[str]:
    """The fields of a spec that a mask names. Raises ValidationError when it names none, or what is no such field."""
    if not mask.paths:
        raise ValidationError.field("update_mask", "required")
    named: list[str] = []
    for path in mask.paths:
        if path == "spec":
            return _FIELDS
        part = path.removeprefix("spec.")
        if path == part or part not in _FIELDS:
            known = ", ".join(f"spec.{name}" for name in _FIELDS)
            raise ValidationError.field("update_mask", f"{path[:64]!r} cannot be changed; fields are spec, {known}")
        named.append(part)
    return named


def merge_spec(present: WorkerBindingSpec, wanted: WorkerBindingSpec, fields: Sequence[str]) -> WorkerBindingSpec:
    """The present spec with the named fields taken from the wanted one; an absent value is the field's default."""
    merged = WorkerBindingSpec()
    merged.CopyFrom(present)
    for field in fields:
        merged.ClearField(field)  # type: ignore[arg-type]
        if field == "activities":
            for activity, target in wanted.activities.items():
                merged.activities[activity].CopyFrom(target)
        else:
            setattr(merged, field, getattr(wanted, field))
    return merged


def _check_text(value: str, field: str, violations: Violations) -> None:
    if not 1 <= len(value) <= _NAME_CHARS or not value.isprintable():
        rule = "required" if not value else f"must be 1 to {_NAME_CHARS} printable characters"
        violations.add(field, rule)
