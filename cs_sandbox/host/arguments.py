"""The reading of arguments that user code gave: JSON values of any shape, each refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from cs_sandbox.host.capability import REASON_FIELD
from cs_sandbox.job import HostCallError

SAFE_INTEGER: Final = 2**53 - 1


def refuse(name: str, rule: str) -> HostCallError:
    """The error of an argument that breaks a rule."""
    return HostCallError(REASON_FIELD, f"{name}: {rule}")


def too_large(name: str, limit: int, unit: str = "bytes of JSON") -> HostCallError:
    """The error of an argument over its limit."""
    return HostCallError("CS_VALIDATION_TOO_LARGE", f"{name}: may be at most {limit} {unit}")


def item(arguments: list[Any], index: int, default: Any = None) -> Any:
    """An argument, or the default where there is none."""
    return arguments[index] if len(arguments) > index else default


def options(arguments: list[Any], index: int, *known: str) -> Mapping[str, Any]:
    """An argument that is an object with these keys and no other; absent and null mean none."""
    found = item(arguments, index)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise refuse("options", "must be an object")
    for key in found:
        if key not in known:
            raise refuse(f"options.{key[:64]}", f"is not known; there are {', '.join(known)}")
    return found


def to_json(name: str, value: Any, limit: int) -> bytes:
    """A value as UTF-8 JSON of at most `limit` bytes."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise refuse(name, "must be JSON, and not nested too deep") from None
    if len(text) > limit:
        raise too_large(name, limit)
    return text


def to_integer(name: str, value: object, low: int, high: int) -> int:
    """An integer from `low` to `high`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refuse(name, f"must be an integer from {low} to {high}")
    return value


def to_seconds(name: str, value: object, low: float, high: float) -> float:
    """A number of seconds from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refuse(name, f"must be a number of seconds from {low:g} to {high:g}")
    return float(value)
