"""Changing a schedule by a field mask."""

from __future__ import annotations

from typing import Final

from codesous.control.v1.schedule_pb2 import Schedule, ScheduleAction, SchedulePolicies, ScheduleSpec
from codesous.control.v1.schedule_service_pb2 import UpdateScheduleRequest
from google.protobuf.field_mask_pb2 import FieldMask

from cs_core.errors import ValidationError

_PARTS: Final = {
    "spec": ScheduleSpec.DESCRIPTOR,
    "action": ScheduleAction.DESCRIPTOR,
    "policies": SchedulePolicies.DESCRIPTOR,
}
PATHS: Final = frozenset(_PARTS) | {
    f"{part}.{field.name}" for part, fields in _PARTS.items() for field in fields.fields
}


def check_mask(mask: FieldMask) -> None:
    """Raise ValidationError unless the mask names fields, and only such that can be changed."""
    if not mask.paths:
        raise ValidationError.field("update_mask", "required")
    unknown = [path for path in mask.paths if path not in PATHS]
    if unknown:
        raise ValidationError.field(
            "update_mask", f"names {unknown[0][:80]!r}; it may name {', '.join(_PARTS)} and their fields"
        )


def merged(schedule: Schedule, request: UpdateScheduleRequest) -> Schedule:
    """The schedule with the fields of the mask as the request has them; what the request leaves out is cleared."""
    wanted = Schedule(spec=request.spec, action=request.action, policies=request.policies)
    after = Schedule()
    after.CopyFrom(schedule)
    for path in request.update_mask.paths:
        part, _, name = path.partition(".")
        source, target = getattr(wanted, part), getattr(after, part)
        if not name:
            target.CopyFrom(source)
            continue
        target.ClearField(name)
        field = source.DESCRIPTOR.fields_by_name[name]
        if field.has_presence and not source.HasField(name):
            continue
        if field.message_type is not None:
            getattr(target, name).CopyFrom(getattr(source, name))
        else:
            setattr(target, name, getattr(source, name))
    if after.spec.WhichOneof("rule") != "cron" and not {"spec", "spec.timezone"} & set(request.update_mask.paths):
        # It belonged to the expression that is gone.
        after.spec.ClearField("timezone")
    return after
